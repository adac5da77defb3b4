"""The steward's relay: what no worker got acknowledged is sent from the tables, with the same ids and bytes, once in
effect.
"""

import pytest

from tests.worker_world import World, eventually, open_world, order_id_of

# What a worker leaves behind that died between its commit and the stream's ack.
LEAVE = """
insert into outbox (batch_id, order_ids, versions, created_at)
select batch_id, array_agg(order_id), array_agg(1), clock_timestamp() - interval '1 minute'
from batch cross join orders group by batch_id limit 1
"""


@pytest.fixture
async def world(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        yield world
        await world.assert_clean()


async def test_relay_sends_events_that_the_stream_has_already_without_effect(world: World):
    shop = await world.shop()
    for number in range(3):
        order_id_of(await shop.place(f"k-{number}"))
    await eventually("the outbox is empty", world.outbox_is_empty)
    before = await world.events()
    await world.pool.execute(LEAVE)
    world.steward()
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert await world.events() == before


async def test_relay_sends_the_same_bytes_as_the_worker(world: World, postgres_url, nats_url):
    shop = await world.shop()
    for number in range(3):
        order_id_of(await shop.place(f"k-{number}"))
    await eventually("the outbox is empty", world.outbox_is_empty)
    before = await world.events()
    await forget_events(world)
    await world.pool.execute(LEAVE)
    world.steward()
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert sorted(await world.events()) == sorted(before)


async def test_relays_that_run_at_once_send_each_event_once_in_effect(world: World):
    shop = await world.shop()
    for number in range(5):
        order_id_of(await shop.place(f"k-{number}"))
    await eventually("the outbox is empty", world.outbox_is_empty)
    await forget_events(world)
    await world.pool.execute(LEAVE)
    for _ in range(3):
        world.steward()
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert len(await world.events()) == 5


async def forget_events(world: World) -> None:
    """Make the stream anew: it knows no event and no id."""
    await world.remove_stream()
    await world.make_stream()
