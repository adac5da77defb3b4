"""The drainer between fakes, with journals on a real disk: its own and those of the dead, none of which holds up
another one.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core_ext import ids
from gateway.batch import Pending
from gateway.domain.outcomes import Promise
from gateway.draining import Drainer
from gateway.journaling import _encode, _kept
from persistence.errors import LedgerUnavailableError
from persistence.journal import Journal, JournalError, peek
from persistence.nats.stream import Event
from persistence.postgres import copied, journals
from persistence.postgres.ledger import Entry
from tests.unit.fakes import SHOP, SKU, FakeLedger, FakeSession, Road, fenced, settings

OWNER, DEAD, OTHER_DEAD = (f"{number}f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9" for number in range(3))
KEY_DAYS = 7
GONE = [(b"g" * 16, 1)]  # of a lease that nobody knows


class Desk:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.road = Road({SKU: 0}, settings(journal={"folder": str(folder)}))
        self.journaling = self.road.journaling
        self.ledgers: dict[str, FakeLedger] = {}
        self.ended: list[str] = []
        self.buried: list[str] = []
        self.away: set[str] = set()
        self.drainer = Drainer(
            self.journaling,
            self._open,
            FakeSession(None),
            self.road.leases,
            self.road.clock,
            self.road.counters,
            KEY_DAYS,
            lambda: True,
        )
        monkeypatch.setattr(journals, "end_committer", self._end)
        monkeypatch.setattr(journals, "bury", self._bury)

    def _open(self, owner: str) -> FakeLedger:
        ledger = self.ledgers.setdefault(owner, FakeLedger(owner, self.road.stock))
        if owner in self.away:
            ledger.answers = [LedgerUnavailableError("away")]
        return ledger

    async def _end(self, _session: Any, owner: str) -> None:
        self.ended.append(owner)

    async def _bury(self, _session: Any, owner: str, _home: int) -> int:
        assert owner in self.ended
        self.buried.append(owner)
        return 0

    def order(self, parts: list[tuple[bytes, int]]) -> Pending:
        order_id = ids.new_id(self.road.clock.now_ms())
        entry = Entry(order_id, order_id, b"f" * 16, parts, copied.join([b"x"] * 17 + [None]), [b"l"], b"h", b"")
        event = Event("orders.created.app.00", "1", b"{}", {})
        return Pending(SHOP, entry, [(SKU, 1)] if parts else [], event, b"body", 20, 1, 1, Promise())

    async def journal(self, *orders: Pending) -> None:
        """Orders in the worker's own journal."""
        await self.journaling.ensure_open(OWNER)
        self.journaling.named = OWNER
        await self.journaling.append(orders)

    def leave(self, owner: str, *orders: Pending) -> None:
        """A journal whose owner is dead."""
        journal = Journal.create(self.folder, owner, "host", 1 << 20)
        journal.append([(1, _encode(_kept(order))) for order in orders], self.road.clock.now_ms())
        journal.close(remove=False)

    def stored(self, owner: str) -> list[bytes]:
        return [entry.order_id for entry in self.ledgers[owner].stored] if owner in self.ledgers else []


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "journal", monkeypatch)
    yield desk
    await desk.journaling.close(remove=False)
    await desk.road.close()


async def test_own_journal_is_brought_and_begins_anew(desk: Desk) -> None:
    order = desk.order([])
    await desk.journal(order)
    await desk.drainer.step(desk.folder)
    assert desk.stored(OWNER) == [order.entry.order_id]
    assert desk.journaling.is_empty
    assert [(file.owner, file.records) for file in peek(desk.folder)] == [(OWNER, 0)]
    assert desk.buried == []


async def test_journal_of_the_dead_is_brought_its_owner_buried_and_its_file_gone(desk: Desk) -> None:
    order = desk.order([])
    desk.leave(DEAD, order)
    await desk.drainer.step(desk.folder)
    assert desk.stored(DEAD) == [order.entry.order_id]
    assert desk.buried == [DEAD]
    assert peek(desk.folder) == []


async def test_journal_of_the_dead_without_orders_buries_its_owner(desk: Desk) -> None:
    desk.leave(DEAD)
    await desk.drainer.step(desk.folder)
    assert (desk.buried, peek(desk.folder)) == ([DEAD], [])


async def test_owner_whose_orders_cannot_be_brought_yet_is_not_buried_and_holds_up_no_other(desk: Desk) -> None:
    first, second = desk.order([]), desk.order([])
    desk.leave(DEAD, first)
    desk.leave(OTHER_DEAD, second)
    desk.away.add(DEAD)
    await desk.drainer.step(desk.folder)
    assert desk.buried == [OTHER_DEAD]
    assert [(file.owner, file.locked) for file in peek(desk.folder)] == [(DEAD, True)]
    await desk.drainer.step(desk.folder)
    assert desk.buried == [OTHER_DEAD, DEAD]
    assert desk.stored(DEAD) == [first.entry.order_id]


async def test_own_order_that_waits_for_units_does_not_keep_those_of_the_dead_from_coming_back(desk: Desk) -> None:
    """They may be the very units that it waits for."""
    desk.road.session.away = True
    desk.road.start()
    await desk.journal(desk.order(GONE))
    desk.leave(DEAD)
    desk.ledgers[OWNER] = FakeLedger(OWNER, desk.road.stock)
    desk.ledgers[OWNER].answers = [lambda entries: [fenced(entry) for entry in entries]] * 9
    await desk.drainer.step(desk.folder)
    assert desk.buried == [DEAD]
    assert desk.journaling.left == 1
    desk.road.session.away = False
    lease = desk.road.hold(5)
    desk.ledgers[OWNER].answers = [lambda entries: [fenced(entry) for entry in entries]]
    await desk.drainer.step(desk.folder)
    assert desk.journaling.is_empty
    assert [entry.parts for entry in desk.ledgers[OWNER].stored] == [[(lease, 1)]]


async def test_file_goes_only_after_its_owner_is_buried(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.leave(DEAD)

    async def refuse(*_: object) -> int:
        raise LedgerUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(journals, "bury", refuse)
        await desk.drainer.step(desk.folder)
        assert [file.owner for file in peek(desk.folder)] == [DEAD]
    await desk.drainer.step(desk.folder)
    assert (desk.buried, peek(desk.folder)) == ([DEAD], [])


async def test_folder_that_cannot_be_read_stops_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order = desk.order([])
    await desk.journal(order)

    def refuse(*_: object) -> Any:
        raise JournalError("EIO")

    monkeypatch.setattr("gateway.draining.adopt", refuse)
    await desk.drainer.step(desk.folder)
    assert desk.stored(OWNER) == [order.entry.order_id]
