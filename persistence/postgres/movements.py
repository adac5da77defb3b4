"""Movements of stock: each change of a total, by whom and why; and the change by so many units, which happens once per
key however often it is asked for.
"""

import datetime as dt
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

# A span and not `sku = $1`, which would leave the order to movement_id alone: for a SKU with many movements the server
# would walk all movements backwards then, and those of a SKU that has been quiet since lie far behind.
_PAGE = """
select movement_id, sku, delta, total, actor, reason, at from stock_movement
where (sku, movement_id) < ($1, coalesce($2, 9223372036854775807)) and sku >= $1
order by sku desc, movement_id desc limit $3
"""


class Movement(NamedTuple):
    """`sku` is the stock key; `total` what the movement has made it."""

    movement_id: int
    sku: str
    delta: int
    total: int
    actor: str
    reason: str | None
    at: dt.datetime


class Key(NamedTuple):
    """What stands for the idempotency key, and for the request under it; 16 bytes each."""

    key_hash: bytes
    fingerprint: bytes


async def adjust(
    pool: asyncpg.Pool, key: Key, sku: str, delta: int, actor: str, reason: str, if_version: int | None
) -> tuple[str, Movement | None]:
    """Change a SKU's total by `delta` units, not 0. Returns (outcome, movement): `adjusted`, or `replayed` when the key
    has been answered before; or without a movement, and nothing was changed: `key_reused`, `not_found`,
    `version_mismatch`, `out_of_range`, `below_held`.
    """
    assert delta, "an adjustment moves units"
    row = await pool.fetchrow(
        "select * from stock_adjust($1, $2, $3, $4, $5, $6, $7)",
        UUID(key.key_hash),
        UUID(key.fingerprint),
        sku,
        delta,
        actor,
        reason,
        if_version,
    )
    outcome, *movement = row
    return outcome, None if movement[0] is None else Movement(*movement)


async def page(pool: asyncpg.Pool, sku: str, before: int | None, limit: int) -> list[Movement] | None:
    """Up to `limit` movements of a SKU, newest first, those before the movement `before`; None when the SKU has no
    stock.
    """
    rows = await pool.fetch(_PAGE, sku, before, limit)
    if not rows and not await pool.fetchval("select exists (select from stock_sku where sku = $1)", sku):
        return None
    return [Movement(*row) for row in rows]
