"""Levels of stock: the changes that stewards decide, the events that wait for the stream, and how many units there are
(sql/0006_levels.sql).

A SKU here is a stock key. Nothing moves units; a change of level and its event are decided together, once, by however
many stewards.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from persistence.postgres.orders import to_ms
from persistence.postgres.session import Session

_CLAIM = """
select sku, version, event, level, previous, available, at from stock_event
order by sku, version limit $1 for update skip locked
"""
_REMOVE = """
with told as (
    delete from stock_event e using unnest($1::text[], $2::bigint[]) t(sku, version)
    where e.sku = t.sku and e.version = t.version and e.sku = any($1)
    returning e.*)
insert into stock_history (sku, version, event, level, previous, available, at)
    select sku, version, event, level, previous, available, at from told on conflict do nothing
"""
_TOLD = """
select sku, version, event, level, previous, available, at from stock_history
where (sku, version) > ($1, $2) order by sku, version limit $3
"""
_AVAILABLE = """
select k.sku,
    (select coalesce(sum(s.free), 0) from stock_shard s where s.sku = k.sku)::bigint
    + (select coalesce(sum(l.units - l.used), 0) from stock_lease l where l.sku = k.sku and l.state <> 'closed')::bigint
    as available
from stock_sku k where k.sku = any($1::text[])
"""


class LevelChange(NamedTuple):
    """A change that is told: `version` counts those of the SKU, `available` are its unsold units at `at_ms`."""

    sku: str
    version: int
    event: str
    level: str
    previous: str
    available: int
    at_ms: int


async def decide(session: Session, low_units: int, after: str, limit: int) -> tuple[str | None, int]:
    """Look at the next `limit` SKUs on watch that follow `after`. Returns the last of them, None when no more follow,
    and how many events there are now that were not before. Raises LedgerUnavailableError.
    """
    row = await session.run(
        lambda c: c.fetchrow("select last_sku, events from stock_decide($1, $2, $3)", low_units, after, limit)
    )
    return row["last_sku"], row["events"]


@asynccontextmanager
async def claim(connection: asyncpg.Connection, limit: int) -> AsyncIterator[list[LevelChange]]:
    """Changes that the stream has not acknowledged, held against other stewards until the block ends. What the block
    does not `remove` is found again.
    """
    async with connection.transaction():
        rows = await connection.fetch(_CLAIM, limit)
        yield [_change(row) for row in rows]


def _change(row: asyncpg.Record) -> LevelChange:
    sku, version, event, level, previous, units, at = row
    return LevelChange(sku, version, event, level, previous, units, to_ms(at) or 0)


async def remove(connection: asyncpg.Connection, changes: Sequence[LevelChange]) -> None:
    """The stream has acknowledged these: they become history."""
    await connection.execute(_REMOVE, [change.sku for change in changes], [change.version for change in changes])


async def told_after(
    connection: asyncpg.Connection | asyncpg.Pool, sku: str, version: int, limit: int
) -> list[LevelChange]:
    """Up to `limit` changes that have been told, in order of stock key and version, those after this one."""
    return [_change(row) for row in await connection.fetch(_TOLD, sku, version, limit)]


async def available(pool: asyncpg.Pool, skus: Sequence[str]) -> dict[str, int]:
    """SKU -> units that nobody has bought, free or in workers' hands. SKUs without stock are left out."""
    return {row["sku"]: row["available"] for row in await pool.fetch(_AVAILABLE, list(skus))}
