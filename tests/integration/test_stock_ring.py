"""The ledger's bell: whoever follows it hears every call, however many ring at once, and none twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from persistence.postgres import stock
from tests.ledger_world import World, open_world


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world


class Follower:
    """Whoever follows the bell: notes what it hears."""

    def __init__(self, connection: asyncpg.Connection, revision: int) -> None:
        self.connection, self.revision = connection, revision
        self.heard: list[str] = []

    async def follow(self) -> Sequence[str]:
        self.revision, skus = await stock.rung(self.connection, self.revision)
        self.heard += skus
        return skus


@pytest.fixture
async def followers(world: World) -> AsyncIterator[list[Follower]]:
    async with world.pool.acquire() as one, world.pool.acquire() as other:
        yield [Follower(one, 0), Follower(other, 0)]


async def test_ring_is_heard_once_by_each_follower(world: World, followers: list[Follower]) -> None:
    await stock.ring(world.control, ["B", "A"])
    for follower in followers:
        await follower.follow()
        await follower.follow()
        assert sorted(follower.heard) == ["A", "B"]


async def test_ring_for_a_sku_again_is_heard_again(world: World, followers: list[Follower]) -> None:
    for _ in range(2):
        await stock.ring(world.control, ["A"])
        assert await followers[0].follow() == ["A"]
    assert (followers[0].revision, await world.count("stock_wanted")) == (2, 1)


async def test_ring_is_not_heard_by_those_who_follow_from_later_on(world: World, followers: list[Follower]) -> None:
    await stock.ring(world.control, ["A"])
    await followers[0].follow()
    await stock.ring(world.control, ["B"])
    assert await followers[0].follow() == ["B"]


async def test_ring_by_several_at_once_is_heard_of_each(world: World, followers: list[Follower]) -> None:
    ringers, rings = 4, 15
    done = asyncio.Event()

    async def ring(ringer: int) -> None:
        session = world.session("fg-bell")
        for number in range(rings):
            await stock.ring(session, [f"OWN-{ringer}-{number}", "SHARED"])
        await session.close()

    async def follow(follower: Follower) -> None:
        while not done.is_set():
            await follower.follow()
        await follower.follow()

    following = [asyncio.create_task(follow(follower)) for follower in followers]
    await asyncio.gather(*(ring(ringer) for ringer in range(ringers)))
    done.set()
    await asyncio.gather(*following)
    own = sorted(f"OWN-{ringer}-{number}" for ringer in range(ringers) for number in range(rings))
    for follower in followers:
        assert sorted(sku for sku in follower.heard if sku != "SHARED") == own
        assert "SHARED" in follower.heard
        assert follower.revision == ringers * rings
