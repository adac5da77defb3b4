"""The ledger: orders, keys, outbox, stock, catalogue, clients."""

from persistence.postgres.migrate import run_sql

revision = "0001"
down_revision = None


def upgrade() -> None:
    run_sql("0001_tables", "0001_stock", "0001_commit")
