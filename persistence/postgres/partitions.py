"""Partitions, made ahead of time: a commit that finds none is refused, so the steward keeps some in hand and the audit
counts them.

A partition is created as a table of its own (LIKE … INCLUDING ALL, CHECK) and then attached under a short lock
time-out: `PARTITION OF` makes every commit wait behind any reader. Existing partitions decide where the next one
begins, so a changed width never leaves a gap or an overlap.
"""

import datetime as dt
import re

import asyncpg

from persistence.errors import LedgerUnavailableError

TABLES = {
    "orders": "order_id",
    "order_lines": "order_id",
    "order_history": "order_id",
    "order_key": "order_id",
    "batch": "batch_id",
}
DAY_MS = 86_400_000
PARTITION_LOCK = 0x464C4F4F45  # the advisory lock of whoever makes partitions
ATTACH_LOCK_TIMEOUT_MS = 500
ATTACH_TRIES = 20

_BOUNDS = """
select c.relname as name, pg_get_expr(c.relpartbound, c.oid) as bounds, i.inhdetachpending as pending
from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = $1::regclass
"""
# Detached, and not dropped because whoever did so died.
_LEFT = """
select relname as name from pg_class
where relname ~ ('^' || $1 || '_p[0-9]{8}$') and relkind = 'r' and not relispartition
    and relnamespace = 'public'::regnamespace and to_date(right(relname, 8), 'YYYYMMDD') < $2
"""
_FROM = re.compile(r"FROM \('([0-9a-f-]{36})'\)")
_TO = re.compile(r"TO \('([0-9a-f-]{36})'\)")


def floor_of(ms: int) -> str:
    """The lowest UUIDv7 of an instant, in milliseconds since 1970, as text."""
    digits = f"{ms:012x}"
    return f"{digits[:8]}-{digits[8:]}-0000-0000-000000000000"


def time_of(id_text: str) -> int:
    """The time of a UUIDv7, in milliseconds since 1970."""
    return int(id_text.replace("-", "")[:12], 16)


async def ends(connection: asyncpg.Connection) -> dict[str, int]:
    """The first instant (milliseconds) that each table has no partition for; 0 when it has none at all."""
    found = {}
    for table in TABLES:
        rows = await connection.fetch(_BOUNDS, table)
        bounds = [match.group(1) for row in rows if (match := _TO.search(row["bounds"]))]
        found[table] = max((time_of(bound) for bound in bounds), default=0)
    return found


async def starts(connection: asyncpg.Connection) -> dict[str, int]:
    """The first instant (milliseconds) that each table of orders has a partition for, of those that have one."""
    found = {}
    for table in (table for table, key in TABLES.items() if key == "order_id"):
        rows = await connection.fetch(_BOUNDS, table)
        bounds = [match.group(1) for row in rows if (match := _FROM.search(row["bounds"]))]
        if bounds:
            found[table] = min(map(time_of, bounds))
    return found


async def ensure_back(connection: asyncpg.Connection, days: int, from_ms: int) -> list[str]:
    """Make what is missing before the first partitions, so that orders from `from_ms` on have one. Returns the names
    made.
    """
    made: list[str] = []
    await connection.execute("select pg_advisory_lock($1)", PARTITION_LOCK)
    try:
        for table, first in (await starts(connection)).items():
            start = first
            while start > from_ms:
                start -= days * DAY_MS
                made.append(await _make(connection, table, start, start + days * DAY_MS))
    finally:
        await connection.execute("select pg_advisory_unlock($1)", PARTITION_LOCK)
    return made


async def ensure_ahead(connection: asyncpg.Connection, days: int, ahead: int) -> list[str]:
    """Make what is missing so that `ahead` partitions of `days` days lie beyond the present one. Safe to run twice at
    once. Returns the names made.
    """
    now_ms = await _now_ms(connection)
    made: list[str] = []
    await connection.execute("select pg_advisory_lock($1)", PARTITION_LOCK)
    try:
        for table, end in (await ends(connection)).items():
            start = end or (now_ms // DAY_MS - 1) * DAY_MS
            while start <= now_ms + ahead * days * DAY_MS:
                made.append(await _make(connection, table, start, start + days * DAY_MS))
                start += days * DAY_MS
    finally:
        await connection.execute("select pg_advisory_unlock($1)", PARTITION_LOCK)
    return made


async def drop_before(connection: asyncpg.Connection, table: str, before_ms: int) -> list[str]:
    """Drop the partitions that end before an instant, while rows are read and written: each is detached beside whoever
    does so, then dropped. What was interrupted half-way is finished. Returns the names. Not inside a transaction.
    """
    await connection.execute("select pg_advisory_lock($1)", PARTITION_LOCK)
    try:
        for row in await connection.fetch(_BOUNDS, table):
            end = _TO.search(row["bounds"] or "")
            if row["pending"]:
                await connection.execute(f"alter table {table} detach partition {row['name']} finalize")
            elif end is not None and time_of(end.group(1)) <= before_ms:
                await connection.execute(f"alter table {table} detach partition {row['name']} concurrently")
        before = dt.datetime.fromtimestamp(before_ms / 1000, dt.UTC).date()
        left = [row["name"] for row in await connection.fetch(_LEFT, table, before)]
        for name in left:
            await connection.execute(f"drop table {name}")
    finally:
        await connection.execute("select pg_advisory_unlock($1)", PARTITION_LOCK)
    return left


async def missing(connection: asyncpg.Connection, days: int, ahead: int) -> list[str]:
    """The tables that lack more than the partition which whoever keeps house makes next."""
    needed_ms = await _now_ms(connection) + (ahead - 1) * days * DAY_MS
    return sorted(table for table, end in (await ends(connection)).items() if end <= needed_ms)


async def _now_ms(connection: asyncpg.Connection) -> int:
    return int((await connection.fetchval("select clock_timestamp()")).timestamp() * 1000)


async def _make(connection: asyncpg.Connection, table: str, start_ms: int, end_ms: int) -> str:
    day = dt.datetime.fromtimestamp(start_ms / 1000, dt.UTC)
    name = f"{table}_p{day:%Y%m%d}"
    key, lower, upper = TABLES[table], floor_of(start_ms), floor_of(end_ms)
    # The names and bounds are ours and hold no user's text, and DDL takes no parameters.
    await connection.execute(f"create table if not exists {name} (like {table} including all)")
    await connection.execute(f"alter table {name} drop constraint if exists {name}_bounds")
    await connection.execute(
        f"alter table {name} add constraint {name}_bounds check ({key} >= '{lower}' and {key} < '{upper}')"
    )
    attach = f"alter table {table} attach partition {name} for values from ('{lower}') to ('{upper}')"
    # In one transaction: once readers know the partition, the constraint could be dropped only by waiting for them.
    await _attach(connection, f"{attach}; alter table {name} drop constraint {name}_bounds")
    return name


async def _attach(connection: asyncpg.Connection, statement: str) -> None:
    for _ in range(ATTACH_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = {ATTACH_LOCK_TIMEOUT_MS}")
                await connection.execute(statement)
        except asyncpg.LockNotAvailableError:
            continue
        return
    raise LedgerUnavailableError(f"no lock for: {statement}")
