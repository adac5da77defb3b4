"""A worker on real servers: an order in, its rows and its event out, the same bytes whoever makes them, and one order
for a key whatever is asked of whom.
"""

import asyncio

import msgspec
import pytest

from core_ext import ids
from gateway.orders import event_of, restore, restore_change
from persistence.postgres import clients, orders
from tests.worker_world import SKU, World, code_of, eventually, open_world, order, order_id_of

RICH = order(
    quantity=6,
    items=[{"sku": SKU, "quantity": 6}, {"sku": SKU, "quantity": 1, "unit_price": 0}, {"sku": "茶-α", "quantity": 2}],
    customer_id="u-1",
    external_id="A/77",
    note="请放门口 \"'\\ </script>",
    ship_to={"name": "张三", "phone": "+86 1", "city": "杭州市"},
    metadata={"k": "v", "空": 'é \u2028 \\ "', "z": ""},
    adjustments=[
        {"type": "discount", "amount": -5, "label": "折扣", "line": 1},
        {"type": "tax", "amount": 7, "label": "t"},
    ],
    placed_at="2026-11-11T00:00:00.123456+08:00",
    paid={"reference": "wx-1", "at": "2010-12-01T08:26:00Z"},
)


@pytest.fixture
async def world(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        await world.product("茶-α", units=100, title='壶 "Tea"\\pot')
        yield world
        await world.assert_clean()


async def test_worker_order_becomes_rows_and_the_outbox_is_emptied(world: World):
    shop = await world.shop()
    order_id = order_id_of(await shop.place(body=RICH))
    assert await world.order_ids() == {order_id}
    assert [await world.count(table) for table in ("order_lines", "order_history", "order_key", "batch")] == [
        3,
        1,
        1,
        1,
    ]
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert await world.value("select sum(used) from stock_lease") == 9


async def test_worker_event_is_the_one_that_the_tables_give_byte_for_byte(world: World):
    shop = await world.shop()
    answers = [await shop.place("rich", RICH), await shop.place("plain"), await shop.place("free", order("茶-α", 3))]
    order_ids = [ids.parse_id(order_id_of(answer)) for answer in answers]
    await eventually("the outbox is empty", world.outbox_is_empty)
    stored = await orders.fetch(world.pool, [order_id for order_id in order_ids if order_id], history=True)
    again = [
        event_of(restore(rows, None), restore_change(rows.history[0]), "/floodgate/local") for rows in stored.values()
    ]
    assert {tuple(event) for event in await world.events()} == {event[:3] for event in again}


async def test_worker_retry_gets_the_same_body_byte_for_byte(world: World):
    shop = await world.shop()
    first, again = await shop.place(body=RICH), await shop.place(body=RICH)
    assert again.body == first.body
    assert (b"idempotency-replayed", b"true") in again.headers
    assert (b"idempotency-replayed", b"true") not in first.headers


async def test_worker_retry_over_another_worker_gets_the_same_body_byte_for_byte(world: World):
    shop = await world.shop()
    first = await shop.place(body=RICH)
    await shop.stop()
    again = await (await world.shop()).place(body=RICH)
    assert (again.status, again.body) == (201, first.body)
    assert await world.count("orders") == 1


async def test_worker_retry_gets_its_order_though_everything_has_changed_since(world: World):
    shop = await world.shop()
    first = await shop.place(body=order(quantity=100))
    await world.price(SKU, 999)
    await world.pool.execute("update orders set status = 'paid', version = 2")
    await world.pool.execute(
        "insert into order_history select order_id, 2, at, 'paid', 'paid', status, 'x', null, '{}' from order_history"
    )
    assert code_of(await shop.place("k-2", order(quantity=100))) == "sold_out"
    assert (await shop.place(body=order(quantity=100))).body == first.body


async def test_worker_changed_body_under_a_key_is_refused(world: World):
    shop = await world.shop()
    order_id_of(await shop.place(body=order(quantity=1)))
    answer = await shop.place(body=order(quantity=2))
    assert (answer.status, code_of(answer)) == (422, "key_reused")


async def test_workers_same_key_50_times_in_parallel_over_both_is_one_order_and_one_body(world: World):
    shops = [await world.shop(), await world.shop()]
    answers = await asyncio.gather(*(shop.place(body=RICH) for shop in shops * 25))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert await world.count("orders") == 1
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert len(await world.events()) == 1


async def test_workers_sell_every_unit_once_and_not_one_more(world: World):
    shops = [await world.shop(), await world.shop()]
    answers = await asyncio.gather(*(shops[n % 2].buy(f"k-{n}", order(quantity=3)) for n in range(40)))
    accepted = [answer for answer in answers if answer.status == 201]
    assert len(accepted) == 33
    assert {code_of(answer) for answer in answers if answer.status != 201} == {"sold_out"}
    assert order_id_of(await shops[0].buy("last", order(quantity=1)))


async def test_worker_price_change_is_effective(world: World):
    shop = await world.shop()
    await world.price(SKU, 300)
    numbers = iter(range(10_000))

    async def is_effective() -> bool:
        answer = await shop.place(f"k-{next(numbers)}", order())
        return bool(msgspec.json.decode(answer.body)["items"][0]["unit_price"] == 300)

    await eventually("the new price is charged", is_effective)


async def test_worker_revoked_token_is_refused(world: World):
    token = await world.client("leaver")
    shop = await world.shop()

    async def status() -> int:
        return (await shop.place("k", order(), token)).status

    assert await status() == 201
    async with world.pool.acquire() as connection:
        await clients.revoke(connection, "leaver", None)

    async def is_refused() -> bool:
        return await status() == 401

    await eventually("the token is refused", is_refused)


async def test_worker_metrics_are_what_the_tables_hold(world: World):
    shop = await world.shop()
    await asyncio.gather(*(shop.place(f"k-{number}", RICH) for number in range(5)))
    await shop.place("k-0", RICH)
    metrics = shop.services.exporter.text().decode().splitlines()
    lines, units = await world.count("order_lines"), await world.value("select sum(quantity) from order_lines")
    assert f"floodgate_orders_created_total {await world.count('orders'):.1f}" in metrics
    assert f"floodgate_order_lines_created_total {lines:.1f}" in metrics
    assert f"floodgate_order_units_created_total {units:.1f}" in metrics
    assert "floodgate_orders_replayed_total 1.0" in metrics
