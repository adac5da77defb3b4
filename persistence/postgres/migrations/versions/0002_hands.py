"""Many hands on one stock: takes of whole orders, what a change of a shard answers, a bell without Redis."""

from persistence.postgres.migrate import run_sql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    run_sql("0002_hands")
