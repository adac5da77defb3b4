"""What may become of an order, and the end of one that nobody pays."""

from persistence.postgres.migrate import run_sql

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    run_sql("0014_lifecycle")
