"""Products in the ledger. Every write raises the topic `catalogue` in the same transaction, so a reader that polls
`changes_since` misses none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from persistence.postgres.revisions import RAISE

TOPIC = "catalogue"
COLUMNS = 'sku, title, price, currency, stocked, active, version, limit_units as "limit"'

_PUT = f"""
insert into product (sku, title, price, currency, stocked, active, limit_units, version, revision)
select sku, title, price, currency, stocked, active, limit_units, 1, $8
    from unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::bool[], $6::bool[], $7::bigint[])
    p(sku, title, price, currency, stocked, active, limit_units) order by sku
on conflict (sku) do update set title = excluded.title, price = excluded.price, currency = excluded.currency,
    stocked = excluded.stocked, active = excluded.active, limit_units = excluded.limit_units,
    version = product.version + 1, revision = excluded.revision, updated_at = clock_timestamp()
returning {COLUMNS}
"""


class ProductRow(NamedTuple):
    """`price` in minor units of `currency`; `limit` in units that one customer may hold in live orders."""

    sku: str
    title: str
    price: int
    currency: str
    stocked: bool
    active: bool
    limit: int | None = None


async def changes_since(connection: asyncpg.Connection, revision: int) -> tuple[int, list[asyncpg.Record]]:
    """The topic's present value, and the products changed after `revision`."""
    value = await connection.fetchval("select value from revision where topic = $1", TOPIC)
    if value == revision:
        return revision, []
    rows = await connection.fetch(f"select {COLUMNS}, revision from product where revision > $1", revision)
    return max([value, *(row["revision"] for row in rows)]), rows


async def put(
    pool: asyncpg.Pool, products: Sequence[ProductRow], if_version: int | None = None
) -> list[asyncpg.Record] | None:
    """Create or replace products, all or none. None when `if_version` is given and the (single) product has another
    version; 0: there must be no such product yet.
    """
    columns = [list(column) for column in zip(*products, strict=True)]
    async with pool.acquire() as connection, connection.transaction():
        revision = await connection.fetchval(RAISE, TOPIC)
        if if_version is not None:
            version = await connection.fetchval("select version from product where sku = $1", products[0].sku)
            if if_version != (version or 0):
                return None
        return list(await connection.fetch(_PUT, *columns, revision))


async def get(pool: asyncpg.Pool, sku: str) -> asyncpg.Record | None:
    return await pool.fetchrow(f"select {COLUMNS} from product where sku = $1", sku)


async def page(pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
    """Products in SKU order, those after `after`."""
    return list(await pool.fetch(f"select {COLUMNS} from product where sku > $1 order by sku limit $2", after, limit))
