"""The catalogue over HTTP, on a real ledger: created, replaced, changed, listed, and what this worker sells by at
once.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.services import Services
from tests.api import App, call, running_worker

LAMP: dict[str, Any] = {"title": "烛台", "price": 255, "currency": "CNY"}


@pytest.fixture
async def worker(postgres_url: str, nats_url: str) -> AsyncIterator[tuple[App, Services]]:
    async with running_worker(postgres_url, nats_url) as running:
        yield running


def body(change: dict[str, Any] | None = None) -> bytes:
    return msgspec.json.encode(LAMP | (change or {}))


async def test_put_product_that_is_new_creates_it(worker: tuple[App, Services]) -> None:
    app, _ = worker
    reply = await call(app, "PUT", "/v1/products/85123A", body())
    shown = {"sku": "85123A", **LAMP, "stocked": True, "active": True, "version": 1, "limit": None}
    assert (reply.status, reply.json) == (201, shown)
    assert (reply.header("etag"), reply.header("location")) == ('"1"', "/v1/products/85123A")
    assert (await call(app, "GET", "/v1/products/85123A", token="fg_none")).json == shown


async def test_put_product_again_replaces_it(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/A", body({"active": False}))
    reply = await call(app, "PUT", "/v1/products/A", body({"price": 9}), {"if-match": '"1"'})
    assert (reply.status, reply.header("etag")) == (200, '"2"')
    assert reply.json["active"]


async def test_put_product_with_a_stale_etag_changes_nothing(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/A", body())
    for match in ('"7"', '"x"', 'W/"1"', '""'):
        reply = await call(app, "PUT", "/v1/products/A", body({"price": 9}), {"if-match": match})
        assert (reply.status, reply.code) == (412, "version_mismatch")
    assert (await call(app, "PUT", "/v1/products/B", body(), {"if-match": '"1"'})).status == 412
    assert (await call(app, "GET", "/v1/products/A")).json["price"] == 255


async def test_put_product_only_when_there_is_none_creates_and_never_replaces(worker: tuple[App, Services]) -> None:
    app, _ = worker
    for price, status in ((1, 201), (2, 412)):
        reply = await call(app, "PUT", "/v1/products/A", body({"price": price}), {"if-none-match": "*"})
        assert reply.status == status
    assert (await call(app, "GET", "/v1/products/A")).json["price"] == 1


@pytest.mark.parametrize(
    "sku",
    ["a%2Fb", "a%2F%2Fb%2F", "%2F", "%2f%2F", "a%252Fb", "%E7%83%9B%E5%8F%B0", "a%20b", "%22%5C%3F%23", ".%2E"],
)
async def test_product_with_an_odd_sku_is_found_again(worker: tuple[App, Services], sku: str) -> None:
    app, _ = worker
    created = await call(app, "PUT", f"/v1/products/{sku}", body())
    assert created.status == 201
    location = created.header("location")
    assert location
    assert (
        (await call(app, "GET", f"/v1/products/{sku}")).json == (await call(app, "GET", location)).json == created.json
    )


@pytest.mark.parametrize("sku", ["%00", "a%0Ab", "a" * 65, "%FF", "%E2%80%A8"])
async def test_product_with_an_impossible_sku_is_refused(worker: tuple[App, Services], sku: str) -> None:
    app, _ = worker
    assert (await call(app, "PUT", f"/v1/products/{sku}", body())).code == "invalid"
    assert (await call(app, "GET", f"/v1/products/{sku}")).code == "not_found"
    assert (await call(app, "PATCH", f"/v1/products/{sku}", b"{}")).code == "not_found"


async def test_product_with_a_bare_slash_is_no_route(worker: tuple[App, Services]) -> None:
    app, _ = worker
    assert (await call(app, "PUT", "/v1/products/a/b", body())).code == "not_found"


async def test_patch_product_changes_what_is_named(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/A", body())
    reply = await call(app, "PATCH", "/v1/products/A", b'{"price":7,"active":false}', {"if-match": '"1"'})
    shown = {"sku": "A", **LAMP, "price": 7, "stocked": True, "active": False, "version": 2, "limit": None}
    assert reply.json == shown


async def test_product_limit_is_set_kept_and_removed(worker: tuple[App, Services]) -> None:
    app, _ = worker
    assert (await call(app, "PUT", "/v1/products/A", body({"limit": 2}))).json["limit"] == 2
    assert (await call(app, "PATCH", "/v1/products/A", b'{"price":7}')).json["limit"] == 2
    assert (await call(app, "PATCH", "/v1/products/A", b'{"limit":null}')).json["limit"] is None
    assert (await call(app, "PATCH", "/v1/products/A", b'{"limit":5}')).json["limit"] == 5
    assert (await call(app, "GET", "/v1/products/A")).json["limit"] == 5
    assert (await call(app, "PUT", "/v1/products/A", body())).json["limit"] is None


@pytest.mark.parametrize("limit", ["0", "-1", "1000001", "1.5", '"2"', "true"])
async def test_product_limit_that_is_none_is_refused(worker: tuple[App, Services], limit: str) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/A", body())
    reply = await call(app, "PATCH", "/v1/products/A", f'{{"limit":{limit}}}'.encode())
    assert (reply.status, reply.json["errors"][0]["pointer"]) == (422, "#/limit")


async def test_product_shows_its_own_limit_and_sells_by_that_of_the_rules(worker: tuple[App, Services]) -> None:
    app, services = worker
    services.catalogue.apply_limits(lambda _: 3)
    assert (await call(app, "PUT", "/v1/products/A", body())).json["limit"] is None
    order = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":1}]}'
    reply = await call(app, "POST", "/v1/orders", order, {"idempotency-key": "k"})
    assert [error["pointer"] for error in reply.json["errors"]] == ["#/customer_id"]


async def test_patch_product_with_nothing_new_keeps_the_version(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/A", body())
    assert (await call(app, "PATCH", "/v1/products/A", b'{"price":255}')).header("etag") == '"1"'


async def test_patch_product_that_does_not_exist_is_not_found(worker: tuple[App, Services]) -> None:
    app, _ = worker
    assert (await call(app, "PATCH", "/v1/products/A", b"{}")).status == 404


async def test_patch_product_with_a_stale_etag_is_refused(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/A", body())
    assert (await call(app, "PATCH", "/v1/products/A", b'{"price":1}', {"if-match": '"2"'})).code == "version_mismatch"


async def test_put_product_is_what_the_next_order_is_priced_by(worker: tuple[App, Services]) -> None:
    app, _ = worker
    for price in (100, 200, 300):
        await call(app, "PUT", "/v1/products/A", body({"price": price, "stocked": False}))
        order = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":2}]}'
        reply = await call(app, "POST", "/v1/orders", order, {"idempotency-key": f"k-{price}"})
        assert (reply.status, reply.json["total"]) == (201, 2 * price)


async def test_list_products_page_by_page_gives_each_once(worker: tuple[App, Services]) -> None:
    app, _ = worker
    for sku in ("b", "B", "a", "%E4%B8%AD", "a%2F"):
        await call(app, "PUT", f"/v1/products/{sku}", body())
    target, seen = "/v1/products?limit=2", []
    while target:
        reply = await call(app, "GET", target)
        seen += [item["sku"] for item in reply.json["items"]]
        link = reply.header("link")
        target = link.removeprefix("<").removesuffix('>; rel="next"') if link else ""
    assert seen == ["B", "a", "a/", "b", "中"]


async def test_list_products_with_a_cursor_of_another_client_is_refused(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", "/v1/products/a", body())
    await call(app, "PUT", "/v1/products/b", body())
    cursor = (await call(app, "GET", "/v1/products?limit=1", token="fg_none")).json["next_cursor"]
    assert (await call(app, "GET", f"/v1/products?limit=1&cursor={cursor}")).code == "bad_cursor"
    assert (await call(app, "GET", "/v1/products?sku=a")).code == "bad_parameter"
