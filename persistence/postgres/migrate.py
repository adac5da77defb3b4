"""Brings a database to the schema of this version: alembic runs the numbered SQL files in `sql/`, each revision in a
transaction of its own.

Two processes may run it at once: the second waits for the advisory lock and then finds nothing to do. Orders go on
meanwhile: a statement that does not get its lock soon gives up, since whoever waits for a table behind a long reader
makes every commit wait behind him, and is tried again. Nothing here ever drops data.
"""

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import asyncpg
from alembic import command, op
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from persistence.errors import LedgerUnavailableError
from persistence.postgres import partitions, schema
from persistence.postgres.connect import connect

MIGRATION_LOCK = 0x464C4F4F44  # "FLOOD": the advisory lock of migrations
OTHERS_WAIT_S = 120  # for a migration that somebody else runs
LOCK_TIMEOUT_MS = 500  # how long commits may have to wait behind a statement of a migration
TRIES = 60
PAUSE_S = 0.5  # between two tries: commits that have waited go first
LOCK_NOT_AVAILABLE = "55P03"
SQL = files("persistence.postgres") / "sql"

_LONGEST = """
select format('%s (pid %s, since %s s)', coalesce(nullif(application_name, ''), usename), pid,
    extract(epoch from clock_timestamp() - xact_start)::integer)
from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and xact_start is not null
order by xact_start limit 1
"""

_PARTITIONS = """
select c.relname, coalesce(not x.indisvalid, false) from pg_inherits i join pg_class c on c.oid = i.inhrelid
left join pg_class n on n.relname = c.relname || '_' || :n and n.relnamespace = c.relnamespace
left join pg_index x on x.indexrelid = n.oid
where i.inhparent = cast(:t as regclass) order by 1
"""


class Revision(NamedTuple):
    """A step of the schema: its number, and in a few words what it brings."""

    number: str
    title: str


def run_sql(*names: str) -> None:
    """Run files of `sql/` inside a migration; each may hold many statements, so it goes to the driver as it is."""
    # Through SQLAlchemy: it opens the transaction that the files then run in.
    op.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
    for name in names:
        script = (SQL / f"{name}.sql").read_text()
        if op.get_context().as_sql:
            op.execute(script)
        else:
            driver = op.get_bind().connection.dbapi_connection
            assert driver is not None
            driver.run_async(lambda raw, script=script: raw.execute(script))


def add_index(table: str, name: str, definition: str) -> None:
    """Give a partitioned table the index `<table>_<name>`, inside a migration, while rows are written: each partition's
    is built beside them, and the table's takes these over. One that was left half-built is built again.
    """
    if not op.get_context().as_sql:
        with op.get_context().autocommit_block():
            for partition, is_half_built in op.get_bind().execute(text(_PARTITIONS), {"t": table, "n": name}).all():
                index = f"{partition}_{name}"
                if is_half_built:
                    op.execute(f"drop index concurrently {index}")
                op.execute(f"create index concurrently if not exists {index} on {partition} {definition}")
    op.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
    op.execute(f"create index {table}_{name} on {table} {definition}")


async def upgrade(url: str, days: int = 1, ahead: int = 3) -> tuple[str | None, str | None]:
    """Bring the database at `url` up to date and make its partitions. Returns the schema's version before and after.

    Raises LedgerUnavailableError when somebody holds a table for too long; what was done by then stays, and the next
    call goes on from there.
    """
    await (await connect(url, "fg-migrate")).close()  # The driver's own error says more than SQLAlchemy's.
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            versions = await _upgrade_in_turn(connection)
    finally:
        await engine.dispose()
    ledger = await connect(url, "fg-migrate")
    try:
        await partitions.ensure_ahead(ledger, days, ahead)
    finally:
        await ledger.close()
    return versions


async def missing(url: str, days: int, ahead: int) -> tuple[list[Revision], list[str]]:
    """What `upgrade` would do: the revisions to come, and the tables that need partitions. Changes nothing."""
    ledger = await connect(url, "fg-migrate")
    try:
        found = await schema.version(ledger)
        behind = await partitions.missing(ledger, days, ahead) if found else sorted(partitions.TABLES)
    finally:
        await ledger.close()
    return revisions(found or None, head()), behind


def head() -> str | None:
    """The schema version that this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def revisions(before: str | None, after: str | None) -> list[Revision]:
    """The steps from one version, or none at all, to another, in order. A version that this code does not know is a
    newer one.
    """
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    found = [Revision(script.revision, script.doc) for script in scripts]
    return [step for step in reversed(found) if (before or "") < step.number <= (after or "")]


async def _upgrade_in_turn(connection: AsyncConnection) -> tuple[str | None, str | None]:
    """Wait for one's turn, then take the steps, again and again where somebody holds a lock."""
    await _wait_for_turn(connection)
    before = await connection.run_sync(_current)
    for _ in range(TRIES):
        try:
            await connection.run_sync(_upgrade)
        except (DBAPIError, asyncpg.LockNotAvailableError) as error:
            if not _is_locked(error):
                raise
            await connection.rollback()
            await asyncio.sleep(PAUSE_S)
        else:
            return before, await connection.run_sync(_current)
    holder = (await connection.execute(text(_LONGEST))).scalar()
    raise LedgerUnavailableError(
        f"the schema is at {await connection.run_sync(_current)}: no lock for the next step;"
        f" the longest transaction is {holder or 'over by now'}: end it, or wait for it, and run this again"
    )


async def _wait_for_turn(connection: AsyncConnection) -> None:
    """The lock is the session's: it outlives the transactions of the steps, and ends with the connection."""
    try:
        await connection.execute(text(f"set local lock_timeout = '{OTHERS_WAIT_S}s'"))
        await connection.execute(text("select pg_advisory_lock(:lock)"), {"lock": MIGRATION_LOCK})
    except DBAPIError as error:
        if not _is_locked(error):
            raise
        raise LedgerUnavailableError(f"another migration has been running for {OTHERS_WAIT_S} s") from error
    await connection.commit()


def _is_locked(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlstate", None) == LOCK_NOT_AVAILABLE


def _upgrade(connection: Connection) -> None:
    """Take every step that is missing; those that were taken stay when a later one fails."""
    if newer_than_known(_current(connection)):
        return
    connection.commit()  # Alembic opens a transaction for each step, unless there is one already.
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()


def newer_than_known(found: str | None) -> bool:
    """Whether a newer release has migrated the database: there is nothing left to do then."""
    return (found or "") > schema.NEEDED


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": "schema_version"}).get_current_revision()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(str(files("persistence.postgres") / "migrations"))))
    return config
