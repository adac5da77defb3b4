"""Removes what has served its purpose: keys and outcomes of batches beyond their retention, leases closed long ago,
owners that are gone, tokens that nobody can use, bells that have rung. In pieces, so that no lock is held for long.

Orders and their history are not touched here.
"""

import asyncpg

from persistence.postgres import partitions
from persistence.postgres.partitions import DAY_MS, floor_of, time_of

PIECE = 10_000  # rows of one statement
TOKEN_DAYS = 90  # a token that was revoked or has expired is shown for so long
CONSUMED_DAYS = 30  # at least: ids of events that consumers have seen; each may forget its own earlier
OUTBOX_OLD_S = 600.0  # the relay sends what is older than seconds
LEASE_KEPT_MS = 3_600_000  # a closed lease answers a take that is asked again; nobody asks after an hour

_KEYS = (
    "delete from idempotency_key where key_hash in (select key_hash from idempotency_key where order_id < $1 limit $2)"
)
_ALIASES = "delete from order_alias where order_id in (select order_id from order_alias where order_id < $1 limit $2)"
_MOVEMENT_KEYS = """
update stock_movement set key_hash = null, fingerprint = null where movement_id in (
    select movement_id from stock_movement
    where key_hash is not null and at < clock_timestamp() - make_interval(days => $1) limit $2)
"""
_LEASES = """
delete from stock_lease where lease_id in (
    select lease_id from stock_lease where state = 'closed' and lease_id < $1 limit $2)
"""
_WORKERS = """
delete from worker w where state <> 'alive' and seen_at < clock_timestamp() - interval '1 day'
and not exists (select from stock_lease l where l.owner = w.owner and l.state = 'active')
"""
_TOKENS = """
delete from api_token where token_hash in (
    select token_hash from api_token
    where least(revoked_at, expires_at) < clock_timestamp() - make_interval(days => $1) limit $2)
"""
_CONSUMED = """
delete from consumer_event where ctid = any(array(
    select ctid from consumer_event where seen_at < clock_timestamp() - make_interval(days => $1)
    limit $2 for update skip locked))
"""
_OLD = """
select count(*) as batches, coalesce(extract(epoch from clock_timestamp() - min(created_at)), 0)::float as age
from outbox where created_at < clock_timestamp() - make_interval(secs => $1)
"""
# A bell is heard within a second, or of no use.
_BELLS = "delete from stock_wanted where at < clock_timestamp() - interval '1 minute'"


async def clean(connection: asyncpg.Connection, key_days: int, consumed_days: int = CONSUMED_DAYS) -> dict[str, int]:
    """Remove what is old. An id that a consumer has seen has to be kept for longer than the stream keeps the event.
    Returns the rows removed, by kind.
    """
    now_ms = await _now_ms(connection)
    return {
        "keys": await _in_pieces(connection, _KEYS, floor_of(now_ms - key_days * DAY_MS)),
        "aliases": await _in_pieces(connection, _ALIASES, floor_of(now_ms - key_days * DAY_MS)),
        "movement_keys": await _in_pieces(connection, _MOVEMENT_KEYS, key_days),
        "leases": await _in_pieces(connection, _LEASES, floor_of(now_ms - LEASE_KEPT_MS)),
        "workers": _count(await connection.execute(_WORKERS)),
        "tokens": await _in_pieces(connection, _TOKENS, TOKEN_DAYS),
        "consumed_events": await _in_pieces(connection, _CONSUMED, consumed_days),
        "bells": _count(await connection.execute(_BELLS)),
    }


async def drop_batches(connection: asyncpg.Connection, batch_days: int) -> list[str]:
    """Drop whole partitions of outcomes of batches that are older, but none that the outbox still names. Returns their
    names.
    """
    before_ms = await _now_ms(connection) - batch_days * DAY_MS
    oldest = await connection.fetchval("select batch_id from outbox order by batch_id limit 1")
    if oldest is not None:
        before_ms = min(before_ms, time_of(str(oldest)))
    return await partitions.drop_before(connection, "batch", before_ms)


async def old_in_outbox(connection: asyncpg.Connection) -> tuple[int, float]:
    """Batches that have waited for the stream for longer than OUTBOX_OLD_S, and the age of the oldest in seconds."""
    row = await connection.fetchrow(_OLD, OUTBOX_OLD_S)
    return row["batches"], row["age"]


async def _now_ms(connection: asyncpg.Connection) -> int:
    return int((await connection.fetchval("select clock_timestamp()")).timestamp() * 1000)


async def _in_pieces(connection: asyncpg.Connection, statement: str, bound: str | int) -> int:
    total = 0
    while removed := _count(await connection.execute(statement, bound, PIECE)):
        total += removed
    return total


def _count(tag: str) -> int:
    """The rows of a command tag like `DELETE 3`."""
    return int(tag.rpartition(" ")[2])
