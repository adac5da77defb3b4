"""A worker whose servers fail under it: nothing acknowledged is lost or doubled, nobody waits for ever, and it recovers
by itself.
"""

import asyncio

import pytest

from persistence.postgres.audit import audit
from tests.worker_world import Shop, World, code_of, eventually, open_world, order, order_id_of

BUYERS = 20


@pytest.fixture
async def world(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100_000)
        yield world
        await world.assert_clean()


async def drop_partitions(world: World) -> None:
    partitions = "select inhrelid::regclass::text as name from pg_inherits where inhparent = 'orders'::regclass"
    for row in await world.pool.fetch(partitions):
        await world.pool.execute(f"drop table {row['name']}")


async def partitions_lie_ahead(world: World) -> bool:
    report = await audit(world.postgres_url)
    return not any(finding.count for finding in report.findings if finding.check == "partitions_are_ahead")


async def keep_buying(shop: Shop, buyer: int, over: asyncio.Event) -> list[str]:
    """Order after order, each until it is accepted. Returns what was acknowledged."""
    bought: list[str] = []
    while not over.is_set():
        bought.append(order_id_of(await shop.buy(f"{buyer}-{len(bought)}")))
    return bought


async def events_match_orders(world: World) -> None:
    """The stream has each order's event, once."""
    await eventually("the outbox is empty", world.outbox_is_empty)
    events = [event.id for event in await world.events()]
    assert sorted(events) == sorted(f"{order_id}.1" for order_id in await world.order_ids())


async def test_worker_whose_backends_are_ended_loses_and_doubles_nothing(world: World):
    world.steward()
    shop = await world.shop()
    over = asyncio.Event()
    buying = [asyncio.create_task(keep_buying(shop, buyer, over)) for buyer in range(BUYERS)]
    ended = 0
    while ended < 10 or shop.services.counters.orders <= 2 * BUYERS:
        await asyncio.sleep(0.05)
        await world.end_backends()
        ended += 1
    over.set()
    bought = [order_id for orders in await asyncio.gather(*buying) for order_id in orders]
    assert len(bought) > BUYERS
    assert sorted(bought) == sorted(await world.order_ids())
    order_id_of(await shop.buy("after"))  # The last connection that was ended may still be made again.
    await events_match_orders(world)


async def test_worker_without_a_partition_is_ledger_away_and_recovers_when_there_is_one(world: World):
    shop = await world.shop(orders__reply_ms_max=300)
    await drop_partitions(world)
    answer = await shop.place()
    assert (answer.status, code_of(answer)) == (503, "ledger_away")
    world.steward()
    order_id_of(await shop.buy("k-1"))
    assert await world.count("orders") == 1
    # The first partition lets the order in; the steward goes on with the rest.
    await eventually("the partitions lie ahead", lambda: partitions_lie_ahead(world))


async def test_worker_whose_stream_is_away_takes_orders_and_the_steward_sends_their_events(world: World, nats_server):
    shop = await world.shop()
    nats_server.kill()
    try:
        bought = [order_id_of(await shop.place(f"k-{number}")) for number in range(20)]
        assert await world.count("outbox") > 0
    finally:
        nats_server.start()  # In this thread, since a server dies with the thread that started it.
        nats_server.wait_ready()
    world.steward()
    await events_match_orders(world)
    assert set(bought) == await world.order_ids()


async def test_worker_that_starts_without_its_ledger_says_so_and_takes_orders_once_it_is_there(world: World):
    await world.pool.execute("alter table worker rename to elsewhere")
    shop = await world.shop(ready=False)
    answer = await shop.place(token=world.token)
    assert (answer.status, code_of(answer)) == (503, "ledger_away")
    await world.pool.execute("alter table elsewhere rename to worker")
    order_id_of(await shop.buy("k-1"))


async def test_worker_commit_that_hangs_is_answered_in_time_and_settled_afterwards(world: World):
    shop = await world.shop(orders__reply_ms_max=300)
    async with world.pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("lock table order_history in exclusive mode")
            answer = await shop.place("k-1")
            assert (answer.status, code_of(answer)) == (503, "ledger_away")
        order_id_of(await shop.buy("k-1"))
    assert await world.count("orders") == 1


@pytest.mark.parametrize("orders", [1, 300])
async def test_worker_that_is_stopped_under_load_returns_every_lease_and_keeps_every_order(world: World, orders: int):
    shop = await world.shop()
    placing = [asyncio.create_task(shop.place(f"k-{number}")) for number in range(orders)]
    placing += [asyncio.create_task(shop.place("too-many", order(quantity=100_001)))]
    await asyncio.sleep(0)
    while not any(task.done() for task in placing):
        await asyncio.sleep(0)
    placing += [asyncio.create_task(shop.place(f"late-{number}")) for number in range(orders)]
    await asyncio.sleep(0)
    await shop.stop()
    answers = await asyncio.gather(*placing)
    acknowledged = {order_id_of(answer) for answer in answers if answer.status == 201}
    assert {answer.status for answer in answers} <= {201, 409, 503}
    assert acknowledged == await world.order_ids()
    assert await world.active_leases() == 0
    assert await world.value("select array_agg(distinct state) from worker") == ["left"]


async def test_worker_that_is_stopped_answers_who_waits_for_stock(world: World):
    other, shop = await world.shop(), await world.shop()
    order_id_of(await other.place("some", order(quantity=1)))
    waiting = asyncio.create_task(shop.place("all-that-is-left", order(quantity=99_999)))
    await eventually("the order is parked", lambda: asyncio.sleep(0, shop.services.leases.parked))
    await shop.stop()
    assert code_of(await waiting) == "ledger_away"


async def test_worker_that_stops_with_the_stream_silent_gives_its_units_back_before_it_waits_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await world.shop()
    answered = asyncio.Event()

    async def publish(*_: object) -> None:
        await answered.wait()

    monkeypatch.setattr(shop.services.stream, "publish", publish)
    order_id_of(await shop.place("k-1"))
    assert await world.active_leases() > 0
    stopping = asyncio.create_task(shop.stop())
    await eventually("the units are given back", lambda: _no_leases(world))
    assert not stopping.done()
    answered.set()
    await stopping


async def _no_leases(world: World) -> bool:
    return await world.active_leases() == 0
