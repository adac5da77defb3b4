"""Reads of orders. They go to the primary: an order's owner expects to see what was acknowledged a moment ago.

What comes back are the tables' own rows; what an order looks like outside is not decided here.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any, NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

ORDER = (
    "order_id, client_id, channel, currency, customer_id, external_id, sale_id, status, version, total, "
    "metadata, adjustments, placed_at, paid_reference, paid_at, personal, created_at, expires_at"
)
LINE = "order_id, line, sku, title, quantity, unit_price, amount, stocked, limited"
HISTORY = "order_id, version, at, event, status, previous_status, actor, reason, changed, traceparent"

# Filter -> condition. Each takes its value as one parameter; nothing of a request is ever part of the text.
_CONDITIONS = {
    "client_id": "o.client_id = {}",
    "status": "o.status = {}",
    "channel": "o.channel = {}",
    "customer_id": "o.customer_id = {}",
    "external_id": "o.external_id = {}",
    "sale_id": "o.sale_id = {}",
    "sku": "exists (select from order_lines l where l.order_id = o.order_id and l.sku = {})",
    "key_hash": "o.order_id = (select k.order_id from idempotency_key k where k.key_hash = {})",
    "from_id": "o.order_id >= {}",
    "to_id": "o.order_id < {}",
    "before_id": "o.order_id < {}",
}
_KEYS = """
select k.key_hash, k.order_id, k.fingerprint from idempotency_key k where k.key_hash = any($1)
"""
# What a connection that only asks for keys runs under: it plans once, be it on an empty table, and walks the primary
# key for ever after.
KEYS_SESSION = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off"}
# The bounds let the index by age (BRIN) find the few pages that hold them.
_KEYS_OF = """
select k.order_id, k.key_hash, k.fingerprint from idempotency_key k
where k.order_id between $2 and $3 and k.order_id = any($1)
"""


class StoredOrder(NamedTuple):
    """An order's rows. `key` is (master_version, wrapped), None without personal data or after erasure; `history` in
    order of versions, possibly not all.
    """

    order: asyncpg.Record
    lines: list[asyncpg.Record]
    key: asyncpg.Record | None
    history: list[asyncpg.Record]


class StoredKey(NamedTuple):
    order_id: bytes
    fingerprint: bytes


async def fetch(
    connection: asyncpg.Connection | asyncpg.Pool,
    order_ids: Sequence[bytes],
    *,
    history: bool = False,
    personal: bool = True,
) -> dict[bytes, StoredOrder]:
    """The orders among `order_ids` that exist, by id; with their history only when asked for, and with what opens their
    personal data unless told otherwise.
    """
    ids = [UUID(order_id) for order_id in order_ids]
    orders = await connection.fetch(f"select {ORDER} from orders where order_id = any($1)", ids)
    return await _complete(connection, orders, history=history, personal=personal)


async def fetch_page(
    connection: asyncpg.Connection | asyncpg.Pool, filters: dict[str, Any], limit: int
) -> list[StoredOrder]:
    """Up to `limit` orders, newest first. `filters` has keys of _CONDITIONS; ids and hashes are 16 bytes."""
    values = [UUID(value) if isinstance(value, bytes) else value for value in filters.values()]
    conditions = [_CONDITIONS[name].format(f"${at}") for at, name in enumerate(filters, 1)] or ["true"]
    text = f"select {ORDER} from orders o where {' and '.join(conditions)} order by order_id desc limit {int(limit)}"
    found = await _complete(connection, await connection.fetch(text, *values), history=False, personal=True)
    return sorted(found.values(), key=lambda stored: bytes(stored.order["order_id"].bytes), reverse=True)


async def fetch_keys(connection: asyncpg.Connection, key_hashes: Sequence[bytes]) -> dict[bytes, StoredKey]:
    """What the keys belong to, for those that are known."""
    rows = await connection.fetch(_KEYS, [UUID(key_hash) for key_hash in key_hashes])
    return {row["key_hash"].bytes: StoredKey(row["order_id"].bytes, row["fingerprint"].bytes) for row in rows}


async def keys_of(
    connection: asyncpg.Connection | asyncpg.Pool, order_ids: Sequence[bytes]
) -> dict[bytes, tuple[bytes, bytes]]:
    """The hash and the fingerprint of each order's key, for those that are not forgotten."""
    if not order_ids:
        return {}
    ids = [UUID(order_id) for order_id in order_ids]
    rows = await connection.fetch(_KEYS_OF, ids, min(ids), max(ids))
    return {row["order_id"].bytes: (row["key_hash"].bytes, row["fingerprint"].bytes) for row in rows}


async def _complete(
    connection: asyncpg.Connection | asyncpg.Pool, orders: list[asyncpg.Record], *, history: bool, personal: bool
) -> dict[bytes, StoredOrder]:
    found = {row["order_id"].bytes: StoredOrder(row, [], None, []) for row in orders}
    if not found:
        return {}
    ids = [row["order_id"] for row in orders]
    for line in await connection.fetch(
        f"select {LINE} from order_lines where order_id = any($1) order by order_id, line", ids
    ):
        found[line["order_id"].bytes].lines.append(line)
    sealed = [row["order_id"] for row in orders if personal and row["personal"] is not None]
    if sealed:
        for key in await connection.fetch(
            "select order_id, master_version, wrapped from order_key where order_id = any($1)", sealed
        ):
            order_id = key["order_id"].bytes
            found[order_id] = found[order_id]._replace(key=key)
    if history:
        text = f"select {HISTORY} from order_history where order_id = any($1) order by order_id, version"
        for change in await connection.fetch(text, ids):
            found[change["order_id"].bytes].history.append(change)
    return found


def to_ms(at: dt.datetime | None) -> int | None:
    """Milliseconds since 1970 of a stored time, exact."""
    if at is None:
        return None
    return (at - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(milliseconds=1)
