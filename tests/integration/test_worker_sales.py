"""Orders of a sale over whole workers: its price, its units, its limit, its time to pay, and a key that outlives it."""

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest

from persistence.postgres import sales
from tests.sale_world import KEY, PRICE, SALE, followed, of_sale, put_sale
from tests.worker_world import SKU, World, code_of, eventually, open_world, order, order_id_of

UNITS = 30


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=UNITS)
        yield world
        await eventually("the outbox is empty", world.outbox_is_empty)
        await world.assert_clean()


async def test_order_of_a_sale_has_its_price_and_its_time_to_pay(world: World) -> None:
    shop = await world.shop()
    await put_sale(world, UNITS, payment_timeout_s=60)
    await followed(world, shop)
    order_id = order_id_of(await shop.place("k-1", of_sale(2)))
    row = await world.pool.fetchrow(
        "select sale_id, total, expires_at - created_at as time_to_pay, sku, order_id::text from orders "
        "join order_lines using (order_id)"
    )
    assert tuple(row) == (SALE, 2 * PRICE, dt.timedelta(seconds=60), SKU, order_id)


async def test_sale_and_everyday_stock_are_both_sold_to_the_last_unit(world: World) -> None:
    shops = [await world.shop(), await world.shop()]
    await put_sale(world, UNITS)
    await followed(world, *shops)
    bodies = {"sale": of_sale(), "everyday": order()}
    answers = await asyncio.gather(
        *(shops[n % 2].buy(f"{kind}-{n}", body) for n in range(UNITS + 10) for kind, body in bodies.items())
    )
    assert Counter(answer.status for answer in answers) == {201: 2 * UNITS, 409: 20}
    assert {code_of(answer) for answer in answers if answer.status == 409} == {"sold_out"}
    sold = await world.pool.fetch(
        "select sale_id, sum(quantity)::bigint from orders join order_lines using (order_id) group by sale_id"
    )
    assert {tuple(row) for row in sold} == {(SALE, UNITS), (None, UNITS)}


async def test_retry_of_an_order_after_the_sale_is_closed_gets_the_order_over_any_worker(world: World) -> None:
    shops = [await world.shop(), await world.shop()]
    await put_sale(world, UNITS)
    await followed(world, *shops)
    first = await shops[0].place("k-1", of_sale())
    await sales.close_now(world.pool, SALE)
    await followed(world, *shops)
    for shop in shops:
        assert code_of(await shop.buy("k-2", of_sale())) == "sale_closed"
        assert (await shop.place("k-1", of_sale())).body == first.body
    assert code_of(await shops[1].place("k-1", of_sale(2))) == "key_reused"


async def test_sale_put_off_refuses_again_but_its_orders_stand(world: World) -> None:
    shop = await world.shop()
    await put_sale(world, UNITS)
    await followed(world, shop)
    first = await shop.place("k-1", of_sale())
    await put_sale(world, UNITS, opens_in_s=3600)
    await followed(world, shop)
    assert code_of(await shop.place("k-2", of_sale())) == "sale_not_open"
    assert (await shop.place("k-1", of_sale())).body == first.body


async def test_limit_of_a_sale_counts_apart_from_everyday_orders(world: World) -> None:
    shops = [await world.shop(), await world.shop()]
    await put_sale(world, UNITS, limit=2)
    await followed(world, *shops)
    wanted = of_sale(customer_id="u-1")
    answers = await asyncio.gather(*(shops[n % 2].buy(f"k-{n}", wanted) for n in range(20)))
    assert Counter(answer.status for answer in answers) == {201: 2, 409: 18}
    assert {code_of(answer) for answer in answers if answer.status == 409} == {"limit_reached"}
    assert (await shops[0].place("everyday", order(customer_id="u-1"))).status == 201
    assert [tuple(row) for row in await world.pool.fetch("select sku, customer, taken from buyer_taken")] == [
        (KEY, "u-1", 2)
    ]


async def test_put_beside_orders_never_takes_units_that_are_sold(world: World) -> None:
    shops = [await world.shop(), await world.shop()]
    await put_sale(world, UNITS)
    await followed(world, *shops)
    buying = asyncio.gather(*(shops[n % 2].buy(f"k-{n}", of_sale()) for n in range(2 * UNITS)))
    terms = sales.Terms("Double 11", *await _times(world), None)
    while not buying.done():
        for units in (UNITS - 5, UNITS):
            await sales.put(world.pool, SALE, terms, [sales.Item(SKU, PRICE, units, None, 4)], "test")
        await asyncio.sleep(0)
    sold = sum(answer.status == 201 for answer in await buying)
    assert sold <= await world.value("select total from stock_sku where sku = $1", KEY)
    assert sold == await world.value("select sum(quantity) from order_lines")


async def _times(world: World) -> tuple[dt.datetime, dt.datetime]:
    row = await world.pool.fetchrow("select starts_at, ends_at from sale")
    return row["starts_at"], row["ends_at"]


async def test_refusals_of_a_sale_are_in_the_ledger_when_its_workers_have_ended(world: World) -> None:
    shops = [await world.shop(), await world.shop()]
    await put_sale(world, 1, opens_in_s=3600)
    await followed(world, *shops)
    await asyncio.gather(*(shops[n % 2].place(f"k-{n}", of_sale()) for n in range(20)))
    await asyncio.gather(*(shop.place("everyday", order("UNKNOWN")) for shop in shops))
    for shop in shops:
        await shop.stop()
    _, refused = await sales.report(world.pool, SALE)
    assert refused == {"sale_not_open": 20}


async def test_refusals_of_a_sale_reach_the_ledger_while_the_worker_runs(world: World) -> None:
    shop = await world.shop()
    await put_sale(world, 1, opens_in_s=3600)
    await followed(world, shop)
    await shop.place("k-1", of_sale())

    async def is_counted() -> bool:
        return (await sales.report(world.pool, SALE))[1] == {"sale_not_open": 1}

    await eventually("the refusal is counted", is_counted)


async def test_price_of_a_sale_stays_when_the_catalogue_changes(world: World) -> None:
    shop = await world.shop()
    await put_sale(world, UNITS)
    await followed(world, shop)
    await shop.place("k-0", of_sale())
    await world.price(SKU, 300, title="NEW TITLE")
    numbers = iter(range(1, UNITS))

    async def has_new_title() -> bool:
        answer = await shop.place(f"k-{next(numbers)}", of_sale())
        item = msgspec.json.decode(answer.body)["items"][0]
        assert item["unit_price"] == PRICE
        return bool(item["title"] == "NEW TITLE")

    await eventually("the new title is sold", has_new_title)
