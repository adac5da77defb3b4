"""Levels of stock and their events."""

from persistence.postgres.migrate import run_sql

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    run_sql("0006_levels")
