"""Goods by the thousand, put into the ledger by the statements that the routes of the edge use: over HTTP a hundred
thousand products take minutes.

Nothing that exists is changed. The gateway learns of them as of any other change, and is waited for.
"""

from collections.abc import Iterator, Sequence

import asyncpg
import uvloop

from bench import workload
from bench.system import System
from gateway.cli.edge import Edge
from gateway.cli.preparing import accepted, at_once
from persistence.postgres import catalogue
from persistence.postgres.catalogue import ProductRow
from persistence.postgres.connect import open_pool

CHUNK = 1000
LINES = 100  # of an order that touches SKUs
STOCK = """
select count(*) from unnest($1::text[]) t(sku), stock_set(t.sku, $2, $3, 'bench', null, 0) s where s.outcome = 'set'
"""
TIMEOUT_S = 60.0


def load(system: System, skus: Sequence[str], shards: int) -> None:
    """Products with plenty of units each, over so many shards, known to every worker when this returns."""
    uvloop.run(_load(system.postgres_url, skus, shards))
    system.ensure_goods([workload.goods(skus[-1])])


async def _load(url: str, skus: Sequence[str], shards: int) -> None:
    pool = await open_pool(url, "fg-bench", 1, TIMEOUT_S)
    try:
        for chunk in chunks(skus):
            await catalogue.put(pool, [_product(sku) for sku in chunk], if_version=None)
            await _put_stock(pool, chunk, shards)
    finally:
        await pool.close()


async def _put_stock(pool: asyncpg.Pool, skus: Sequence[str], shards: int) -> None:
    made = await pool.fetchval(STOCK, skus, workload.UNITS, shards)
    assert made == len(skus), f"stock of {made} of {len(skus)} SKUs was made"


def touch(system: System, skus: Sequence[str]) -> None:
    """Have every SKU ordered once, so that the worker has units of each in hand."""
    uvloop.run(_touch(system, [skus[start : start + LINES] for start in range(0, len(skus), LINES)]))


async def _touch(system: System, orders: Sequence[Sequence[str]]) -> None:
    async with Edge(system.url, system.token) as edge:
        async for _ in at_once(orders, lambda skus: _order(edge, skus)):
            pass


async def _order(edge: Edge, skus: Sequence[str]) -> None:
    """One order of a unit of each; asked again while the units are on their way."""
    order = workload.order() | {"items": [{"sku": sku, "quantity": 1} for sku in skus]}
    accepted(await edge.ask("POST", "/v1/orders", order, {"Idempotency-Key": f"touch-{skus[0]}"}), skus[0])


def chunks(skus: Sequence[str]) -> Iterator[Sequence[str]]:
    return (skus[start : start + CHUNK] for start in range(0, len(skus), CHUNK))


def _product(sku: str) -> ProductRow:
    return ProductRow(sku, "Flash", workload.PRICE, workload.CURRENCY, stocked=True, active=True)
