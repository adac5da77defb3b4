"""The board of availability with a real mirror: what one worker learnt spares the others the question, and a mirror
that is wrong or empty is found out by the ledger.
"""

from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis

from gateway.availability import MAX_AGE_S, Board
from gateway.tasks import Tasks
from persistence.redis.mirror import Mirror, Shard
from tests.unit.fakes import FrozenClock

SHARD = Shard("A", 0, 3, 1)
KEY = "fg:{41}"


class Worker:
    """A worker's board, and what it had to ask the ledger, which always says 5."""

    def __init__(self, mirror: Mirror) -> None:
        self.questions = 0
        self.clock = FrozenClock()
        self.now_s = 100.0
        self.board = Board(self._read, mirror, self.clock, lambda: self.now_s)

    async def _read(self, keys: Sequence[str]) -> dict[str, int]:
        self.questions += 1
        return dict.fromkeys(keys, 5)

    async def units(self) -> int | None:
        return (await self.board.units(["A"]))["A"]


@pytest.fixture
async def mirror(redis_url: str) -> AsyncIterator[Mirror]:
    mirror = Mirror(redis_url)
    await mirror.push([SHARD])
    yield mirror
    await mirror.close()


@pytest.fixture
async def workers(mirror: Mirror) -> AsyncIterator[tuple[Worker, Worker]]:
    """Two workers; neither refreshes before it is asked."""
    tasks, both = Tasks(), (Worker(mirror), Worker(mirror))
    for worker in both:
        tasks.loop("board", worker.board.run)
    yield both
    await tasks.close(wait_s=0)


async def test_board_learns_from_another_worker_by_the_mirror(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    assert await one.units() == 5
    assert await other.units() == 5
    assert (one.questions, other.questions) == (1, 0)


async def test_board_does_not_learn_by_the_mirror_what_is_too_old(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    await one.units()
    other.clock.at_s += MAX_AGE_S
    assert await other.units() == 5
    assert other.questions == 1


async def test_board_with_a_wrong_mirror_is_right_within_a_second(
    workers: tuple[Worker, Worker], mirror: Mirror
) -> None:
    one, _ = workers
    await mirror.push_available({"A": 999}, one.clock.now_ms())
    assert await one.units() == 999
    one.clock.at_s += MAX_AGE_S
    one.now_s += MAX_AGE_S
    assert await one.units() == 5


@pytest.mark.parametrize("said", ["", "nonsense", "99999999999999999999 7", "-1 -1"])
async def test_board_with_nonsense_in_the_mirror_asks_the_ledger(
    workers: tuple[Worker, Worker], redis_url: str, said: str
) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.hset(KEY, "available", said)
    assert await workers[0].units() == 5


async def test_board_with_an_empty_mirror_asks_the_ledger(workers: tuple[Worker, Worker], redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        assert await client.delete(KEY) == 1
    assert await workers[0].units() == 5
