"""Adjustments of stock under keys, and movements that can be listed."""

from persistence.postgres.migrate import run_sql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    run_sql("0007_adjustments")
