"""The merchant's total, and the shards it is spread over: both change while orders flow, and no change makes or loses
a unit.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from persistence.postgres import stock
from tests.ledger_world import World, draft, new_id, open_world


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def put(world: World, total: int, if_version: int | None = None) -> tuple[str, int, int]:
    return await stock.set_total(world.pool, "TEA", total, 4, "ann", "count", if_version)


async def shards(world: World) -> list[int]:
    return [
        row["free"] for row in await world.pool.fetch("select free from stock_shard where sku = 'TEA' order by shard")
    ]


async def test_set_of_a_new_sku_spreads_its_units_evenly(world: World) -> None:
    assert await put(world, 10) == ("set", 10, 1)
    assert await shards(world) == [3, 3, 2, 2]


async def test_set_up_adds_free_units(world: World) -> None:
    await put(world, 10)
    assert await put(world, 13) == ("set", 13, 2)
    assert await world.free("TEA") == 13


async def test_set_down_takes_free_units(world: World) -> None:
    await put(world, 10)
    assert await put(world, 4) == ("set", 4, 2)
    assert await world.free("TEA") == 4


async def test_set_down_to_what_is_held_leaves_nothing_free(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 3))])
    await world.close_lease(hand)
    assert await put(world, 3) == ("set", 3, 2)
    assert await world.free("TEA") == 0


@pytest.mark.parametrize("sold", [False, True], ids=["in_the_hand", "sold"])
async def test_set_below_what_is_held_changes_nothing(world: World, *, sold: bool) -> None:
    hand = await world.hand(units=10)
    if sold:
        await world.ledger().commit(new_id(), [draft((hand, 10))])
    assert await put(world, 9) == ("below_held", 10, 1)
    assert await world.count("stock_movement") == 1


async def test_set_up_settles_what_is_owed_first(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 10))])
    await world.pool.execute("update stock_sku set total = 4, owed = 6")
    await put(world, 8)
    assert (await world.value("select owed from stock_sku"), await world.free("TEA")) == (2, 0)
    await put(world, 15)
    assert (await world.value("select owed from stock_sku"), await world.free("TEA")) == (0, 5)


async def test_set_with_the_present_version_sets(world: World) -> None:
    await put(world, 10)
    assert await put(world, 11, if_version=1) == ("set", 11, 2)


async def test_set_with_another_version_changes_nothing(world: World) -> None:
    await put(world, 10)
    assert await put(world, 11, if_version=7) == ("version_mismatch", 10, 1)
    assert await world.free("TEA") == 10


async def test_set_of_an_unknown_sku_with_a_version_leaves_it_unknown(world: World) -> None:
    assert await put(world, 11, if_version=7) == ("version_mismatch", 0, 0)
    assert await world.count("stock_sku") == 0


async def test_set_writes_a_movement_with_actor_and_reason(world: World) -> None:
    await put(world, 10)
    await put(world, 4)
    rows = await world.pool.fetch("select delta, total, actor, reason from stock_movement order by movement_id")
    assert [tuple(row) for row in rows] == [(10, 10, "ann", "count"), (-6, 4, "ann", "count")]


async def test_set_to_the_same_total_moves_nothing(world: World) -> None:
    await put(world, 10)
    assert await put(world, 10) == ("set", 10, 2)
    assert await world.count("stock_movement") == 1


async def test_set_raises_the_version_of_every_shard(world: World) -> None:
    await put(world, 10)
    before = await world.value("select min(version) from stock_shard")
    await put(world, 20)
    assert await world.value("select min(version) from stock_shard") > before


async def test_set_of_a_new_sku_by_many_at_once_sets_it_once_each(world: World) -> None:
    outcomes = await asyncio.gather(*(put(world, 10) for _ in range(6)))
    assert sorted(version for _, _, version in outcomes) == [1, 2, 3, 4, 5, 6]
    assert await world.free("TEA") == 10


@pytest.mark.parametrize("count", [1, 3, 16])
async def test_reshard_keeps_every_unit(world: World, count: int) -> None:
    await put(world, 101)
    assert await stock.reshard(world.pool, "TEA", count) is True
    assert sum(await shards(world)) == 101


async def test_reshard_to_fewer_leaves_nothing_in_the_others(world: World) -> None:
    await put(world, 101)
    await stock.reshard(world.pool, "TEA", 2)
    assert await shards(world) == [51, 50, 0, 0]


async def test_reshard_of_an_unknown_sku_says_so(world: World) -> None:
    assert await stock.reshard(world.pool, "NONE", 4) is False


async def test_units_left_in_a_shard_beyond_the_number_of_shards_can_be_taken(world: World) -> None:
    await put(world, 8)
    await world.pool.execute("update stock_sku set shards = 1")
    assert (await world.take(await world.owner(), "TEA", 8)).units == 8


async def test_show_tells_free_and_leased_units(world: World) -> None:
    await put(world, 10)
    owner = await world.owner()
    await world.take(owner, "TEA", 4)
    (row,) = await stock.show(world.pool, ["TEA", "NONE"])
    assert (row["total"], row["owed"], row["shards"], sum(row["free"]), row["leased"]) == (10, 0, 4, 6, 4)
