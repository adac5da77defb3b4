"""The active leases of an owner in order, so that they can be walked in pieces."""

from persistence.postgres.migrate import run_sql

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    run_sql("0012_hands_in_order")
