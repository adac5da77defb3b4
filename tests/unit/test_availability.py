"""The board of availability: one question for many who ask, nothing shown that is not fresh, and the mirror before the
ledger.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway import availability
from gateway.availability import KEYS_MAX, MAX_AGE_S, MIRROR_AGE_MS, REMEMBER_S, Board
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError, MirrorUnavailableError
from persistence.redis.mirror import AVAILABLE_MS, Mirror, Pool
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import FrozenClock


class FakeMirror(Mirror):
    """What the mirror knows: (units, when the ledger said so) by SKU."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, int]] = {}
        self.away = False
        self.reads = 0

    async def read(self, skus: Sequence[str], now_ms: int) -> dict[str, Pool]:
        self.reads += 1
        if self.away:
            raise MirrorUnavailableError("gone")
        return {
            sku: Pool(0, 1, units if abs(now_ms - at_ms) <= AVAILABLE_MS else None)
            for sku, (units, at_ms) in self.told.items()
            if sku in skus
        }

    async def push_available(self, found: dict[str, int], at_ms: int) -> None:  # type: ignore[override]
        if self.away:
            raise MirrorUnavailableError("gone")
        self.told |= {sku: (units, at_ms) for sku, units in found.items()}


class World:
    """A board, a ledger that knows `units`, and time that a test moves."""

    def __init__(self, mirror: FakeMirror | None = None) -> None:
        self.units = {"A": 5, "B": 0}
        self.questions: list[list[str]] = []
        self.away = False
        self.held = asyncio.Event()
        self.held.set()
        self.now_s = 100.0
        self.clock = FrozenClock()
        self.board = Board(self.read, mirror, self.clock, lambda: self.now_s)

    @property
    def now_ms(self) -> int:
        return self.clock.now_ms()

    async def read(self, keys: Sequence[str]) -> dict[str, int]:
        self.questions.append(list(keys))
        await self.held.wait()
        if self.away:
            raise OSError("no route")
        return {key: self.units[key] for key in keys if key in self.units}


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    tasks = Tasks()
    yield tasks
    await tasks.close(wait_s=0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits end at once, so that no test waits for them; what is fresh goes by the test's own clock."""
    monkeypatch.setattr(availability, "REFRESH_S", 0.005)
    monkeypatch.setattr(availability, "YOUNG_S", 0.0)


def running(tasks: Tasks, mirror: FakeMirror | None = None) -> World:
    world = World(mirror)
    tasks.loop("board", world.board.run)
    return world


async def test_board_answers_units_and_none_for_what_there_is_not(tasks: Tasks) -> None:
    world = running(tasks)
    assert await world.board.units(["A", "B", "C"]) == {"A": 5, "B": 0, "C": None}


async def test_board_asked_by_many_asks_the_ledger_once(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(availability, "MAX_AGE_S", 30.0)  # A busy machine is not what is tested.
    world = running(tasks)
    world.held.clear()
    asking = [asyncio.create_task(world.board.units([sku])) for sku in ("A", "B") * 500]
    await asyncio.sleep(0)
    world.held.set()
    answers = await asyncio.gather(*asking)
    assert answers == [{"A": 5}, {"B": 0}] * 500
    assert [sorted(question) for question in world.questions] == [["A", "B"]]


async def test_board_asked_again_answers_from_memory(tasks: Tasks) -> None:
    world = running(tasks)
    await world.board.units(["A"])
    for _ in range(10):
        await world.board.units(["A"])
    assert len(world.questions) == 1


@pytest.mark.usefixtures("impatient")
async def test_board_looks_after_what_was_asked_for(tasks: Tasks) -> None:
    world = running(tasks)
    await world.board.units(["A"])
    world.units["A"] = 4
    async with asyncio.timeout(5):
        while await world.board.units(["A"]) != {"A": 4}:
            await asyncio.sleep(0.001)


async def test_board_does_not_show_what_is_too_old(tasks: Tasks) -> None:
    world = running(tasks)
    await world.board.units(["A"])
    world.units["A"] = 4
    world.now_s += MAX_AGE_S + 0.001
    assert await world.board.units(["A"]) == {"A": 4}


@pytest.mark.usefixtures("impatient")
async def test_board_forgets_what_nobody_asks_for_any_more(tasks: Tasks) -> None:
    world = running(tasks)
    await world.board.units(["A", "B"])
    world.now_s += REMEMBER_S + 0.001
    await world.board.units(["B"])
    count = len(world.questions)
    async with asyncio.timeout(5):
        while len(world.questions) < count + 3:
            await asyncio.sleep(0.001)
    assert world.questions[-1] == ["B"]


async def test_board_that_is_full_forgets_what_was_asked_for_longest_ago(tasks: Tasks) -> None:
    world = running(tasks)
    await world.board.units(["A", "B"])
    await world.board.units(["A"])
    world.now_s += 0.5
    await world.board.units([f"other-{number}" for number in range(KEYS_MAX - 1)])
    assert len(world.questions[-1]) == KEYS_MAX
    assert "A" in world.questions[-1]
    assert "B" not in world.questions[-1]


async def test_board_takes_the_word_of_the_mirror_and_spares_the_ledger(tasks: Tasks) -> None:
    mirror = FakeMirror()
    world = running(tasks, mirror)
    mirror.told["A"] = (7, world.now_ms - MIRROR_AGE_MS)
    assert await world.board.units(["A", "B"]) == {"A": 7, "B": 0}
    assert world.questions == [["B"]]


async def test_board_does_not_believe_a_mirror_that_is_too_old(tasks: Tasks) -> None:
    mirror = FakeMirror()
    world = running(tasks, mirror)
    mirror.told["A"] = (7, world.now_ms - MIRROR_AGE_MS - 1)
    assert await world.board.units(["A"]) == {"A": 5}


@pytest.mark.usefixtures("impatient")
async def test_board_believes_a_wrong_mirror_for_less_than_a_second(tasks: Tasks) -> None:
    mirror = FakeMirror()
    world = running(tasks, mirror)
    mirror.told["A"] = (999, world.now_ms)
    assert await world.board.units(["A"]) == {"A": 999}
    world.clock.at_s += MAX_AGE_S
    world.now_s += MAX_AGE_S
    assert await world.board.units(["A"]) == {"A": 5}


async def test_board_tells_the_mirror_what_the_ledger_said(tasks: Tasks) -> None:
    mirror = FakeMirror()
    world = running(tasks, mirror)
    await world.board.units(["A", "C"])
    other = World(mirror)
    tasks.loop("other", other.board.run)
    assert await other.board.units(["A"]) == {"A": 5}
    assert other.questions == []


async def test_board_without_its_mirror_asks_the_ledger(tasks: Tasks) -> None:
    mirror = FakeMirror()
    mirror.away = True
    world = running(tasks, mirror)
    assert await world.board.units(["A"]) == {"A": 5}


async def test_board_without_ledger_and_mirror_refuses_after_a_second(tasks: Tasks) -> None:
    world = running(tasks)
    world.away = True
    with pytest.raises(LedgerUnavailableError):
        await world.board.units(["A"])


@pytest.mark.usefixtures("impatient")
async def test_board_without_a_ledger_shows_what_it_knows_until_that_is_old(tasks: Tasks) -> None:
    world = running(tasks)
    await world.board.units(["A"])
    world.away = True
    world.now_s += MAX_AGE_S
    assert await world.board.units(["A"]) == {"A": 5}
    world.now_s += 0.001
    with pytest.raises(LedgerUnavailableError):
        await world.board.units(["A"])


@pytest.mark.usefixtures("impatient")
async def test_board_comes_back_with_the_ledger(tasks: Tasks) -> None:
    world = running(tasks)
    world.away = True
    with pytest.raises(LedgerUnavailableError):
        await world.board.units(["A"])
    world.away = False
    world.now_s += 10 * MAX_AGE_S
    count = len(world.questions)
    async with asyncio.timeout(5):
        while len(world.questions) < count + 2:
            await asyncio.sleep(0.001)
    assert await world.board.units(["A"]) == {"A": 5}


async def test_board_mirror_serves_while_the_ledger_is_away(tasks: Tasks) -> None:
    mirror = FakeMirror()
    world = running(tasks, mirror)
    world.away = True
    mirror.told["A"] = (3, int(START_S * 1000))
    assert await world.board.units(["A"]) == {"A": 3}
