"""Looking keys up: many at a time, each asker answered, however the ledger behaves."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import structlog

from gateway import lookup
from gateway.lookup import KeyLookup, LookupFailedError, OverloadedError
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError
from persistence.postgres.orders import StoredKey
from tests.unit.fakes import turns

STORED = StoredKey(b"\x01" * 16, bytes(16))


class Keys:
    """The ledger's keys: `known`, or an error; while `held`, a look-up waits."""

    def __init__(self) -> None:
        self.known = {b"known": STORED}
        self.asked: list[Sequence[bytes]] = []
        self.error: Exception | None = None
        self.held = asyncio.Event()
        self.held.set()

    async def fetch(self, keys: Sequence[bytes]) -> dict[bytes, StoredKey]:
        self.asked.append(keys)
        await self.held.wait()
        if self.error is not None:
            raise self.error
        return {key: self.known[key] for key in keys if key in self.known}


class Asker:
    """Notes what it is told; `then` is done with it."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.told: list[tuple[StoredKey | None, Exception | None]] = []
        self._then = then

    def __call__(self, found: StoredKey | None, error: Exception | None) -> None:
        self.told.append((found, error))
        self._then()


def fail() -> None:
    """A bug of ours."""
    raise ZeroDivisionError


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
async def finder(keys: Keys) -> AsyncIterator[KeyLookup]:
    tasks, finder = Tasks(), KeyLookup(keys.fetch)
    tasks.loop("lookup", finder.run)
    yield finder
    await tasks.close(wait_s=0)


async def test_lookup_known_key_gives_what_it_belongs_to(finder: KeyLookup) -> None:
    assert await finder.find(b"known") == STORED


async def test_lookup_unknown_key_gives_nothing(finder: KeyLookup) -> None:
    assert await finder.find(b"unknown") is None


async def test_lookup_of_keys_that_wait_together_is_one(finder: KeyLookup, keys: Keys) -> None:
    assert await asyncio.gather(*(finder.find(key) for key in (b"known", b"b", b"c"))) == [STORED, None, None]
    assert keys.asked == [[b"known", b"b", b"c"]]


async def test_lookup_same_key_asked_twice_is_asked_once(finder: KeyLookup, keys: Keys) -> None:
    assert list(await asyncio.gather(finder.find(b"known"), finder.find(b"known"))) == [STORED, STORED]
    assert keys.asked == [[b"known"]]


async def test_lookup_keys_that_come_during_a_lookup_gather_for_the_next(finder: KeyLookup, keys: Keys) -> None:
    keys.held.clear()
    finding = [asyncio.ensure_future(finder.find(b"a"))]
    await turns()
    finding += [asyncio.ensure_future(finder.find(key)) for key in (b"b", b"c")]
    await turns()
    keys.held.set()
    await asyncio.gather(*finding)
    assert keys.asked == [[b"a"], [b"b", b"c"]]


async def test_lookup_of_more_keys_than_one_takes_is_split(
    finder: KeyLookup, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "KEYS_MAX", 2)
    await asyncio.gather(*(finder.find(bytes([number])) for number in range(5)))
    assert [len(asked) for asked in keys.asked] == [2, 2, 1]


async def test_lookup_with_too_many_waiting_is_overloaded(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "WAITING_MAX", 1)
    finder = KeyLookup(keys.fetch)
    waiting = asyncio.ensure_future(finder.find(b"a"))
    await turns()
    with pytest.raises(OverloadedError):
        await finder.find(b"b")
    waiting.cancel()


async def test_lookup_while_the_ledger_is_away_says_so_and_recovers(finder: KeyLookup, keys: Keys) -> None:
    keys.error = LedgerUnavailableError("away")
    with pytest.raises(LedgerUnavailableError):
        await finder.find(b"known")
    keys.error = None
    assert await finder.find(b"known") == STORED


async def test_lookup_that_fails_otherwise_leaves_nobody_waiting(finder: KeyLookup, keys: Keys) -> None:
    keys.error = ValueError("a bug")
    with pytest.raises(LookupFailedError):
        await finder.find(b"known")


async def test_lookup_of_an_asker_who_goes_is_finished_for_the_others(finder: KeyLookup, keys: Keys) -> None:
    keys.held.clear()
    first, second = (asyncio.ensure_future(finder.find(b"known")) for _ in range(2))
    await turns()
    first.cancel()
    keys.held.set()
    assert await second == STORED


async def test_lookup_tells_every_asker_once(finder: KeyLookup) -> None:
    askers = [Asker() for _ in range(3)]
    for key, asker in zip((b"known", b"known", b"unknown"), askers, strict=True):
        finder.ask(key, asker)
    await turns()
    assert [asker.told for asker in askers] == [[(STORED, None)], [(STORED, None)], [(None, None)]]


async def test_lookup_tells_askers_its_error_as_a_value(finder: KeyLookup, keys: Keys) -> None:
    keys.error = LedgerUnavailableError("away")
    asker = Asker()
    finder.ask(b"known", asker)
    await turns()
    assert asker.told == [(None, keys.error)]


async def test_lookup_asker_that_fails_keeps_nobody_else_from_the_answer(finder: KeyLookup) -> None:
    before, after = Asker(fail), Asker()
    finder.ask(b"known", before)
    finder.ask(b"known", after)
    with structlog.testing.capture_logs() as lines:
        assert await finder.find(b"b") is None
    assert (before.told, after.told) == ([(STORED, None)], [(STORED, None)])
    assert [line["event"] for line in lines] == ["asker_failed"]
    assert await finder.find(b"known") == STORED


async def test_lookup_question_of_an_asker_who_is_being_told_is_a_new_one(finder: KeyLookup, keys: Keys) -> None:
    again = Asker()
    finder.ask(b"known", Asker(lambda: finder.ask(b"known", again)))
    await turns()
    assert again.told == [(STORED, None)]
    assert keys.asked == [[b"known"], [b"known"]]
