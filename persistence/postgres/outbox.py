"""The outbox: which committed changes the stream has not acknowledged yet. Rows are found by age and taken with SKIP
LOCKED, never by a cursor over a sequence, which would skip rows that commit late.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

FORMATS = [1]  # of rows that this release can read; those of a newer one are left to it
_CLAIM = """
select batch_id, order_ids, versions from outbox
where created_at < clock_timestamp() - make_interval(secs => $1) and format = any($3)
order by batch_id limit $2 for update skip locked
"""
_REMOVE = """
delete from outbox where batch_id = any(array(
    select batch_id from outbox where batch_id = any($1) for update skip locked
))
"""


class Pending(NamedTuple):
    """The changes of one batch: (order id, version) each."""

    batch_id: bytes
    changes: list[tuple[bytes, int]]


async def remove(connection: asyncpg.Connection | asyncpg.Pool, batch_ids: Sequence[bytes]) -> None:
    """The stream has acknowledged every event of these batches. What a relay holds is left to it: to wait for it would
    hold up the events of later commits, until they are old enough for a relay, too.
    """
    await connection.execute(_REMOVE, [UUID(batch_id) for batch_id in batch_ids])


@asynccontextmanager
async def claim(connection: asyncpg.Connection, age_s: float, limit: int) -> AsyncIterator[list[Pending]]:
    """Rows older than `age_s`, held against other relays until the block ends. What the block does not `remove` is
    found again.
    """
    async with connection.transaction():
        rows = await connection.fetch(_CLAIM, age_s, limit, FORMATS)
        yield [
            Pending(
                row["batch_id"].bytes, [(o.bytes, v) for o, v in zip(row["order_ids"], row["versions"], strict=True)]
            )
            for row in rows
        ]


async def unknown(connection: asyncpg.Connection) -> int:
    """Batches in a format that this release does not know."""
    return int(await connection.fetchval("select count(*) from outbox where format <> all($1)", FORMATS))


async def backlog(pool: asyncpg.Pool) -> tuple[int, float]:
    """Batches that wait, and the age of the oldest in seconds."""
    row = await pool.fetchrow(
        "select count(*) as batches, "
        "coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float as age from outbox"
    )
    return row["batches"], row["age"]
