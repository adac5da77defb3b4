"""Removes what has served its purpose: keys beyond their retention, leases closed long ago, owners that are gone, bells
that have rung. In pieces, so that no lock is held for long.

Orders, history and batch outcomes are not touched here.
"""

import asyncpg

from persistence.postgres.partitions import DAY_MS, floor_of

PIECE = 10_000  # rows of one statement
LEASE_KEPT_MS = 3_600_000  # a closed lease answers a take that is asked again; nobody asks after an hour

_KEYS = (
    "delete from idempotency_key where key_hash in (select key_hash from idempotency_key where order_id < $1 limit $2)"
)
_LEASES = """
delete from stock_lease where lease_id in (
    select lease_id from stock_lease where state = 'closed' and lease_id < $1 limit $2)
"""
_WORKERS = """
delete from worker w where state <> 'alive' and seen_at < clock_timestamp() - interval '1 day'
and not exists (select from stock_lease l where l.owner = w.owner and l.state = 'active')
"""
# A bell is heard within a second, or of no use.
_BELLS = "delete from stock_wanted where at < clock_timestamp() - interval '1 minute'"


async def clean(connection: asyncpg.Connection, key_days: int) -> dict[str, int]:
    """Remove what is old. Returns the rows removed, by kind."""
    now_ms = int((await connection.fetchval("select clock_timestamp()")).timestamp() * 1000)
    return {
        "keys": await _in_pieces(connection, _KEYS, floor_of(now_ms - key_days * DAY_MS)),
        "leases": await _in_pieces(connection, _LEASES, floor_of(now_ms - LEASE_KEPT_MS)),
        "workers": _count(await connection.execute(_WORKERS)),
        "bells": _count(await connection.execute(_BELLS)),
    }


async def _in_pieces(connection: asyncpg.Connection, statement: str, bound: str) -> int:
    total = 0
    while removed := _count(await connection.execute(statement, bound, PIECE)):
        total += removed
    return total


def _count(tag: str) -> int:
    """The rows of a command tag like `DELETE 3`."""
    return int(tag.rpartition(" ")[2])
