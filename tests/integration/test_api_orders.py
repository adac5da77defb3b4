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


async def cancel(app: App, order_id: str, etag: str = '"1"', token: str = "fg_all") -> Reply:
    body = b'{"reason":"ordered twice"}'
    return await call(app, "POST", f"/v1/orders/{order_id}/cancel", body, {"if-match": etag}, token=token)


async def test_cancel_order_answers_the_order_with_its_new_version(app: App) -> None:
    placed = await place(app, "k-1")
    reply = await cancel(app, placed.json["order_id"])
    assert (reply.status, reply.header("etag")) == (200, '"2"')
    assert reply.json == placed.json | {"status": "cancelled", "version": 2}
    shown = await call(app, "GET", placed.header("location") or "")
    assert (shown.body, shown.header("etag")) == (reply.body, '"2"')


async def test_cancel_order_again_is_412(app: App) -> None:
    order_id = (await place(app, "k-1")).json["order_id"]
    await cancel(app, order_id)
    assert (await cancel(app, order_id)).status == 412


async def test_cancel_order_that_is_cancelled_is_409_with_its_status(app: App) -> None:
    order_id = (await place(app, "k-1")).json["order_id"]
    await cancel(app, order_id)
    reply = await cancel(app, order_id, '"2"')
    assert (reply.status, reply.code, reply.json["detail"]) == (409, "not_cancellable", "the order is cancelled")
    assert (reply.json["order_status"], reply.json["allowed"]) == ("cancelled", [])


async def pay(app: App, order_id: str, etag: str = '"1"', token: str = "fg_all", body: bytes = b"") -> Reply:
    body = body or b'{"reference":"P-1","at":"2026-11-11T00:05:00Z"}'
    return await call(app, "POST", f"/v1/orders/{order_id}/pay", body, {"if-match": etag}, token=token)


async def test_pay_order_answers_the_order_with_its_payment(app: App) -> None:
    placed = await place(app, "k-1")
    reply = await pay(app, placed.json["order_id"])
    assert (reply.status, reply.header("etag")) == (200, '"2"')
    paid = {"reference": "P-1", "at": "2026-11-11T00:05:00.000Z"}
    assert reply.json == placed.json | {"status": "paid", "version": 2, "paid": paid}
    again = await call(app, "POST", "/v1/orders", msgspec.json.encode(ORDER), {"idempotency-key": "k-1"})
    assert again.body == placed.body, "the key's order, as it was created"


async def test_pay_order_again_is_412_and_then_409_with_what_is_allowed(app: App) -> None:
    order_id = (await place(app, "k-1")).json["order_id"]
    await pay(app, order_id)
    assert (await pay(app, order_id)).code == "version_mismatch"
    reply = await pay(app, order_id, '"2"')
    assert (reply.status, reply.code) == (409, "not_payable")
    assert (reply.json["order_status"], reply.json["allowed"]) == ("paid", ["cancel"])


async def test_pay_order_that_was_cancelled_is_409(app: App) -> None:
    order_id = (await place(app, "k-1")).json["order_id"]
    await cancel(app, order_id)
    reply = await pay(app, order_id, '"2"')
    assert (reply.code, reply.json["order_status"], reply.json["allowed"]) == ("not_payable", "cancelled", [])


async def test_pay_order_needs_a_reference_a_version_and_the_scope(app: App) -> None:
    order_id = (await place(app, "k-1")).json["order_id"]
    assert (await pay(app, order_id, body=b'{"at":null}')).status == 422
    assert (await call(app, "POST", f"/v1/orders/{order_id}/pay", b'{"reference":"P"}')).status == 428
    assert (await pay(app, order_id, token="fg_own")).code == "scope_missing"
    assert (await pay(app, "0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51")).code == "not_found"


async def test_cancel_order_keeps_what_its_key_answers(app: App) -> None:
    placed = await place(app, "k-1")
    await cancel(app, placed.json["order_id"])
    again = await place(app, "k-1")
    assert (again.body, again.header("idempotency-replayed")) == (placed.body, "true")


@pytest.mark.parametrize(
    ("owner", "token", "status"),
    [
        ("fg_own", "fg_own", 200),
        ("fg_own", "fg_all", 200),
        ("fg_all", "fg_own", 404),
        ("fg_all", "fg_manager", 404),
        ("fg_all", "fg_reader", 403),
        ("fg_reader", "fg_reader", 200),
    ],
)
async def test_cancel_order_is_for_its_client_and_for_who_manages_and_sees_all(
    app: App, owner: str, token: str, status: int
) -> None:
    order_id = (await place(app, "k-1", token=owner)).json["order_id"]
    assert (await cancel(app, order_id, token=token)).status == status


async def test_cancel_order_that_does_not_exist_is_not_found(app: App) -> None:
    for token in ("fg_all", "fg_own", "fg_reader"):
        assert (await cancel(app, "0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51", token=token)).code == "not_found"


async def test_cancel_order_without_pii_read_masks(app: App) -> None:
    order_id = (await place(app, "k-1", token="fg_own")).json["order_id"]
    assert (await cancel(app, order_id, token="fg_own")).json["note"] == "***"


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


async def test_list_orders_of_a_sale_has_no_others(app: App) -> None:
    await call(app, "PUT", "/v1/products/S", b'{"title":"t","price":5,"currency":"CNY"}')
    sale = {"title": "t", "starts_at": "2001-01-01T00:00:00Z", "ends_at": "2999-01-01T00:00:00Z"}
    sale_items = [{"sku": "S", "price": 4, "units": 9}]
    assert (await call(app, "PUT", "/v1/sales/s-1", msgspec.json.encode(sale | {"items": sale_items}))).status == 201
    await place(app, "k-1")
    placed = await place(app, "k-2", {"sale_id": "s-1", "items": [{"sku": "S", "quantity": 2}]})
    found = (await call(app, "GET", "/v1/orders?sale_id=s-1")).json["items"]
    assert [order["order_id"] for order in found] == [placed.json["order_id"]]
    assert (await call(app, "GET", "/v1/orders?sale_id=s-2")).json["items"] == []
