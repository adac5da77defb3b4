"""Units on their way back: given by whoever holds them, once although asked twice; taken back from whoever is closed;
never units that are sold.
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


async def test_give_moves_units_from_the_lease_to_free(world: World) -> None:
    hand = await world.hand(units=10)
    assert await stock.give(world.control, 0, [stock.Give(hand.lease, 10, 4)]) == {hand.lease}
    assert await world.free("TEA") == 4
    assert await world.lease(hand) == (6, 0, "active")


async def test_give_asked_twice_moves_units_once_and_says_so_twice(world: World) -> None:
    hand = await world.hand(units=10)
    for _ in range(2):
        assert await stock.give(world.control, 0, [stock.Give(hand.lease, 10, 4)]) == {hand.lease}
    assert await world.free("TEA") == 4


async def test_give_asked_many_times_at_once_moves_units_once(world: World) -> None:
    hand = await world.hand(units=10)
    sessions = [world.session("fg-control") for _ in range(4)]
    answers = await asyncio.gather(*(stock.give(session, 0, [stock.Give(hand.lease, 10, 4)]) for session in sessions))
    for session in sessions:
        await session.close()
    assert answers == [{hand.lease}] * 4
    assert await world.free("TEA") == 4


async def test_give_of_all_that_is_unsold_closes_the_lease(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 3))])
    await stock.give(world.control, 0, [stock.Give(hand.lease, 10, 7)])
    assert await world.lease(hand) == (3, 3, "closed")


async def test_give_of_sold_units_is_refused(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 3))])
    assert await stock.give(world.control, 0, [stock.Give(hand.lease, 10, 8)]) == set()
    assert await world.free("TEA") == 0


async def test_give_from_a_closed_lease_is_refused(world: World) -> None:
    hand = await world.hand(units=10)
    await world.close_lease(hand)
    assert await stock.give(world.control, 0, [stock.Give(hand.lease, 10, 4)]) == set()
    assert await world.free("TEA") == 10


async def test_give_that_names_another_old_value_is_refused(world: World) -> None:
    hand = await world.hand(units=10)
    assert await stock.give(world.control, 0, [stock.Give(hand.lease, 9, 4)]) == set()
    assert await world.free("TEA") == 0


async def test_give_of_several_leases_and_skus_gives_those_it_can(world: World) -> None:
    tea, pot = await world.hand("TEA", 10), await world.hand("POT", 10)
    gives = [stock.Give(tea.lease, 10, 4), stock.Give(pot.lease, 5, 4)]
    assert await stock.give(world.control, 0, gives) == {tea.lease}
    assert (await world.free("TEA"), await world.free("POT")) == (4, 0)


async def test_give_goes_to_the_home_shard(world: World) -> None:
    await world.stock("TEA", 10, shards=4)
    hand = await world.take(await world.owner(), "TEA", 10)
    await stock.give(world.control, 7, [stock.Give(hand.lease, 10, 4)])
    rows = await world.pool.fetch("select shard from stock_shard where free = 4")
    assert [row["shard"] for row in rows] == [3]


async def test_close_frees_what_is_unsold_and_nothing_else(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 3))])
    assert await stock.close(world.control, 0, await world.owner_of(hand), [hand.lease]) == 7
    assert await world.free("TEA") == 7
    assert await world.lease(hand) == (3, 3, "closed")


async def test_close_asked_twice_frees_units_once(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    assert [await stock.close(world.control, 0, owner, [hand.lease]) for _ in range(2)] == [10, 0]
    assert await world.free("TEA") == 10


async def test_close_leaves_other_leases_of_the_owner_alone(world: World) -> None:
    await world.stock("TEA", 10)
    owner = await world.owner()
    one, other = await world.take(owner, "TEA", 4), await world.take(owner, "TEA", 6)
    await stock.close(world.control, 0, owner, [one.lease])
    assert await world.lease(other) == (6, 0, "active")


async def test_close_of_somebody_elses_lease_does_nothing(world: World) -> None:
    hand = await world.hand(units=10)
    assert await stock.close(world.control, 0, await world.owner(), [hand.lease]) == 0
    assert await world.lease(hand) == (10, 0, "active")


async def test_close_during_a_commit_frees_what_the_commit_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    committed, freed = await asyncio.gather(
        world.ledger(owner).commit(new_id(), [draft((hand, 3))]), stock.close(world.control, 0, owner, [hand.lease])
    )
    assert freed == (10 if committed else 7)
