"""Settings that change while workers run."""

from persistence.postgres.migrate import run_sql

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    run_sql("0005_live_settings")
