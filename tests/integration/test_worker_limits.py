"""Limits per buyer and cancellations on whole workers: a buyer gets what he may have and not one unit more, whichever
workers he asks, and what is cancelled can be bought again.
"""

import asyncio

import msgspec
import pytest

from core_ext import ids
from gateway import api
from gateway.edge.answers import Answer
from gateway.orders import event_of, restore, restore_change
from persistence.postgres import catalogue, orders
from tests.api import Reply, call
from tests.worker_world import SKU, Shop, World, code_of, eventually, open_world, order, order_id_of

LIMIT = 2


@pytest.fixture
async def world(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        row = catalogue.ProductRow(SKU, "HEART T-LIGHT", 255, "CNY", stocked=True, active=True, limit=LIMIT)
        await catalogue.put(world.pool, [row])
        yield world
        await world.assert_clean()


async def cancel(shop: Shop, order_id: str, version: int = 1) -> Reply:
    app, path = api.create(shop.services), f"/v1/orders/{order_id}/cancel"
    return await call(app, "POST", path, b'{"reason":"ordered twice"}', {"if-match": f'"{version}"'}, shop.token)


def one(customer: str = "u-1") -> bytes:
    return order(customer_id=customer)


async def test_workers_50_orders_of_one_buyer_at_once_give_him_his_limit(world: World):
    shops = [await world.shop() for _ in range(3)]
    answers = await asyncio.gather(*(shops[at % 3].buy(f"k-{at}", one()) for at in range(50)))
    accepted = [answer for answer in answers if answer.status == 201]
    refused = [answer for answer in answers if answer.status != 201]
    assert len(accepted) == LIMIT
    assert {(answer.status, code_of(answer)) for answer in refused} == {(409, "limit_reached")}
    assert await world.count("orders") == LIMIT
    await world.assert_clean()

    assert (await cancel(shops[0], order_id_of(accepted[0]))).status == 200
    assert (await shops[1].place("again", one())).status == 201
    assert code_of(await shops[2].place("k-51", one())) == "limit_reached"


async def test_worker_buyers_have_limits_of_their_own(world: World):
    shop = await world.shop()
    answers = await asyncio.gather(*(shop.buy(f"k-{at}", one(f"u-{at % 5}")) for at in range(20)))
    assert [answer.status for answer in answers].count(201) == 5 * LIMIT


async def test_worker_refusal_by_the_limit_says_what_is_left(world: World):
    shop = await world.shop()
    order_id_of(await shop.place("k-1", one()))
    answer = await shop.place("k-2", order(quantity=2, customer_id="u-1"))
    document = msgspec.json.decode(answer.body)
    assert (answer.status, document["code"], document["retryable"]) == (409, "limit_reached", False)
    assert document["detail"] == f"a buyer may hold {LIMIT} of {SKU}"
    assert [(error["pointer"], error["available"]) for error in document["errors"]] == [("#/items/0/quantity", 1)]


async def test_worker_known_key_beats_the_limit(world: World):
    shop, other = await world.shop(), await world.shop()
    first = await shop.place("k-1", order(quantity=LIMIT, customer_id="u-1"))
    again = await other.place("k-1", order(quantity=LIMIT, customer_id="u-1"))
    assert (again.status, again.body) == (201, first.body)


async def test_worker_last_unit_that_is_cancelled_is_sold_again(world: World):
    await world.product("LAST", units=1)
    shop, other = await world.shop(), await world.shop()
    first = await shop.buy("k-1", order("LAST"))
    assert code_of(await other.buy("k-2", order("LAST"))) == "sold_out"
    assert (await cancel(shop, order_id_of(first))).status == 200

    async def is_sold() -> bool:
        answer: Answer = await other.buy("k-3", order("LAST"))
        return answer.status == 201

    await eventually("the unit is sold again", is_sold)


async def test_worker_cancellation_is_an_event_which_the_tables_give_byte_for_byte(world: World):
    shop = await world.shop()
    order_id = order_id_of(await shop.place("k-1", order(customer_id="u-1", note="请放门口")))
    assert (await cancel(shop, order_id)).status == 200
    await eventually("the outbox is empty", world.outbox_is_empty)
    parsed = ids.parse_id(order_id)
    assert parsed is not None
    stored = (await orders.fetch(world.pool, [parsed], history=True))[parsed]
    wanted = [event_of(restore(stored, None), restore_change(row), "/floodgate/local") for row in stored.history]
    assert [tuple(event) for event in await world.events()] == [event[:3] for event in wanted]
    cancelled = msgspec.json.decode(wanted[1].payload)
    assert (cancelled["id"], cancelled["type"]) == (f"{order_id}.2", "com.floodgate.order.cancelled.v1")
    assert cancelled["data"]["reason"] == "ordered twice"
    assert (cancelled["data"]["status"], cancelled["data"]["previous_status"]) == ("cancelled", "pending_payment")


async def test_worker_events_that_the_relay_sends_after_a_cancellation_are_those_of_their_versions(world: World):
    shop = await world.shop()
    await world.remove_stream()
    order_id = order_id_of(await shop.place("k-1", one()))
    assert (await cancel(shop, order_id)).status == 200
    await world.make_stream()
    world.steward()
    await eventually("the outbox is empty", world.outbox_is_empty)
    found = {event.id: msgspec.json.decode(event.payload)["data"] for event in await world.events()}
    assert {event_id: (data["status"], data["version"]) for event_id, data in found.items()} == {
        f"{order_id}.1": ("pending_payment", 1),
        f"{order_id}.2": ("cancelled", 2),
    }


async def test_worker_cancellations_of_one_order_over_several_workers_are_one(world: World):
    shops = [await world.shop() for _ in range(2)]
    order_id = order_id_of(await shops[0].place("k-1", one()))
    replies = await asyncio.gather(*(cancel(shops[at % 2], order_id) for at in range(10)))
    assert sorted(reply.status for reply in replies) == [200, *[412] * 9]
    assert await world.count("order_history") == 2
