"""Adjustments of stock over HTTP, on a real ledger: each happens once per key, and none takes what is held. Movements
tell of every change.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from core_ext.limits import MONEY_MAX
from tests.api import App, Reply, call, running_worker


@pytest.fixture
async def app(postgres_url: str, nats_url: str) -> AsyncIterator[App]:
    async with running_worker(postgres_url, nats_url) as (running, _):
        for sku in ("A", "B%2F1"):
            await call(running, "PUT", f"/v1/products/{sku}", b'{"title":"t","price":1,"currency":"CNY"}')
            assert (await call(running, "PUT", f"/v1/stock/{sku}", b'{"total":10,"reason":"first"}')).status == 200
        yield running


async def adjust(
    app: App, delta: int, key: str | None = "k", sku: str = "A", match: str | None = None, **request: Any
) -> Reply:
    headers = {name: value for name, value in (("idempotency-key", key), ("if-match", match)) if value is not None}
    body = msgspec.json.encode({"delta": delta, "reason": request.pop("reason", "count")})
    return await call(app, "POST", f"/v1/stock/{sku}/adjustments", body, headers, **request)


async def total(app: App, sku: str = "A") -> int:
    return int((await call(app, "GET", f"/v1/stock/{sku}")).json["total"])


async def deltas(app: App, sku: str = "A") -> list[int]:
    return [item["delta"] for item in (await call(app, "GET", f"/v1/stock/{sku}/movements")).json["items"]]


async def order(app: App, quantity: int) -> None:
    document = {"channel": "app", "currency": "CNY", "items": [{"sku": "A", "quantity": quantity}]}
    reply = await call(app, "POST", "/v1/orders", msgspec.json.encode(document), {"idempotency-key": "order"})
    assert reply.status == 201


@pytest.mark.parametrize(("delta", "left"), [(5, 15), (-4, 6), (-10, 0)])
async def test_adjust_stock_moves_the_total_and_tells_the_movement(app: App, delta: int, left: int) -> None:
    reply = await adjust(app, delta, reason="盘点")
    assert (reply.status, reply.header("location")) == (201, "/v1/stock/A/movements")
    assert reply.header("idempotency-replayed") is None
    movement = reply.json
    assert {name: movement[name] for name in ("sku", "delta", "total", "actor", "reason")} == {
        "sku": "A", "delta": delta, "total": left, "actor": "client:shop", "reason": "盘点",
    }  # fmt: skip
    shown = (await call(app, "GET", "/v1/stock/A")).json
    assert (shown["total"], shown["free"]) == (left, left)
    assert (await call(app, "GET", reply.header("location") or "")).json["items"][0] == movement


async def test_adjust_stock_again_under_the_key_is_answered_with_the_first_movement(app: App) -> None:
    first = await adjust(app, 5)
    await adjust(app, -15, key="other")
    again = await adjust(app, 5, key='"k"')
    assert (again.status, again.header("idempotency-replayed"), again.body) == (201, "true", first.body)
    assert await total(app) == 0


async def test_adjust_stock_down_again_is_replayed_though_units_are_held_by_now(app: App) -> None:
    first = await adjust(app, -4)
    await order(app, 6)
    assert (await adjust(app, -4, match='"1"')).body == first.body


async def test_adjust_stock_under_one_key_by_many_at_once_moves_once(app: App) -> None:
    replies = await asyncio.gather(*(adjust(app, -7) for _ in range(8)))
    assert {reply.status for reply in replies} == {201}
    assert [reply.header("idempotency-replayed") for reply in replies].count(None) == 1
    assert len({reply.body for reply in replies}) == 1
    assert await total(app) == 3


async def test_adjust_stock_of_two_skus_under_one_key_at_once_moves_one(app: App) -> None:
    replies = await asyncio.gather(*(adjust(app, 5, sku=sku) for sku in ("A", "B%2F1") * 4))
    assert {reply.code for reply in replies} == {None, "key_reused"}
    assert sorted([await total(app), await total(app, "B%2F1")]) == [10, 15]


async def test_adjust_stock_with_another_body_under_the_key_is_422(app: App) -> None:
    await adjust(app, 5)
    for reply in (await adjust(app, 6), await adjust(app, 5, sku="B%2F1"), await adjust(app, 5, reason="other")):
        assert (reply.status, reply.code) == (422, "key_reused")
    assert (await total(app), await total(app, "B%2F1")) == (15, 10)


async def test_adjust_stock_of_another_client_under_the_key_is_another_one(app: App) -> None:
    made = await call(
        app, "POST", "/v1/clients", b'{"name":"second","scopes":["stock:write"],"channels":[]}', token="fg_all"
    )
    async with asyncio.timeout(20):
        while (reply := await adjust(app, 5, token=made.json["token"])).status == 401:
            await asyncio.sleep(0.01)
    assert reply.json["actor"] == "client:second"
    assert (await adjust(app, 5)).header("idempotency-replayed") is None
    assert await total(app) == 20


async def test_adjust_stock_beyond_the_largest_total_is_422_and_changes_nothing(app: App) -> None:
    reply = await adjust(app, MONEY_MAX)
    assert (reply.status, reply.code) == (422, "invalid")
    assert [(error["pointer"], error["code"]) for error in reply.json["errors"]] == [("#/delta", "out_of_range")]
    assert await total(app) == 10


async def test_adjust_stock_below_what_is_held_changes_nothing_and_the_key_stays_free(app: App) -> None:
    await order(app, 6)
    reply = await adjust(app, -5)
    assert (reply.status, reply.code) == (409, "below_held")
    assert "6 units are held" in reply.json["detail"]
    assert (await total(app), await deltas(app)) == (10, [10])
    assert (await adjust(app, -4)).json["total"] == 6


async def test_adjust_stock_down_to_what_is_held_takes_the_hand_too(app: App) -> None:
    await call(app, "PUT", "/v1/stock/A", b'{"total":1000}')
    await order(app, 7)
    assert (await adjust(app, -993)).status == 201
    shown = (await call(app, "GET", "/v1/stock/A")).json
    assert (shown["total"], shown["free"], shown["leased"], shown["held"]) == (7, 0, 0, 7)


async def test_adjust_stock_below_nothing_is_409(app: App) -> None:
    assert (await adjust(app, -11)).code == "below_held"


async def test_adjust_stock_with_a_stale_etag_is_412(app: App) -> None:
    assert (await adjust(app, 5, match='"9"')).code == "version_mismatch"
    assert (await adjust(app, 5, match='"1"')).json["total"] == 15


async def test_adjust_stock_of_a_sku_without_stock_is_not_found(app: App) -> None:
    for sku in ("C", "%00", "%ff"):
        assert (await adjust(app, 5, sku=sku)).code == "not_found"


async def test_adjust_stock_of_a_sold_out_sku_lets_it_be_sold(app: App) -> None:
    await call(app, "PUT", "/v1/stock/A", b'{"total":0}')
    await adjust(app, 6)
    await order(app, 6)


async def test_movements_tell_every_change_newest_first(app: App) -> None:
    await adjust(app, 5, key="1")
    await call(app, "PUT", "/v1/stock/A", b'{"total":4}')
    await call(app, "PUT", "/v1/stock/A", b'{"total":4,"shards":3}')
    items = (await call(app, "GET", "/v1/stock/A/movements")).json["items"]
    assert [(item["delta"], item["total"], item.get("reason")) for item in items] == [
        (-11, 4, None), (5, 15, "count"), (10, 10, "first"),
    ]  # fmt: skip
    assert {item["actor"] for item in items} == {"client:shop"}


async def test_movements_of_a_sale_are_its_own(app: App) -> None:
    sale = {"title": "t", "starts_at": "2026-01-01T00:00:00Z", "ends_at": "2099-01-01T00:00:00Z"}
    for units in (7, 9):
        sale_items = [{"sku": "A", "price": 1, "units": units}]
        body = msgspec.json.encode(sale | {"items": sale_items})
        assert (await call(app, "PUT", "/v1/sales/s-1", body)).status in {200, 201}
    items = (await call(app, "GET", "/v1/stock/A/movements?sale_id=s-1")).json["items"]
    assert [(item["sku"], item["sale_id"], item["delta"], item["reason"]) for item in items] == [
        ("A", "s-1", 2, "sale s-1"), ("A", "s-1", 7, "sale s-1"),
    ]  # fmt: skip
    assert await deltas(app) == [10]


async def test_movements_page_by_page_tell_each_once(app: App) -> None:
    for number in range(1, 6):
        await adjust(app, number, key=str(number), sku="B%2F1")
    target, seen = "/v1/stock/B%2F1/movements?limit=2", []
    while target:
        reply = await call(app, "GET", target)
        seen += [item["delta"] for item in reply.json["items"]]
        link = reply.header("link")
        assert (link is None) is (reply.json["next_cursor"] is None)
        target = link.removeprefix("<").removesuffix('>; rel="next"') if link else ""
    assert seen == [5, 4, 3, 2, 1, 10]


async def test_movements_with_a_cursor_of_another_sku_are_refused(app: App) -> None:
    await adjust(app, 1)
    cursor = (await call(app, "GET", "/v1/stock/A/movements?limit=1")).json["next_cursor"]
    assert (await call(app, "GET", f"/v1/stock/A/movements?cursor={cursor}")).status == 200
    for target in (
        f"B%2F1/movements?cursor={cursor}",
        f"A/movements?cursor={cursor}&sale_id=s",
        "A/movements?cursor=x",
    ):
        assert (await call(app, "GET", f"/v1/stock/{target}")).code == "bad_cursor"


async def test_movements_of_a_sku_without_stock_are_not_found(app: App) -> None:
    for target in ("C/movements", "%00/movements", "A/movements?sale_id=s-2"):
        assert (await call(app, "GET", f"/v1/stock/{target}")).code == "not_found"
