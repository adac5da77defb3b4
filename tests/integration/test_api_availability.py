"""Availability over HTTP, with a whole worker: what a storefront sees of stock, sales and products without stock."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.api import App, call, running_worker


@pytest.fixture
async def app(postgres_url: str, nats_url: str) -> AsyncIterator[App]:
    async with running_worker(postgres_url, nats_url) as (running, _):
        for sku in ("PLENTY", "LOW", "NONE", "BARE"):
            await call(running, "PUT", f"/v1/products/{sku}", b'{"title":"t","price":1,"currency":"CNY"}')
        service = b'{"title":"t","price":1,"currency":"CNY","stocked":false}'
        await call(running, "PUT", "/v1/products/SERVICE", service)
        for sku, units in (("PLENTY", 11), ("LOW", 10), ("NONE", 0)):
            await call(running, "PUT", f"/v1/stock/{sku}", msgspec.json.encode({"total": units}))
        await put_sale(running)
        yield running


async def put_sale(app: App, starts_at: str = "2001-11-11T00:00:00Z", ends_at: str = "3000-01-01T00:00:00Z") -> None:
    items = [{"sku": "NONE", "price": 1, "units": 500}, {"sku": "LOW", "price": 1, "units": 0}]
    sale = {"title": "t", "starts_at": starts_at, "ends_at": ends_at, "items": items}
    assert (await call(app, "PUT", "/v1/sales/double-11", msgspec.json.encode(sale))).status < 300


async def levels(app: App, *skus: str, sale_id: str | None = None) -> dict[str, Any]:
    query = "&".join([*(f"sku={sku}" for sku in skus), *([f"sale_id={sale_id}"] if sale_id else [])])
    reply = await call(app, "GET", f"/v1/availability?{query}")
    assert reply.status == 200, reply.body
    return {item["sku"]: item["availability"] for item in reply.json["items"]}


async def test_availability_of_each_kind_is_told(app: App) -> None:
    assert await levels(app, "PLENTY", "LOW", "NONE", "BARE", "SERVICE", "nothing") == {
        "PLENTY": "in_stock",
        "LOW": "low",
        "NONE": "sold_out",
        "BARE": "sold_out",
        "SERVICE": "in_stock",
        "nothing": "unknown",
    }


async def test_availability_comes_in_the_order_asked_for_and_is_not_stored(app: App) -> None:
    reply = await call(app, "GET", "/v1/availability?sku=NONE&sku=LOW&sku=NONE")
    assert reply.json == {"items": [{"sku": "NONE", "availability": "sold_out"}, {"sku": "LOW", "availability": "low"}]}
    assert reply.header("cache-control") == "no-store"


async def test_availability_in_a_sale_is_that_of_the_sales_own_units(app: App) -> None:
    assert await levels(app, "NONE", "LOW", "PLENTY", "SERVICE", sale_id="double-11") == {
        "NONE": "in_stock",
        "LOW": "sold_out",
        "PLENTY": "unknown",
        "SERVICE": "unknown",
    }


async def test_availability_in_a_sale_that_there_is_not_is_unknown(app: App) -> None:
    assert await levels(app, "NONE", sale_id="other") == {"NONE": "unknown"}


@pytest.mark.parametrize(
    ("starts_at", "ends_at", "expected"),
    [
        ("2999-01-01T00:00:00Z", "3000-01-01T00:00:00Z", "in_stock"),
        ("2001-01-01T00:00:00Z", "2002-01-01T00:00:00Z", "unknown"),
    ],
    ids=["before", "after"],
)
async def test_availability_in_a_sale_is_told_before_its_start_and_not_after_its_end(
    app: App, starts_at: str, ends_at: str, expected: str
) -> None:
    await put_sale(app, starts_at, ends_at)
    assert await levels(app, "NONE", sale_id="double-11") == {"NONE": expected}


@pytest.mark.parametrize("sku", ["PLENTY", "NONE", "SERVICE"])
async def test_availability_of_an_inactive_product_is_unknown(app: App, sku: str) -> None:
    await call(app, "PATCH", f"/v1/products/{sku}", b'{"active":false}')
    assert await levels(app, sku) == {sku: "unknown"}
    assert await levels(app, sku, sale_id="double-11") == {sku: "unknown"}


async def test_availability_follows_what_is_sold(app: App) -> None:
    assert await levels(app, "LOW") == {"LOW": "low"}
    order = {"channel": "app", "currency": "CNY", "items": [{"sku": "LOW", "quantity": 10}]}
    placed = await call(app, "POST", "/v1/orders", msgspec.json.encode(order), {"idempotency-key": "k-1"})
    assert placed.status == 201
    async with asyncio.timeout(10):
        while await levels(app, "LOW") != {"LOW": "sold_out"}:
            await asyncio.sleep(0.01)


async def test_availability_of_a_sku_that_needs_encoding_is_told(app: App) -> None:
    assert await levels(app, "%E8%8C%B6%2F1") == {"茶/1": "unknown"}


@pytest.mark.parametrize(
    "query",
    [
        "",
        "sku=",
        "sku=A%00",
        "sku=A&sku=" + "x" * 65,
        "sku=A&limit=1",
        "sku=A&sale_id=a&sale_id=b",
        "sku=A&sale_id=Not+One",
        "sku=%FF",
        "&".join(f"sku={number}" for number in range(101)),
        "&".join(f"sku={number}" for number in range(1000)),
    ],
)
async def test_availability_of_a_bad_query_is_refused(app: App, query: str) -> None:
    assert (await call(app, "GET", f"/v1/availability?{query}")).code == "bad_parameter"


async def test_availability_of_a_hundred_is_told(app: App) -> None:
    assert len(await levels(app, *(f"S-{number}" for number in range(100)))) == 100
