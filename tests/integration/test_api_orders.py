"""Orders over HTTP, on a real ledger: what was acknowledged can be read at once, by id, by key and by every filter."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from tests.api import App, Reply, call, running_worker

ORDER: dict[str, Any] = {
    "channel": "app",
    "currency": "CNY",
    "customer_id": "u-1",
    "external_id": "乙-1",
    "items": [{"sku": "a/b", "quantity": 2}],
    "note": "请放门口",
    "ship_to": {"name": "王小明"},
    "metadata": {"k": "v"},
}


@pytest.fixture
async def app(postgres_url: str, nats_url: str) -> AsyncIterator[App]:
    async with running_worker(postgres_url, nats_url) as (running, _):
        product = b'{"title":"t","price":5,"currency":"CNY","stocked":false}'
        for sku in ("a%2Fb", "other"):
            await call(running, "PUT", f"/v1/products/{sku}", product)
        yield running


async def place(app: App, key: str, change: dict[str, Any] | None = None, token: str = "fg_all") -> Reply:
    body = msgspec.json.encode(ORDER | (change or {}))
    reply = await call(app, "POST", "/v1/orders", body, {"idempotency-key": key}, token=token)
    assert reply.status == 201, reply.body
    return reply


async def test_order_that_was_placed_is_at_its_location(app: App) -> None:
    placed = await place(app, "k-1")
    shown = await call(app, "GET", placed.header("location") or "")
    assert (shown.status, shown.header("etag"), shown.body) == (200, placed.header("etag"), placed.body)


async def test_order_under_a_key_is_found_by_its_own_client(app: App) -> None:
    placed = await place(app, '"k 1"'.replace(" ", "-"))
    found = await call(app, "GET", "/v1/orders?idempotency_key=k-1")
    assert [item["order_id"] for item in found.json["items"]] == [placed.json["order_id"]]
    assert (await call(app, "GET", "/v1/orders?idempotency_key=k-2")).json["items"] == []
    assert (await call(app, "GET", "/v1/orders?idempotency_key=k-1", token="fg_own")).json["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        "status=pending_payment",
        "channel=app",
        "customer_id=u-1",
        "external_id=%E4%B9%99-1",
        "sku=a%2Fb",
        "created_from=2020-01-01T00:00:00Z&created_to=2200-01-01T00:00:00Z",
        "status=pending_payment&channel=app&customer_id=u-1&external_id=%E4%B9%99-1&sku=a%2Fb&idempotency_key=k-1",
    ],
)
async def test_list_orders_by_a_filter_finds_the_one(app: App, query: str) -> None:
    placed = await place(app, "k-1")
    other = {"channel": "web", "customer_id": "u-2", "external_id": "x", "items": [{"sku": "other", "quantity": 1}]}
    await place(app, "k-2", other | {"paid": {"reference": "p"}})
    found = [item["order_id"] for item in (await call(app, "GET", f"/v1/orders?{query}")).json["items"]]
    assert placed.json["order_id"] in found
    assert len(found) == (2 if query.startswith("created") else 1)


@pytest.mark.parametrize("query", ["status=paid", "customer_id=%27%20or%20true", "created_to=2020-01-01T00:00:00Z"])
async def test_list_orders_by_a_filter_that_none_fits_is_empty(app: App, query: str) -> None:
    await place(app, "k-1")
    assert (await call(app, "GET", f"/v1/orders?{query}")).json["items"] == []


async def test_list_orders_of_a_client_has_none_of_others(app: App) -> None:
    await place(app, "k-1")
    own = await place(app, "k-1", token="fg_own")
    found = (await call(app, "GET", "/v1/orders", token="fg_own")).json["items"]
    assert [item["order_id"] for item in found] == [own.json["order_id"]]
    assert found[0]["note"] == "***"


async def test_list_orders_page_by_page_gives_each_once_newest_first(app: App) -> None:
    placed = [(await place(app, f"k-{at}")).json["order_id"] for at in range(5)]
    target, seen = "/v1/orders?limit=2&sku=a%2Fb&external_id=%E4%B9%99-1", []
    while target:
        reply = await call(app, "GET", target)
        seen += [item["order_id"] for item in reply.json["items"]]
        link = reply.header("link")
        target = link.removeprefix("<").removesuffix('>; rel="next"') if link else ""
    assert seen == sorted(placed, reverse=True)
