"""The worker's end of the mirror: what is sent is bounded and never waited for, what is lost is counted, and only calls
of this worker's lifetime are heard.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from gateway.bell import Bell
from gateway.tasks import Tasks
from persistence.errors import MirrorUnavailableError
from persistence.postgres.stock import Shard
from persistence.redis import mirror as redis
from persistence.redis.mirror import Mirror, Pool, Ring
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import FakeSession, turns

NOW_MS = int(START_S * 1000)


class FakeMirror(Mirror):
    """Keeps what it is sent, in `sent` the order of it, unless `away`; while `held`, sending waits. `pools` is what it
    knows.
    """

    def __init__(self) -> None:
        super().__init__("redis://127.0.0.1:1")
        self.away = False
        self.away_for_rings = False
        self.pushes: list[list[redis.Shard]] = []
        self.rings: list[Ring] = []
        self.sent: list[str] = []
        self.pools: dict[str, Pool] = {}
        self.held = asyncio.Event()
        self.held.set()

    async def push(self, shards: Sequence[redis.Shard]) -> None:
        await self._answer(away=self.away)
        self.pushes.append(list(shards))
        self.sent.append("push")

    async def ring(self, rings: Sequence[Ring]) -> None:
        await self._answer(away=self.away or self.away_for_rings)
        self.rings += rings
        self.sent.append("ring")

    async def read(self, skus: Sequence[str], now_ms: int) -> dict[str, Pool]:
        assert now_ms == NOW_MS
        await self._answer(away=self.away)
        return {sku: self.pools[sku] for sku in skus if sku in self.pools}

    async def listen(self, heard: Callable[[Ring], None]) -> None:
        heard(Ring("wanted", "A"))
        heard(Ring("freed", "B"))

    async def _answer(self, *, away: bool) -> None:
        await self.held.wait()
        if away:
            raise MirrorUnavailableError("Redis did not answer")

    @property
    def shards(self) -> list[tuple[Any, ...]]:
        return [tuple(shard) for push in self.pushes for shard in push]


class FakeRung:
    """The ledger's bell: SKU -> the revision at which it was last asked for."""

    def __init__(self) -> None:
        self.value = 0
        self.wanted: dict[str, int] = {}

    def ring(self, *skus: str) -> None:
        self.value += 1
        self.wanted |= dict.fromkeys(skus, self.value)

    async def execute(self, text: str, skus: Sequence[str]) -> None:
        assert "stock_ring" in text, text
        self.ring(*skus)

    async def fetchval(self, text: str, topic: str) -> int:
        assert "from revision" in text, text
        assert topic == "bell"
        return self.value

    async def fetch(self, text: str, after: int) -> list[dict[str, Any]]:
        assert "from stock_wanted" in text, text
        return [{"sku": sku, "revision": revision} for sku, revision in self.wanted.items() if revision > after]


class World:
    """A bell between a mirror and a ledger. What waits is sent from `start` on."""

    def __init__(self) -> None:
        self.mirror, self.rung = FakeMirror(), FakeRung()
        self.session = FakeSession(self.rung)
        self.bell = Bell(self.session, self.mirror)
        self.heard: list[Ring] = []
        self.bell.attach(self.heard.append)
        self.tasks = Tasks()

    async def start(self) -> None:
        self.tasks.loop("bell", self.bell.run)
        await turns()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.tasks.close(wait_s=0)
    await world.mirror.close()
    assert world.tasks.failures == 0


async def test_bell_push_reaches_the_mirror(world: World) -> None:
    await world.start()
    world.bell.push([Shard("A", 0, 5, 2), Shard("A", 1, 6, 7)])
    await turns()
    assert world.mirror.shards == [("A", 0, 5, 2), ("A", 1, 6, 7)]


@pytest.mark.parametrize("versions", [(3, 4), (4, 3)], ids=["in order", "out of order"])
async def test_bell_push_keeps_the_highest_version_of_a_shard(world: World, versions: tuple[int, int]) -> None:
    for version in versions:
        world.bell.push([Shard("A", 0, 10 * version, version)])
    world.bell.push([Shard("A", 1, 1, 1), Shard("B", 0, 2, 1)])
    await world.start()
    assert sorted(world.mirror.shards) == [("A", 0, 40, 4), ("A", 1, 1, 1), ("B", 0, 2, 1)]


async def test_bell_push_while_the_mirror_hangs_waits_for_nothing_and_is_sent_later(world: World) -> None:
    world.mirror.held.clear()
    world.bell.push([Shard("A", 0, 9, 1)])
    await world.start()
    for version in (2, 3):
        world.bell.push([Shard("A", 0, 9 - version, version)])
    await turns()
    assert world.mirror.shards == []
    world.mirror.held.set()
    await turns()
    assert world.mirror.shards == [("A", 0, 9, 1), ("A", 0, 6, 3)]


async def test_bell_push_of_more_than_may_wait_drops_the_rest_and_counts_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.bell.PENDING_MAX", 2)
    world.bell.push([Shard(sku, 0, 1, 1) for sku in "ABCD"])
    world.bell.push([Shard("A", 0, 7, 2)])  # Known already: it takes no room.
    assert world.bell.dropped == 2
    await world.start()
    assert world.mirror.shards == [("A", 0, 7, 2), ("B", 0, 1, 1)]


async def test_bell_calls_of_more_than_may_wait_are_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.bell.PENDING_MAX", 2)
    for sku in "ABC":
        world.bell.call(sku)
    await world.start()
    assert world.mirror.rings == [Ring("wanted", "A"), Ring("wanted", "B")]


async def test_bell_sends_in_bounded_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.bell.BATCH_MAX", 2)
    world.bell.push([Shard("A", number, 1, 1) for number in range(5)])
    await world.start()
    assert [len(push) for push in world.mirror.pushes] == [2, 2, 1]


async def test_bell_rings_each_call_once_while_it_waits(world: World) -> None:
    for _ in range(3):
        world.bell.call("A")
        world.bell.freed("A")
    await world.start()
    assert world.mirror.rings == [Ring("wanted", "A"), Ring("freed", "A")]
    world.bell.call("A")
    await turns()
    assert world.mirror.rings[2:] == [Ring("wanted", "A")]


async def test_bell_tells_the_shards_before_it_says_that_units_are_free(world: World) -> None:
    """Who hears of the units asks the mirror whether they are enough."""
    world.bell.freed("A")
    world.bell.push([Shard("A", 0, 5, 2)])
    await world.start()
    assert world.mirror.sent == ["push", "ring"]


async def test_bell_while_the_mirror_is_away_loses_pushes_and_calls_and_counts_them(world: World) -> None:
    world.mirror.away = True
    await world.start()
    world.bell.push([Shard("A", 0, 5, 2), Shard("B", 0, 5, 2)])
    world.bell.call("A")
    await turns()
    assert world.bell.dropped == 3
    world.mirror.away = False
    world.bell.push([Shard("A", 0, 4, 3)])
    await turns()
    assert (world.mirror.shards, world.mirror.rings) == ([("A", 0, 4, 3)], [])
    assert world.bell.dropped == 3


async def test_bell_that_loses_calls_alone_counts_no_pushes(world: World) -> None:
    world.mirror.away_for_rings = True
    await world.start()
    world.bell.push([Shard("A", 0, 5, 2), Shard("B", 0, 5, 2)])
    world.bell.call("A")
    await turns()
    assert len(world.mirror.shards) == 2
    assert world.bell.dropped == 1


async def test_bell_without_a_mirror_queues_nothing() -> None:
    bell = Bell(FakeSession(FakeRung()), None)
    bell.push([Shard("A", 0, 5, 2)])
    bell.call("A")
    bell.freed("A")
    assert (bell._shards, bell._rings, bell.dropped, bell.listening) == ({}, {}, 0, False)
    await bell.listen()


async def test_bell_free_tells_what_the_mirror_knows(world: World) -> None:
    world.mirror.pools = {"A": Pool(7, 3, None), "B": Pool(0, 1, 5)}
    assert await world.bell.free(["A", "B", "C"], NOW_MS) == {"A": 7, "B": 0}


async def test_bell_free_while_the_mirror_is_away_knows_nothing(world: World) -> None:
    world.mirror.pools = {"A": Pool(7, 3, None)}
    world.mirror.away = True
    assert await world.bell.free(["A"], NOW_MS) == {}


async def test_bell_free_without_a_mirror_knows_nothing() -> None:
    assert await Bell(FakeSession(FakeRung()), None).free(["A"], NOW_MS) == {}


async def test_bell_listen_tells_what_others_ring(world: World) -> None:
    await world.bell.listen()
    assert world.heard == [Ring("wanted", "A"), Ring("freed", "B")]


async def test_bell_call_by_ledger_rings_there(world: World) -> None:
    await world.bell.call_by_ledger(["A", "B"])
    assert world.rung.wanted == {"A": 1, "B": 1}
    assert world.mirror.rings == []


async def test_bell_call_by_a_ledger_that_is_away_is_lost(world: World) -> None:
    world.session.away = True
    await world.bell.call_by_ledger(["A"])
    assert world.rung.wanted == {}


async def test_bell_load_hears_nothing_that_was_called_before_the_first(world: World) -> None:
    world.rung.ring("A", "B")
    assert await world.bell.load(world.rung) == 1
    assert world.heard == []


async def test_bell_load_hears_calls_that_came_after_the_first(world: World) -> None:
    world.rung.ring("A")
    await world.bell.load(world.rung)
    world.rung.ring("B", "C")
    assert await world.bell.load(world.rung) == 2
    assert world.heard == [Ring("wanted", "B"), Ring("wanted", "C")]


async def test_bell_load_hears_the_first_call_ever(world: World) -> None:
    await world.bell.load(world.rung)
    world.rung.ring("A")
    await world.bell.load(world.rung)
    assert world.heard == [Ring("wanted", "A")]


async def test_bell_load_hears_each_call_once(world: World) -> None:
    await world.bell.load(world.rung)
    for _ in range(2):
        world.rung.ring("A")
        await world.bell.load(world.rung)
        await world.bell.load(world.rung)
    assert world.heard == [Ring("wanted", "A")] * 2


async def test_bell_load_of_a_call_newer_than_the_value_read_hears_it_once(world: World) -> None:
    """The two are read by two statements: a call may come between them."""
    await world.bell.load(world.rung)
    world.rung.ring("A")
    world.rung.value = 0
    assert await world.bell.load(world.rung) == 1
    world.rung.value = 1
    await world.bell.load(world.rung)
    assert world.heard == [Ring("wanted", "A")]
