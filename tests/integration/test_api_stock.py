"""Stock over HTTP, on a real ledger: the books always balance, and a total goes down to what is held, this worker's
hand included.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from persistence.postgres.connect import connect
from tests.api import App, Reply, call, running_worker


@pytest.fixture
async def app(postgres_url: str, nats_url: str) -> AsyncIterator[App]:
    async with running_worker(postgres_url, nats_url) as (running, _):
        await call(running, "PUT", "/v1/products/A", b'{"title":"t","price":1,"currency":"CNY"}')
        yield running


async def put(app: App, total: int, match: str | None = None, sku: str = "A", **more: Any) -> Reply:
    headers = {} if match is None else {"if-match": match}
    return await call(app, "PUT", f"/v1/stock/{sku}", msgspec.json.encode({"total": total, **more}), headers)


async def order(app: App, quantity: int, key: str) -> Reply:
    document = {"channel": "app", "currency": "CNY", "items": [{"sku": "A", "quantity": quantity}]}
    return await call(app, "POST", "/v1/orders", msgspec.json.encode(document), {"idempotency-key": key})


def balanced(shown: dict[str, Any]) -> bool:
    parts: int = shown["free"] + shown["leased"] + shown["held"]
    return bool(shown["total"] + shown["owed"] == parts and sum(shown["per_shard"]) == shown["free"])


async def test_put_stock_that_is_new_spreads_it(app: App) -> None:
    reply = await put(app, 10, shards=4)
    assert (reply.status, reply.header("etag")) == (200, '"1"')
    assert reply.json == {
        "sku": "A",
        "total": 10,
        "owed": 0,
        "shards": 4,
        "version": 1,
        "free": 10,
        "leased": 0,
        "held": 0,
        "per_shard": [3, 3, 2, 2],
    }
    assert (await call(app, "GET", "/v1/stock/A")).json == reply.json


async def test_get_stock_without_any_is_not_found(app: App) -> None:
    assert (await call(app, "GET", "/v1/stock/A")).code == "not_found"
    assert (await call(app, "GET", "/v1/stock/%00")).code == "not_found"


async def test_put_stock_of_no_product_is_not_found(app: App) -> None:
    assert (await put(app, 1, sku="B")).code == "not_found"


async def test_put_stock_of_a_product_without_stock_is_invalid(app: App) -> None:
    await call(app, "PUT", "/v1/products/B", b'{"title":"t","price":1,"currency":"CNY","stocked":false}')
    reply = await put(app, 1, sku="B")
    assert (reply.status, reply.code) == (422, "invalid")


async def test_put_stock_with_other_shards_spreads_it_anew(app: App) -> None:
    await put(app, 10, shards=4)
    reply = await put(app, 12, shards=3)
    assert reply.json["per_shard"] == [4, 4, 4]
    assert (await put(app, 12)).json["shards"] == 3


async def test_put_stock_with_a_stale_etag_changes_nothing(app: App) -> None:
    assert (await put(app, 5, match='"1"')).code == "version_mismatch"
    await put(app, 5)
    assert (await put(app, 6, match='"9"')).code == "version_mismatch"
    assert (await put(app, 6, match='"1"')).json["total"] == 6


async def test_stock_after_orders_balances(app: App) -> None:
    await put(app, 1000)
    assert (await order(app, 7, "k-1")).status == 201
    shown = (await call(app, "GET", "/v1/stock/A")).json
    assert shown["held"] == 7
    assert balanced(shown)


async def test_put_stock_down_to_what_is_held_takes_the_hand_too(app: App) -> None:
    await put(app, 1000)
    assert (await order(app, 7, "k-1")).status == 201
    reply = await put(app, 7)
    assert (reply.status, reply.json["free"], reply.json["leased"], reply.json["held"]) == (200, 0, 0, 7)
    assert balanced(reply.json)


async def test_put_stock_below_what_is_held_changes_nothing(app: App) -> None:
    await put(app, 1000)
    assert (await order(app, 7, "k-1")).status == 201
    reply = await put(app, 6)
    assert (reply.status, reply.code) == (409, "below_held")
    assert (await call(app, "GET", "/v1/stock/A")).json["total"] == 1000


async def test_put_stock_is_a_movement_with_actor_and_reason(app: App, postgres_url: str) -> None:
    await put(app, 10, reason="delivery 4711")
    await put(app, 4)
    connection = await connect(postgres_url, "test")
    rows = await connection.fetch("select delta, total, actor, reason from stock_movement order by movement_id")
    await connection.close()
    assert [tuple(row) for row in rows] == [(10, 10, "client:shop", "delivery 4711"), (-6, 4, "client:shop", None)]


@pytest.mark.parametrize("field", [{"total": -1}, {"total": 2**53}, {"shards": 0}, {"shards": 257}, {"reason": ""}])
async def test_put_stock_out_of_bounds_names_the_field(app: App, field: dict[str, Any]) -> None:
    reply = await call(app, "PUT", "/v1/stock/A", msgspec.json.encode({"total": 1} | field))
    assert reply.code == "invalid"
    assert [error["pointer"] for error in reply.json["errors"]] == [f"#/{name}" for name in field]
