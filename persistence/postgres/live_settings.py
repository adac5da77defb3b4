"""The live settings in the ledger: versions that are only ever added. Every write raises the topic `settings` in the
same transaction; writers go one after the other under its lock, and each sees the version of the one before.

A document is the JSON of the live sections; what may stand in it is not known here.
"""

import datetime as dt
from typing import NamedTuple

import asyncpg

from persistence.postgres.revisions import RAISE

TOPIC = "settings"
HISTORY_MAX = 1000  # versions that one question answers

_CURRENT = """
select r.value, s.version, s.at, s.actor, s.reason, s.document
from revision r left join lateral (select * from live_settings order by version desc limit 1) s on true
where r.topic = $1
"""
_ADD = """
insert into live_settings (version, actor, reason, document)
values ((select coalesce(max(version), 0) + 1 from live_settings), $1, $2, $3::jsonb) returning version
"""


class Version(NamedTuple):
    """A version of the live settings, by whom and why; `document` is JSON."""

    version: int
    at: dt.datetime
    actor: str
    reason: str | None
    document: str


async def current(connection: asyncpg.Connection) -> tuple[int, Version | None]:
    """The topic's value and the version in force, None before the first one; both are of one instant."""
    row = await connection.fetchrow(_CURRENT, TOPIC)
    return row["value"], None if row["version"] is None else _version(row)


async def fetch(connection: asyncpg.Connection, version: int) -> Version | None:
    row = await connection.fetchrow("select * from live_settings where version = $1", version)
    return None if row is None else _version(row)


async def history(connection: asyncpg.Connection, limit: int = HISTORY_MAX) -> list[Version]:
    """The newest versions, newest first, at most HISTORY_MAX."""
    rows = await connection.fetch("select * from live_settings order by version desc limit $1", min(limit, HISTORY_MAX))
    return [_version(row) for row in rows]


async def seed(connection: asyncpg.Connection, document: str, actor: str) -> bool:
    """Write version 1 where there is no version at all. Returns whether this call has."""
    return await apply(connection, document, actor, None, if_version=0) is not None


async def apply(
    connection: asyncpg.Connection, document: str, actor: str, reason: str | None, if_version: int | None = None
) -> int | None:
    """Write a new version. Returns its number; None when `if_version` is given (0: none yet) and another one is in
    force, and then nothing has changed.
    """
    async with connection.transaction():
        # Whoever comes second waits here, and reads the first one's version below.
        await connection.fetchval("select value from revision where topic = $1 for update", TOPIC)
        if if_version not in (None, await connection.fetchval("select coalesce(max(version), 0) from live_settings")):
            return None
        await connection.fetchval(RAISE, TOPIC)
        return int(await connection.fetchval(_ADD, actor, reason, document))


async def rollback(
    connection: asyncpg.Connection, version: int, actor: str, reason: str | None, if_version: int | None = None
) -> int | None:
    """Write a new version with the content of an old one. Returns its number; None as `apply`, and when there is no
    such version.
    """
    old = await fetch(connection, version)
    return None if old is None else await apply(connection, old.document, actor, reason, if_version)


def _version(row: asyncpg.Record) -> Version:
    return Version(row["version"], row["at"], row["actor"], row["reason"], row["document"])
