"""Sales in the ledger. Every write raises the topic `sales` in the same transaction, so a reader that polls
`changes_since` misses none. The units of an item are the total of a stock of its own, under the sale's key.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg

from persistence.postgres.revisions import RAISE
from persistence.postgres.session import Session

TOPIC = "sales"

_SELECT = """
select s.sale_id, s.title, s.starts_at, s.ends_at, s.payment_timeout_s, s.version, s.revision, i.*
from sale s cross join lateral (
    select array_agg(i.sku order by i.sku) as skus, array_agg(i.price order by i.sku) as prices,
        array_agg(i.currency order by i.sku) as currencies, array_agg(i.limit_units order by i.sku) as limits,
        array_agg(k.total order by i.sku) as units
    from sale_item i join stock_sku k on k.sku = stock_key(i.sale_id, i.sku) where i.sale_id = s.sale_id) i
"""
_PUT = "select outcome, sku from sale_put($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
# Read once per statement, so that the check that a sale ends after its start sees one instant.
_NOW = "(select date_trunc('milliseconds', clock_timestamp()) as at) now"
_CHANGED = "version = s.version + 1, revision = $2, updated_at = clock_timestamp()"
_OPEN = f"""
update sale s set starts_at = now.at, {_CHANGED} from {_NOW}
where s.sale_id = $1 and s.starts_at > now.at and s.ends_at > now.at
"""
_CLOSE = f"""
update sale s set starts_at = least(s.starts_at, now.at), ends_at = now.at, {_CHANGED} from {_NOW}
where s.sale_id = $1 and s.ends_at > now.at
"""
_REFUSED = """
insert into sale_refusal (sale_id, code, count) select * from unnest($1::text[], $2::text[], $3::bigint[]) t(s, c, n)
on conflict (sale_id, code) do update set count = sale_refusal.count + excluded.count
"""
_REPORT = """
with placed as materialized (
    select o.created_at, o.customer_id, o.status in ('cancelled', 'expired', 'refunded') as returned, l.units
    from orders o join (
        select l.order_id, sum(l.quantity)::bigint as units
        from order_lines l join orders o using (order_id) where o.sale_id = $1 group by l.order_id) l using (order_id)
    where o.sale_id = $1),
second as (select sum(units)::bigint as units from placed group by date_trunc('second', created_at)),
stock as (
    select coalesce(sum(k.total), 0)::bigint as total, coalesce(sum(k.total + k.owed), 0)::bigint as sellable
    from sale_item i join stock_sku k on k.sku = stock_key(i.sale_id, i.sku) where i.sale_id = $1)
select count(*) as orders, coalesce(sum(units), 0)::bigint as units,
    coalesce(sum(units) filter (where returned), 0)::bigint as returned_units,
    count(distinct customer_id) as buyers, min(created_at) as first_unit_at, max(created_at) as last_unit_at,
    (select coalesce(max(units), 0) from second) as peak_units_per_second,
    (select total from stock) as total_units,
    ((select sellable from stock) - coalesce(sum(units) filter (where not returned), 0))::bigint as unsold_units
from placed
"""


class Item(NamedTuple):
    """`price` in minor units of the product's currency; `shards` for a stock that does not exist yet."""

    sku: str
    price: int
    units: int
    limit: int | None
    shards: int


class Terms(NamedTuple):
    """What a sale is beside its items: open in [starts_at, ends_at), in whole milliseconds."""

    title: str
    starts_at: dt.datetime
    ends_at: dt.datetime
    payment_timeout_s: int | None


# Why nothing was changed: version_mismatch; or unknown_sku, not_stocked, below_held, each with the SKUs at fault.
Refused = dict[str, list[str]]


async def changes_since(connection: asyncpg.Connection, revision: int) -> tuple[int, list[asyncpg.Record]]:
    """The topic's present value, and the sales changed after `revision`, each with arrays of its items."""
    value = await connection.fetchval("select value from revision where topic = $1", TOPIC)
    if value == revision:
        return revision, []
    rows = await connection.fetch(f"{_SELECT} where s.revision > $1", revision)
    return max([value, *(row["revision"] for row in rows)]), rows


async def put(
    pool: asyncpg.Pool, sale_id: str, terms: Terms, items: Sequence[Item], actor: str, if_version: int | None = None
) -> asyncpg.Record | Refused:
    """Create or replace a sale with its items and their units, all or nothing; a SKU stands there once. Gives the sale
    as it stands, or why nothing was changed. `if_version` 0: there must be no such sale yet.
    """
    skus, prices, units, limits, shards = (list(column) for column in zip(*items, strict=True))
    async with pool.acquire() as connection, connection.transaction():
        rows = await connection.fetch(_PUT, sale_id, *terms, skus, prices, units, limits, shards, actor, if_version)
        if [row["outcome"] for row in rows] == ["put"]:
            return await connection.fetchrow(f"{_SELECT} where s.sale_id = $1", sale_id)
    refused: Refused = {}
    for row in rows:
        refused.setdefault(row["outcome"], []).append(row["sku"])
    return refused


async def get(pool: asyncpg.Pool, sale_id: str) -> asyncpg.Record | None:
    return await pool.fetchrow(f"{_SELECT} where s.sale_id = $1", sale_id)


async def page(pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
    """Sales in the order of their ids, those after `after`."""
    return list(await pool.fetch(f"{_SELECT} where s.sale_id > $1 order by s.sale_id limit $2", after, limit))


async def open_now(pool: asyncpg.Pool, sale_id: str, if_version: int | None = None) -> asyncpg.Record | Refused | None:
    """Let a sale that has not opened start at this instant. One that is open, or over, stays as it is. Gives the sale
    as it stands, None when there is none; or version_mismatch, and nothing was changed.
    """
    return await _at_once(pool, _OPEN, sale_id, if_version)


async def close_now(pool: asyncpg.Pool, sale_id: str, if_version: int | None = None) -> asyncpg.Record | Refused | None:
    """Let a sale end at this instant; one that has not opened never will. Answers as `open_now` does."""
    return await _at_once(pool, _CLOSE, sale_id, if_version)


async def add_refusals(session: Session, counts: Mapping[tuple[str, str], int]) -> None:
    """Add to the counts of refusals, by (sale, code). Not idempotent: what was not answered may have been added."""
    rows = sorted((sale_id, code, count) for (sale_id, code), count in counts.items())
    columns = [list(column) for column in zip(*rows, strict=True)]
    await session.run(lambda c: c.execute(_REFUSED, *columns))


async def report(pool: asyncpg.Pool, sale_id: str) -> tuple[asyncpg.Record, dict[str, int]]:
    """What a sale has sold (orders, units, returned_units, buyers, first_unit_at, last_unit_at, peak_units_per_second,
    total_units, unsold_units), and its refusals by code. Units that came back from cancelled orders count as sold once
    and are unsold again.
    """
    sold = await pool.fetchrow(_REPORT, sale_id)
    refused = await pool.fetch("select code, count from sale_refusal where sale_id = $1 order by code", sale_id)
    return sold, {row["code"]: row["count"] for row in refused}


async def _at_once(
    pool: asyncpg.Pool, statement: str, sale_id: str, if_version: int | None
) -> asyncpg.Record | Refused | None:
    async with pool.acquire() as connection, connection.transaction():
        # Who has raised the topic is the only writer of sales until the end of the transaction.
        revision = await connection.fetchval(RAISE, TOPIC)
        version = await connection.fetchval("select version from sale where sale_id = $1", sale_id)
        if version is not None and if_version not in (None, version):
            return {"version_mismatch": [sale_id]}
        await connection.execute(statement, sale_id, revision)
        return await connection.fetchrow(f"{_SELECT} where s.sale_id = $1", sale_id)
