"""Which changes of orders there have been, page by page: what events are encoded from again. Reads only, in the order
of the ids, so that no page costs more than the one before, however large the history is.
"""

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres.orders import to_ms

_AFTER = """
select order_id, version, event, at from order_history
where order_id >= $1 and (order_id, version) > ($1, $2) order by order_id, version limit $3
"""
_OF = "select order_id, version, event, at from order_history where order_id = any($1) order by order_id, version"
_SPAN = """
select (select order_id from order_history order by order_id limit 1) as first,
    (select order_id from order_history order by order_id desc limit 1) as last
"""


class Told(NamedTuple):
    """Version `version` of an order, decided at `at_ms`."""

    order_id: bytes
    version: int
    event: str
    at_ms: int


async def after(connection: asyncpg.Connection, order_id: bytes, version: int, limit: int) -> list[Told]:
    """Up to `limit` changes, those after this one."""
    return [_told(row) for row in await connection.fetch(_AFTER, UUID(order_id), version, limit)]


async def of(connection: asyncpg.Connection, order_ids: Sequence[bytes]) -> list[Told]:
    """Every change of these orders."""
    return [_told(row) for row in await connection.fetch(_OF, [UUID(order_id) for order_id in order_ids])]


async def span(connection: asyncpg.Connection) -> tuple[bytes, bytes] | None:
    """The first and the last order that there is history of."""
    row = await connection.fetchrow(_SPAN)
    return None if row["first"] is None else (row["first"].bytes, row["last"].bytes)


def _told(row: asyncpg.Record) -> Told:
    return Told(row["order_id"].bytes, row["version"], row["event"], to_ms(row["at"]) or 0)
