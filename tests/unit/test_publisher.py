"""The publisher: whole commits together up to one atomic batch, the outbox emptied after the ack and never before."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway import publisher as room
from gateway.metrics import Counters
from gateway.publisher import Publisher
from persistence.nats.stream import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Event
from tests.unit.fakes import FakePool, FakeStream, turns


class World:
    def __init__(self) -> None:
        self.stream, self.pool, self.counters = FakeStream(), FakePool(), Counters()
        self.publisher = Publisher(self.stream, self.pool, self.counters)

    def put(self, batch: int, events: int, payload: bytes = b"{}") -> None:
        made = [Event("orders.created.app.00", f"{batch}.{number}", payload) for number in range(events)]
        self.publisher.put(self.batch_id(batch), made)

    @staticmethod
    def batch_id(batch: int) -> bytes:
        return batch.to_bytes(16, "big")

    async def run(self) -> None:
        """Publish all that waits, to the end."""
        self.publisher.close()
        await self.publisher.run()

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.stream.batches]


@pytest.fixture
def world() -> World:
    return World()


async def test_publisher_commits_that_wait_go_together_in_order(world: World) -> None:
    for batch in range(3):
        world.put(batch, events=2)
    await world.run()
    assert [[event.id for event in batch] for batch in world.stream.batches] == [
        ["0.0", "0.1", "1.0", "1.1", "2.0", "2.1"]
    ]


async def test_publisher_takes_whole_commits_up_to_an_atomic_batch(world: World) -> None:
    for batch, events in enumerate((600, 400, 1, 1000)):
        world.put(batch, events)
    await world.run()
    assert world.sizes() == [BATCH_MESSAGES_MAX, 1, BATCH_MESSAGES_MAX]


async def test_publisher_takes_commits_up_to_the_bytes_of_an_atomic_batch(world: World) -> None:
    for batch in range(3):
        world.put(batch, events=1, payload=bytes(BATCH_BYTES_MAX // 2))
    await world.run()
    assert world.sizes() == [2, 1]


async def test_publisher_removes_acknowledged_commits_from_the_outbox(world: World) -> None:
    world.put(1, events=2)
    world.put(2, events=1)
    await world.run()
    assert world.pool.removed == [world.batch_id(1), world.batch_id(2)]
    assert world.counters.events_published == 3


class Watch:
    """The clock that does not step, which goes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(room, "time", watch)
    return watch


@pytest.fixture
async def slow(world: World, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A publisher whose first batch, of one event, has taken the stream an hour; it may rest for half of it."""
    monkeypatch.setattr(room, "REST_S_MAX", 3600.0)
    world.stream.held.clear()
    running = asyncio.ensure_future(world.publisher.run())
    world.put(0, events=1)
    await turns()
    watch.now += 3600
    world.stream.held.set()
    await turns()
    assert world.sizes() == [1], "the first one waits for nothing"
    yield world
    world.publisher.close()
    await running


async def test_publisher_rests_after_a_batch_and_gathers_what_comes_meanwhile(slow: World) -> None:
    slow.put(1, events=1)
    await turns()
    slow.put(2, events=2)
    await turns()
    assert slow.sizes() == [1]
    slow.publisher.close()
    await turns()
    assert slow.sizes() == [1, 3]


@pytest.mark.parametrize("took_s", [room.REST_S_MAX, 3600.0])
async def test_publisher_rests_for_a_share_of_what_the_batch_took_and_not_for_long(
    world: World, watch: Watch, took_s: float
) -> None:
    world.stream.held.clear()
    running = asyncio.ensure_future(world.publisher.run())
    world.put(0, events=1)
    await turns()
    watch.now += took_s
    world.stream.held.set()
    await turns()
    rest_s = world.publisher._rests_until - watch.now
    assert rest_s == pytest.approx(min(took_s * room.REST_SHARE, room.REST_S_MAX))
    world.publisher.close()
    await running


@pytest.mark.usefixtures("watch")
async def test_publisher_of_a_stream_that_takes_no_time_does_not_rest(world: World) -> None:
    running = asyncio.ensure_future(world.publisher.run())
    for batch in range(3):
        world.put(batch, events=1)
        await turns()
    assert world.sizes() == [1, 1, 1]
    world.publisher.close()
    await running


async def test_publisher_lets_half_a_batch_wait_for_nothing(slow: World) -> None:
    slow.put(1, events=room.PRESSING_EVENTS_MIN - 1)
    await turns()
    assert slow.sizes() == [1]
    slow.put(2, events=1)
    await turns()
    assert slow.sizes() == [1, room.PRESSING_EVENTS_MIN]


async def test_publisher_removes_nothing_before_the_ack(world: World) -> None:
    world.stream.held.clear()
    world.put(1, events=1)
    running = asyncio.ensure_future(world.publisher.run())
    await turns()
    assert (world.pool.removed, world.publisher.backlog) == ([], 1)
    world.stream.held.set()
    await world.run()
    await running
    assert world.pool.removed == [world.batch_id(1)]


async def test_publisher_removes_the_commits_of_several_publishes_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REMOVE_S", 3600.0)
    running = asyncio.ensure_future(world.publisher.run())
    removed = []
    for batch in (1, 2, 3):
        world.put(batch, events=1)
        await turns()
        removed.append(len(world.pool.removed))
    await world.run()
    await running
    assert removed == [1, 1, 1]
    assert world.pool.removed == [world.batch_id(1), world.batch_id(2), world.batch_id(3)]


async def test_publisher_without_more_events_removes_what_is_acknowledged(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REMOVE_S", 0.01)
    running = asyncio.ensure_future(world.publisher.run())
    world.put(1, events=1)
    await turns()
    world.put(2, events=1)
    async with asyncio.timeout(10):
        while world.pool.removed != [world.batch_id(1), world.batch_id(2)]:
            await asyncio.sleep(0.001)
    await world.run()
    await running


async def test_publisher_whose_stream_is_away_leaves_the_events_to_the_relay(world: World) -> None:
    world.stream.away = True
    world.put(1, events=3)
    await world.run()
    assert world.pool.removed == []
    assert (world.counters.events_left, world.counters.events_published, world.publisher.backlog) == (3, 0, 0)


async def test_publisher_goes_on_when_the_stream_is_back(world: World) -> None:
    world.stream.away = True
    running = asyncio.ensure_future(world.publisher.run())
    world.put(1, events=1)
    await turns()
    world.stream.away = False
    world.put(2, events=1)
    await world.run()
    await running
    assert world.pool.removed == [world.batch_id(2)]


@pytest.mark.parametrize("error", [OSError("gone"), asyncpg.InterfaceError("closed"), TimeoutError()])
async def test_publisher_goes_on_when_the_outbox_cannot_be_reached(world: World, error: Exception) -> None:
    world.pool.error = error
    world.put(1, events=1)
    await world.run()
    assert (world.counters.events_published, world.publisher.backlog) == (1, 0)


async def test_publisher_with_a_full_backlog_leaves_the_events_to_the_relay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BACKLOG_MAX", 3)
    world.put(1, events=2)
    world.put(2, events=2)
    world.put(3, events=1)
    assert (world.publisher.backlog, world.counters.events_left) == (3, 2)
    await world.run()
    assert world.pool.removed == [world.batch_id(1), world.batch_id(3)]


async def test_publisher_counts_the_backlog_down_whatever_happens(world: World) -> None:
    world.pool.error = ValueError("a bug")
    world.put(1, events=2)
    with pytest.raises(ValueError, match="a bug"):
        await world.run()
    assert world.publisher.backlog == 0


async def test_publisher_closed_without_events_ends(world: World) -> None:
    running = asyncio.ensure_future(world.publisher.run())
    await turns()
    world.publisher.close()
    await running
