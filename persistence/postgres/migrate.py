"""Brings a database to the schema of this version: alembic runs the numbered SQL files in `sql/`, one transaction for
all that is missing.

Two processes may run it at once: the second waits for the advisory lock and then finds nothing to do. Nothing here ever
drops data.
"""

from importlib.resources import files
from pathlib import Path

from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from persistence.postgres import partitions
from persistence.postgres.connect import connect

MIGRATION_LOCK = 0x464C4F4F44  # "FLOOD": the advisory lock of migrations
SQL = files("persistence.postgres") / "sql"


def run_sql(*names: str) -> None:
    """Run files of `sql/` inside a migration; each may hold many statements, so it goes to the driver as it is."""
    for name in names:
        script = (SQL / f"{name}.sql").read_text()
        if op.get_context().as_sql:
            op.execute(script)
        else:
            driver = op.get_bind().connection.dbapi_connection
            assert driver is not None
            driver.run_async(lambda raw, script=script: raw.execute(script))


async def upgrade(url: str, days: int = 1, ahead: int = 3) -> tuple[str | None, str | None]:
    """Bring the database at `url` up to date and make its partitions. Returns the schema's version before and after."""
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            versions = await connection.run_sync(_upgrade)
    finally:
        await engine.dispose()
    ledger = await connect(url, "fg-migrate")
    try:
        await partitions.ensure_ahead(ledger, days, ahead)
    finally:
        await ledger.close()
    return versions


def head() -> str | None:
    """The schema version that this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def _upgrade(connection: Connection) -> tuple[str | None, str | None]:
    connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
    before = _current(connection)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return before, _current(connection)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": "schema_version"}).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(files("persistence.postgres") / "migrations"))))
    return config
