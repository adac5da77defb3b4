"""The steward and the dead: a silent owner's units come back, and what it sells afterwards is fenced and found anew."""

import asyncio
from typing import Any

import pytest

from tests.worker_world import World, eventually, open_world, order, order_id_of

# Beats once, at its start; what it thinks itself of its time-out is nothing to the steward.
SILENT: dict[str, Any] = {"owner__heartbeat_ms": 60_000, "owner__timeout_ms": 180_000}


@pytest.fixture
async def world(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        yield world
        await world.assert_clean()


async def no_active_leases(world: World) -> bool:
    return await world.active_leases() == 0


async def bury(world: World) -> None:
    world.steward(owner__timeout_ms=300)
    await eventually("the leases are closed", lambda: no_active_leases(world))


async def test_steward_returns_the_units_of_a_silent_owner(world: World):
    shop = await world.shop(**SILENT)
    order_id_of(await shop.place())
    assert await world.active_leases() == 1
    await bury(world)
    assert await world.value("select sum(free) from stock_shard") == 99
    assert await world.value("select state from worker") == "dead"


async def test_steward_leaves_an_owner_alone_that_beats(world: World):
    shop = await world.shop()
    order_id_of(await shop.place())
    world.steward()
    await bury_another(world)
    assert await world.value("select state from worker where owner = $1", shop.services.leases.owner) == "alive"
    assert await world.active_leases() == 1


async def bury_another(world: World) -> None:
    """Let the steward bury somebody, which shows that it has looked."""
    await world.pool.execute(
        "insert into worker (owner, host, pid, lane, seen_at) "
        "values ('00000000-0000-4000-8000-000000000001', 'h', 1, 0, clock_timestamp() - interval '1 hour')"
    )
    gone = "select state = 'dead' from worker where owner = '00000000-0000-4000-8000-000000000001'"
    await eventually("the other is dead", lambda: world.value(gone))


async def test_steward_buried_worker_sells_on_under_a_new_owner(world: World):
    shop = await world.shop(**SILENT)
    order_id_of(await shop.place("before"))
    zombie = shop.services.leases.owner
    await bury(world)
    placing = asyncio.create_task(shop.place("after"))
    await eventually("the order is fenced", lambda: asyncio.sleep(0, shop.services.counters.fenced))
    await shop.services.heart.beat()
    await shop.services.heart.beat()
    order_id_of(await placing)
    assert shop.services.leases.owner != zombie
    assert await world.count("orders") == 2


async def test_steward_buried_worker_cannot_sell_units_that_another_has_bought(world: World):
    zombie, other = await world.shop(**SILENT), await world.shop()
    order_id_of(await zombie.place("before"))
    await bury(world)
    order_id_of(await other.buy("all", order(quantity=99)))
    placing = asyncio.create_task(zombie.place("after"))
    await eventually("the order is fenced", lambda: asyncio.sleep(0, zombie.services.counters.fenced))
    await zombie.services.heart.beat()
    await zombie.services.heart.beat()
    assert (await placing).status == 409
    assert await world.count("orders") == 2
