"""Changes of products: those that wait for the stream, and those that have been told (sql/0009_product_events.sql).

The ledger itself writes a change, in the transaction of the product; here it is only handed out and put away.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

import asyncpg

from persistence.postgres.orders import to_ms

COLUMNS = "sku, version, title, price, currency, stocked, active, limit_units, changed, at"
_CLAIM = f"select {COLUMNS} from product_event order by sku, version limit $1 for update skip locked"
_PUT_AWAY = f"""
with told as (
    delete from product_event e using unnest($1::text[], $2::integer[]) t(sku, version)
    where e.sku = t.sku and e.version = t.version and e.sku = any($1)
    returning e.*)
insert into product_history ({COLUMNS}) select {COLUMNS} from told on conflict do nothing
"""
_TOLD = f"""
select {COLUMNS} from product_history where (sku, version) > ($1, $2) order by sku, version limit $3
"""


class ProductChange(NamedTuple):
    """Version `version` of a product, decided at `at_ms`; `limit` None: it has none of its own. `changed` names the
    fields that differ from the version before.
    """

    sku: str
    version: int
    title: str
    price: int
    currency: str
    stocked: bool
    active: bool
    limit: int | None
    changed: list[str]
    at_ms: int


@asynccontextmanager
async def claim(connection: asyncpg.Connection, limit: int) -> AsyncIterator[list[ProductChange]]:
    """Changes that the stream has not acknowledged, held against other stewards until the block ends. What the block
    does not `put_away` is found again.
    """
    async with connection.transaction():
        yield [_change(row) for row in await connection.fetch(_CLAIM, limit)]


async def put_away(connection: asyncpg.Connection, changes: Sequence[ProductChange]) -> None:
    """The stream has acknowledged these: they become history."""
    await connection.execute(_PUT_AWAY, [change.sku for change in changes], [change.version for change in changes])


async def told_after(
    connection: asyncpg.Connection | asyncpg.Pool, sku: str, version: int, limit: int
) -> list[ProductChange]:
    """Up to `limit` changes that have been told, in order of SKU and version, those after this one."""
    return [_change(row) for row in await connection.fetch(_TOLD, sku, version, limit)]


def _change(row: asyncpg.Record) -> ProductChange:
    sku, version, title, price, currency, stocked, active, limit, changed, at = row
    return ProductChange(sku, version, title, price, currency, stocked, active, limit, changed, to_ms(at) or 0)
