"""Taking stock: large while there is plenty, exactly the need or nothing in the tail, once per lease id, for the living
only.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from persistence.errors import OwnerNotAliveError
from persistence.postgres import control, stock
from tests.ledger_world import World, new_id, open_world


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def take(world: World, sku: str, units_min: int, units_max: int, home: int = 0) -> stock.Taken:
    (taken,) = await stock.take(
        world.control, await world.owner(), home, [stock.Want(new_id(), sku, units_min, units_max)]
    )
    return taken


async def test_take_with_plenty_grants_what_is_convenient(world: World) -> None:
    await world.stock("TEA", 10_000)
    taken = await take(world, "TEA", 1, 500)
    assert (taken.units, taken.free, taken.outstanding) == (500, None, None)


async def test_take_with_plenty_touches_the_home_shard_alone(world: World) -> None:
    await world.stock("TEA", 40_000, shards=4)
    await take(world, "TEA", 1, 500, home=6)
    rows = await world.pool.fetch("select free, version from stock_shard order by shard")
    assert [tuple(row) for row in rows] == [(10_000, 2), (10_000, 2), (9_500, 3), (10_000, 2)]


async def test_take_never_grants_more_than_a_quarter_of_the_home_shard(world: World) -> None:
    await world.stock("TEA", 400)
    assert (await take(world, "TEA", 1, 500)).units == 100


async def test_take_with_a_drained_home_shard_and_plenty_elsewhere_grants_what_is_convenient(world: World) -> None:
    await world.stock("TEA", 4000, shards=4)
    await world.pool.execute("update stock_shard set free = case shard when 0 then 0 when 1 then 2000 else 1000 end")
    taken = await take(world, "TEA", 1, 500, home=0)
    assert (taken.units, taken.free) == (500, None)


async def test_take_in_the_tail_grants_exactly_the_need_and_says_what_is_left(world: World) -> None:
    await world.stock("TEA", 50, shards=4)
    await take(world, "TEA", 20, 500)
    taken = await take(world, "TEA", 7, 500)
    assert (taken.units, taken.free, taken.outstanding) == (7, 23, 27)


async def test_take_in_the_tail_of_all_that_is_left_grants_it(world: World) -> None:
    await world.stock("TEA", 50, shards=16)
    taken = await take(world, "TEA", 50, 500)
    assert (taken.units, taken.free, taken.outstanding) == (50, 0, 50)


async def test_take_in_the_tail_of_more_than_is_free_grants_nothing_and_says_what_exists(world: World) -> None:
    await world.stock("TEA", 50, shards=4)
    await take(world, "TEA", 45, 45)
    taken = await take(world, "TEA", 7, 500)
    assert (taken.units, taken.free, taken.outstanding) == (0, 5, 45)


async def test_take_counts_sold_units_as_gone(world: World) -> None:
    hand = await world.hand("TEA", 50)
    await world.pool.execute("update stock_lease set used = 20")
    taken = await take(world, "TEA", 1, 500)
    assert (taken.units, taken.free, taken.outstanding) == (0, 0, 30)
    await world.pool.execute("update stock_lease set used = 0")
    assert await world.lease(hand) == (50, 0, "active")


async def test_take_ahead_of_need_in_the_tail_takes_nothing(world: World) -> None:
    await world.stock("TEA", 50)
    assert (await take(world, "TEA", 0, 500)).units == 0
    assert await world.free("TEA") == 50


async def test_take_ahead_of_need_with_plenty_grants_what_is_convenient(world: World) -> None:
    await world.stock("TEA", 4000, shards=4)
    assert (await take(world, "TEA", 0, 200)).units == 200


async def test_take_asked_again_with_the_same_lease_id_answers_what_was_granted(world: World) -> None:
    await world.stock("TEA", 50)
    owner, wants = await world.owner(), [stock.Want(new_id(), "TEA", 7, 500)]
    first = await stock.take(world.control, owner, 0, wants)
    again = await stock.take(world.control, owner, 0, wants)
    assert [taken.units for taken in (*first, *again)] == [7, 7]
    assert await world.free("TEA") == 43


@pytest.mark.parametrize("units", [30, 4000], ids=["tail", "plenty"])
async def test_take_asked_again_while_the_first_one_still_runs_takes_once(world: World, units: int) -> None:
    await world.stock("TEA", units)
    owner, wants = await world.owner(), [stock.Want(new_id(), "TEA", 7, 7)]
    sessions = [world.session("fg-control") for _ in range(4)]
    answers = await asyncio.gather(*(stock.take(session, owner, 0, wants) for session in sessions))
    for session in sessions:
        await session.close()
    assert [taken.units for (taken,) in answers] == [7] * 4
    assert await world.free("TEA") == units - 7


async def test_take_of_several_skus_answers_each(world: World) -> None:
    for sku, units in (("A", 10), ("b", 1000), ("茶", 3)):
        await world.stock(sku, units)
    wants = [stock.Want(new_id(), sku, 5, 100) for sku in ("茶", "b", "A")]
    taken = {answer.sku: answer for answer in await stock.take(world.control, await world.owner(), 0, wants)}
    assert {sku: answer.units for sku, answer in taken.items()} == {"A": 5, "b": 100, "茶": 0}
    assert {answer.lease for answer in taken.values()} == {want.lease for want in wants}


async def test_take_of_an_unknown_sku_grants_nothing_of_nothing(world: World) -> None:
    taken = await take(world, "NONE", 1, 100)
    assert (taken.units, taken.free, taken.outstanding) == (0, 0, 0)


@pytest.mark.parametrize("state", ["dead", "left"])
async def test_take_by_an_owner_that_is_not_alive_raises(world: World, state: str) -> None:
    await world.stock("TEA", 50)
    owner = await world.owner()
    await world.pool.execute("update worker set state = $1", state)
    with pytest.raises(OwnerNotAliveError):
        await stock.take(world.control, owner, 0, [stock.Want(new_id(), "TEA", 1, 1)])
    assert await world.free("TEA") == 50


async def test_take_by_an_owner_that_is_not_registered_raises(world: World) -> None:
    with pytest.raises(OwnerNotAliveError):
        await stock.take(world.control, str(uuid.uuid4()), 0, [stock.Want(new_id(), "TEA", 1, 1)])


async def test_register_asked_twice_changes_nothing(world: World) -> None:
    owner = await world.owner()
    await world.pool.execute("update worker set state = 'dead'")
    await control.register(world.control, owner, "host", 1, 0)
    assert await world.value("select state from worker") == "dead"
