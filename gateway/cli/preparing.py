"""Makes the products and the stock that a list of goods needs, through the edge, many at once.

`ensure_goods` is idempotent: a product that is as wanted and stock that exists are left alone, so a second run changes
nothing, and units that were sold since are not put back.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from gateway.channels.feed import Goods
from gateway.cli.edge import CONCURRENCY, Answer, EdgeError
from gateway.cli.sending import Asks

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


KNOWN = "`floodgate product list` and `floodgate sale list` show what there is, `floodgate stock set` makes stock"


class Prepared(NamedTuple):
    """What one of the goods needed: whether its product and its stock were written."""

    product: bool
    stock: bool


def product_path(sku: str) -> str:
    return f"/v1/products/{quote(sku, safe='')}"


def stock_path(sku: str) -> str:
    return f"/v1/stock/{quote(sku, safe='')}"


async def ensure_goods(edge: Asks, goods: Goods) -> Prepared:
    """Make what is missing or different. Raises EdgeError when the gateway refuses."""
    wanted = {
        "title": goods.title,
        "price": goods.price,
        "currency": goods.currency,
        "stocked": goods.units is not None,
    }
    found = await edge.ask("GET", product_path(goods.sku))
    changed = found.status == 404 or not _has(found, wanted)
    if changed:
        # PATCH keeps what the list of goods says nothing about: a product that was taken off sale stays so.
        method = "PUT" if found.status == 404 else "PATCH"
        accepted(await edge.ask(method, product_path(goods.sku), wanted), goods.sku)
    stocked = goods.units is not None and (await edge.ask("GET", stock_path(goods.sku))).status == 404
    if stocked:
        accepted(await edge.ask("PUT", stock_path(goods.sku), {"total": goods.units}), goods.sku)
    return Prepared(changed, stocked)


def accepted(answer: Answer, what: str) -> Any:
    """The document of an answer that has to be a success. Raises EdgeError."""
    if not answer.ok:
        raise EdgeError(f"{what}: {answer.complaint}" + (f". {KNOWN}" if answer.status == 404 else ""))
    return answer.document


async def at_once(jobs: Sequence[Job], work: Callable[[Job], Awaitable[Outcome]]) -> AsyncIterator[tuple[Job, Outcome]]:
    """Run `work` for every job, CONCURRENCY at a time; yields each with its outcome as it ends. An error ends all."""
    limit = asyncio.Semaphore(CONCURRENCY)

    async def one(job: Job) -> tuple[Job, Outcome]:
        async with limit:
            return job, await work(job)

    tasks = [asyncio.create_task(one(job)) for job in jobs]
    try:
        for ended in asyncio.as_completed(tasks):
            yield await ended
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _has(found: Answer, wanted: dict[str, Any]) -> bool:
    document = accepted(found, "the product")
    return isinstance(document, dict) and all(document.get(name) == value for name, value in wanted.items())
