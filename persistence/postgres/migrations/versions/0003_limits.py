"""Limits per buyer, and orders that are cancelled."""

from persistence.postgres.migrate import run_sql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    run_sql("0003_limits")
