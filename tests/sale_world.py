"""Sales in a world of whole workers: made in the ledger by its own clock, and bought by buyers of their own."""

import datetime as dt
from typing import Any

import msgspec

from gateway.edge.answers import Answer
from persistence.postgres import sales
from tests.worker_world import SKU, Shop, World, eventually, order

SALE = "double-11"
KEY = f"{SALE}\x1f{SKU}"
PRICE = 99


async def put_sale(
    world: World,
    units: int,
    opens_in_s: float = -1,
    open_for_s: float = 3600,
    limit: int | None = None,
    payment_timeout_s: int | None = None,
) -> tuple[dt.datetime, dt.datetime]:
    """Put a sale of SKU; its times count from now by PostgreSQL's clock. Gives its start and its end."""
    now: dt.datetime = await world.value("select date_trunc('milliseconds', clock_timestamp())")
    starts_at = now + dt.timedelta(seconds=opens_in_s)
    terms = sales.Terms("Double 11", starts_at, starts_at + dt.timedelta(seconds=open_for_s), payment_timeout_s)
    found = await sales.put(world.pool, SALE, terms, [sales.Item(SKU, PRICE, units, limit, 4)], "test")
    assert not isinstance(found, dict), found
    return terms.starts_at, terms.ends_at


async def followed(world: World, *shops: Shop) -> None:
    """Wait until every worker knows the sale as the ledger has it."""
    version = await world.value("select version from sale where sale_id = $1", SALE)

    async def is_known() -> bool:
        known = [shop.services.sales.find(SALE) for shop in shops]
        return all(sale is not None and sale.version == version for sale in known)

    await eventually("every worker knows the sale", is_known)


def of_sale(quantity: int = 1, **changes: Any) -> bytes:
    return order(quantity=quantity, sale_id=SALE, **changes)


def problem_of(answer: Answer) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(answer.body)
    return document
