"""Stock over HTTP, on a real ledger: the books always balance, and a total goes down to what is held, this worker's
hand included.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.domain.stock_keys import stock_key
from persistence.postgres import control, stock
from persistence.postgres.connect import connect, open_pool
from persistence.postgres.session import Session
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
        "hands": [],
        "parked": 0,
        "refills_per_s": 0.0,
        "refused_per_s": 0.0,
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
    assert [(error["code"], error["pointer"]) for error in reply.json["errors"]] == [("not_stocked", "#/total")]


async def test_put_stock_only_when_there_is_none_creates_and_never_replaces(app: App) -> None:
    for total, status in ((5, 200), (6, 412)):
        reply = await call(app, "PUT", "/v1/stock/A", msgspec.json.encode({"total": total}), {"if-none-match": "*"})
        assert reply.status == status
    assert (await call(app, "GET", "/v1/stock/A")).json["total"] == 5


async def test_put_stock_of_a_sale_is_no_parameter_and_changes_nothing(app: App) -> None:
    await put(app, 5)
    reply = await call(app, "PUT", "/v1/stock/A?sale_id=double-11", b'{"total":6}')
    assert (reply.status, reply.code) == (400, "bad_parameter")
    assert "sale_id" in reply.json["detail"]
    assert (await call(app, "GET", "/v1/stock/A")).json["total"] == 5


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
    assert "7 units are held" in reply.json["detail"]
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


async def test_stock_in_a_hand_names_the_owner(app: App) -> None:
    await put(app, 1000)
    assert (await order(app, 7, "k-1")).status == 201
    shown = (await call(app, "GET", "/v1/stock/A")).json
    (hand,) = shown["hands"]
    assert hand["units"] == shown["leased"] > 0
    assert (hand["host"], hand["pid"]) == (socket.gethostname(), os.getpid())


async def test_patch_stock_spreads_it_over_other_shards(app: App) -> None:
    await put(app, 10, shards=4)
    reply = await call(app, "PATCH", "/v1/stock/A", b'{"shards":3}')
    assert (reply.status, reply.header("etag"), reply.json["per_shard"]) == (200, '"2"', [4, 3, 3])
    assert reply.json["shards"] == 3
    assert reply.json["total"] == 10


async def test_patch_stock_while_orders_hold_units_balances(app: App) -> None:
    await put(app, 1000)
    assert (await order(app, 7, "k-1")).status == 201
    reply = await call(app, "PATCH", "/v1/stock/A", b'{"shards":16}')
    assert balanced(reply.json)
    assert reply.json["held"] == 7


async def test_patch_stock_of_another_version_changes_nothing(app: App) -> None:
    await put(app, 10, shards=4)
    before = await call(app, "GET", "/v1/stock/A")
    reply = await call(app, "PATCH", "/v1/stock/A", b'{"shards":3}', {"if-match": '"2"'})
    assert (reply.status, reply.code) == (412, "version_mismatch")
    assert (await call(app, "GET", "/v1/stock/A")).json == before.json
    reply = await call(app, "PATCH", "/v1/stock/A", b'{"shards":3}', {"if-match": before.header("etag") or ""})
    assert (reply.status, reply.json["shards"]) == (200, 3)


async def test_patch_stock_without_any_is_not_found(app: App) -> None:
    assert (await call(app, "PATCH", "/v1/stock/A", b'{"shards":3}')).code == "not_found"


@pytest.mark.parametrize("body", [b"{}", b'{"shards":0}', b'{"shards":257}', b'{"shards":3,"total":1}'])
async def test_patch_stock_out_of_bounds_is_invalid(app: App, body: bytes) -> None:
    await put(app, 10)
    assert (await call(app, "PATCH", "/v1/stock/A", body)).code == "invalid"


async def test_stock_of_a_sale_is_shown_and_spread_by_itself(app: App, postgres_url: str) -> None:
    await put(app, 10)
    pool = await open_pool(postgres_url, "test", 1, 5.0)
    await stock.set_total(pool, stock_key("double-11", "A"), 8, 4, "test", None, None)
    await pool.close()
    reply = await call(app, "PATCH", "/v1/stock/A?sale_id=double-11", b'{"shards":2}')
    assert (reply.json["sku"], reply.json["sale_id"], reply.json["per_shard"]) == ("A", "double-11", [4, 4])
    assert (await call(app, "GET", "/v1/stock/A?sale_id=double-11")).json == reply.json
    assert (await call(app, "GET", "/v1/stock/A")).json["shards"] == 4
    assert (await call(app, "GET", "/v1/stock/A?sale_id=other")).code == "not_found"


@pytest.fixture
async def pinched(app: App, postgres_url: str) -> AsyncIterator[App]:
    """Two more workers tell where it pinches; one of them says so no more."""
    for sku in ("B", "C"):
        await call(app, "PUT", f"/v1/products/{sku}", b'{"title":"t","price":1,"currency":"CNY"}')
        await put(app, 50, sku=sku)
    session = Session(postgres_url, "test", 5.0)
    for number in (1, 2, 3):
        owner = f"00000000-0000-4000-8000-00000000000{number}"
        await control.register(session, owner, "other", number, 0)
        pinch = {"B": (4, 6, 1), "C": (2, 0, 0), "gone": (1, 1, 1), stock_key("s", "B"): (1, 0, 0)}
        await control.heartbeat(session, owner, pinch, 2.0)
    silent = "update worker set seen_at = seen_at - interval '6 seconds' where pid = 3 and host = 'other'"
    await session.run(lambda connection: connection.execute(silent))
    yield app
    await session.close()


async def test_stock_that_pinches_tells_rates_of_the_workers_that_live(pinched: App) -> None:
    shown = (await call(pinched, "GET", "/v1/stock/B")).json
    assert (shown["refills_per_s"], shown["refused_per_s"], shown["parked"]) == (4.0, 6.0, 2)


async def test_list_stock_has_the_worst_first(pinched: App) -> None:
    reply = await call(pinched, "GET", "/v1/stock")
    assert [item["sku"] for item in reply.json["items"]] == ["B", "C"]
    assert reply.json["items"][0] == {
        "sku": "B", "total": 50, "shards": 4, "free": 50, "leased": 0, "held": 0,
        "parked": 2, "refills_per_s": 4.0, "refused_per_s": 6.0,
    }  # fmt: skip


async def test_list_stock_has_as_many_as_asked_for(pinched: App) -> None:
    assert [item["sku"] for item in (await call(pinched, "GET", "/v1/stock?limit=1")).json["items"]] == ["B"]
    assert (await call(pinched, "GET", "/v1/stock?limit=0")).code == "bad_parameter"
    assert (await call(pinched, "GET", "/v1/stock?cursor=x")).code == "bad_parameter"


async def test_list_stock_of_a_worker_that_refuses_names_the_sku(app: App) -> None:
    await put(app, 3)
    assert (await order(app, 3, "k-1")).status == 201
    async with asyncio.timeout(20):
        while not (items := (await call(app, "GET", "/v1/stock")).json["items"]) or not items[0]["refused_per_s"]:
            assert (await order(app, 1, "k-2")).code == "sold_out"
            await asyncio.sleep(0.01)
    assert items[0]["sku"] == "A"
