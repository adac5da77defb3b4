"""Which schema this code needs. Who finds an older one does no work and says so; a newer one is as good, since a
migration only ever adds to what the release before it uses.

Light: the road imports it, and must not import what migrates.
"""

import asyncpg

from persistence.errors import LedgerUnavailableError

NEEDED = "0015"  # the newest revision in migrations/versions; they are numbered, so texts compare as numbers do


async def version(connection: asyncpg.Connection) -> str:
    """The ledger's revision, empty when it has no schema."""
    try:
        return str(await connection.fetchval("select version_num from schema_version") or "")
    except asyncpg.UndefinedTableError:
        return ""


async def ensure_new_enough(connection: asyncpg.Connection) -> None:
    """Raises LedgerUnavailableError when `floodgate migrate` has not been run yet."""
    found = await version(connection)
    if found < NEEDED:
        raise LedgerUnavailableError(
            f"the ledger's schema is at {found or 'nothing'} and {NEEDED} is needed: run `floodgate migrate`"
        )
