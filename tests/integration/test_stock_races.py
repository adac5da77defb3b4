"""Stock under contention: the last units all find a buyer, and no mixture of takes, gives, sets and reshards deadlocks
or loses a unit.
"""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator

import pytest

from persistence.postgres import stock
from tests.ledger_world import Hand, World, draft, new_id, open_world

UNITS = 100
TAKERS = 4
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
TAKE_ONE = "select granted, free_left, outstanding from stock_take($1, 0, $2, '{TEA}', '{1}', '{1}')"
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
SOLD = "select coalesce(sum(quantity), 0)::bigint from order_lines"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def sell_out(world: World, home: int, quantity: int) -> None:
    """A worker sells orders of `quantity` units until fewer exist; what it cannot sell it gives back."""
    owner, session = await world.owner(), world.session(f"fg-taker-{home}")
    lane = world.ledger(owner)
    while True:
        (taken,) = await stock.take(session, owner, home, [stock.Want(new_id(), "TEA", quantity, 10 * quantity)])
        if not taken.units:
            assert taken.free is not None
            assert taken.outstanding is not None
            if taken.free + taken.outstanding < quantity:
                break
            await asyncio.sleep(0.001)
            continue
        hand = Hand(taken.lease, "TEA", taken.units)
        orders = [draft((hand, quantity)) for _ in range(taken.units // quantity)]
        assert await lane.commit(new_id(), orders) == []
        rest = taken.units % quantity
        if rest:
            assert await stock.give(session, home, [stock.Give(hand.lease, taken.units, rest)]) == {hand.lease}
    await session.close()


@pytest.mark.parametrize("shards", [1, 3, 16])
@pytest.mark.parametrize("quantity", [1, 7])
async def test_take_by_several_until_sold_out_sells_every_unit_that_can_be_sold(
    world: World, shards: int, quantity: int
) -> None:
    await world.stock("TEA", UNITS, shards)
    await asyncio.gather(*(sell_out(world, home, quantity) for home in range(TAKERS)))
    assert await world.value(SOLD) == UNITS // quantity * quantity


@pytest.mark.parametrize("shards", [1, 3, 16])
async def test_take_by_those_who_want_much_and_those_who_want_one_sells_the_last_unit(
    world: World, shards: int
) -> None:
    await world.stock("TEA", UNITS, shards)
    await asyncio.gather(*(sell_out(world, home, (1, 7)[home % 2]) for home in range(TAKERS)))
    assert await world.value(SOLD) == UNITS


async def test_take_beside_sets_and_reshards_never_deadlocks(world: World) -> None:
    """Takers of several SKUs on different home shards, around the border between plenty and tail, while totals and
    shards change.
    """
    skus = ("A", "B", "C")
    for sku in skus:
        await world.stock(sku, 2000, shards=6)
    choose = random.Random(5)
    stop = asyncio.Event()

    async def take(home: int) -> None:
        owner, session = await world.owner(), world.session("fg-taker")
        while not stop.is_set():
            wants = [stock.Want(new_id(), sku, choose.choice((0, 1, 5)), 40) for sku in choose.sample(skus, 2)]
            taken = [answer for answer in await stock.take(session, owner, home, wants) if answer.units]
            await stock.close(session, choose.randrange(6), owner, [answer.lease for answer in taken])
        await session.close()

    async def change() -> None:
        for _ in range(250):
            sku = choose.choice(skus)
            if choose.random() < 0.3:
                await stock.reshard(world.pool, sku, choose.randint(1, 12))
            else:
                await stock.set_total(world.pool, sku, choose.choice((300, 400, 2000)), 6, "merchant", None, None)
        stop.set()

    await asyncio.gather(change(), *(take(home) for home in range(6)))
    assert await world.value(DEADLOCKS) == 0


async def test_take_that_waits_for_a_reshard_locks_the_new_shards_too(world: World) -> None:
    """What it says about the units left is a statement about all shards, so it has to hold them all."""
    await world.stock("TEA", 30, shards=1)
    owner = uuid.UUID(await world.owner())
    async with world.pool.acquire() as resharder, world.pool.acquire() as taker:
        reshard = resharder.transaction()
        await reshard.start()
        await resharder.execute("select stock_reshard('TEA', 3)")
        async with taker.transaction():
            lease = uuid.UUID(bytes=new_id())
            take = asyncio.create_task(taker.fetchrow(TAKE_ONE, owner, [lease]))
            await world.until(WAITING, 1)
            await reshard.commit()
            row = await take
            assert (row["granted"], row["free_left"], row["outstanding"]) == (1, 29, 1)
            assert await world.pool.fetch("select shard from stock_shard for update skip locked") == []
