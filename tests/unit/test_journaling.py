"""The worker's journal on a real disk, without a ledger: what it takes, what it keeps from others, and when it may be
used.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from gateway.batch import Pending
from gateway.domain.outcomes import Promise
from gateway.journaling import Journaling, decode_kept
from gateway.settings import Journal as JournalSettings
from persistence.journal import Journal, JournalError, JournalFullError, JournalPoisonedError, peek
from persistence.nats.stream import Event
from persistence.postgres.ledger import Entry
from tests.unit.fakes import SHOP, SKU, Road, settings, turns

OWNER, NEXT_OWNER = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9", "1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
LEASE = b"l" * 16


def pending(number: int, lease: bytes = LEASE) -> Pending:
    """An admitted order."""
    name = number.to_bytes(16, "big")
    entry = Entry(name, name, b"f" * 16, [(lease, 1)], b"order", [b"line"], b"history", b"key")
    event = Event("orders.created.app.00", "1", b"{}", {})
    return Pending(SHOP, entry, [(SKU, 1)], event, b"body", 20, 1, 1, Promise())


class Desk:
    def __init__(self, folder: Path, mode: str = "journal") -> None:
        changed = settings(journal={"folder": str(folder), "mode": mode})
        self.road = Road({SKU: 10}, changed)
        self.journaling = self.road.journaling
        self.folder = folder
        self.left = 0

    async def open(self, owner: str = OWNER) -> None:
        assert await self.journaling.ensure_open(owner) is not None
        self.journaling.named = owner
        self.journaling.note_open()

    async def leave(self) -> None:
        self.left += 1


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "journal")
    yield desk
    await desk.journaling.close(remove=False)


async def test_journal_is_usable_once_the_ledger_knows_of_it(desk: Desk) -> None:
    found = []
    await desk.journaling.ensure_open(OWNER)
    desk.journaling.note_open()
    for named in ("", OWNER, NEXT_OWNER):
        desk.journaling.named = named
        found.append(desk.journaling.usable)
    assert found == [False, True, False]


async def test_journal_is_not_usable_before_the_ledger_has_taken_orders(desk: Desk) -> None:
    """There would be no units to sell: the worker is not ready, and must not say so."""
    await desk.journaling.ensure_open(OWNER)
    desk.journaling.named = OWNER
    assert not desk.journaling.usable


async def test_journal_without_folder_is_never_usable() -> None:
    road = Road({})
    journaling = Journaling(JournalSettings(), road.live, road.clock, road.counters)
    assert await journaling.ensure_open(OWNER) is None
    journaling.named = OWNER
    assert not journaling.usable
    assert journaling.fault == "no folder"


async def test_journal_that_is_not_wanted_is_not_usable(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "journal", mode="reject")
    await desk.open()
    assert not desk.journaling.usable
    await desk.journaling.close(remove=True)


async def test_journal_in_a_folder_that_cannot_be_is_none_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    desk = Desk(tmp_path / "file" / "journal")
    assert await desk.journaling.ensure_open(OWNER) is None
    assert desk.journaling.fault


async def test_orders_are_kept_as_they_are_until_they_are_settled(desk: Desk) -> None:
    await desk.open()
    orders = [pending(1), pending(2)]
    await desk.journaling.append(orders)
    kept = [decode_kept(record.payload) for record in await desk.journaling.read()]
    assert [(one.order_id, one.parts, one.demand, one.order_row) for one in kept] == [
        (order.entry.order_id, order.entry.parts, order.demand, b"order") for order in orders
    ]
    assert desk.journaling.receipts == {order.entry.key_hash: b"f" * 16 for order in orders}
    desk.journaling.settled(kept[0])
    assert (desk.journaling.left, list(desk.journaling.receipts)) == (1, [orders[1].entry.key_hash])
    desk.journaling.settled(kept[1])
    assert desk.journaling.is_empty


async def test_file_begins_anew_when_all_are_rows_and_not_before(desk: Desk) -> None:
    await desk.open()
    empty = desk.journaling.size
    await desk.journaling.append([pending(1), pending(2)])
    first, second = await desk.journaling.read()
    desk.journaling.settled(decode_kept(first.payload))
    await desk.journaling.passed(first)
    assert [record.sequence for record in await desk.journaling.read()] == [second.sequence]
    desk.journaling.settled(decode_kept(second.payload))
    await desk.journaling.passed(second)
    assert desk.journaling.size == empty
    await desk.journaling.append([pending(3)])
    assert [decode_kept(record.payload).order_id for record in await desk.journaling.read()] == [
        (3).to_bytes(16, "big")
    ]


async def test_lease_is_pinned_until_its_last_order_is_settled(desk: Desk) -> None:
    await desk.open()
    await desk.journaling.append([pending(1), pending(2), pending(3, b"m" * 16)])
    kept = [decode_kept(record.payload) for record in await desk.journaling.read()]
    for one, pinned in zip(kept, [{LEASE, b"m" * 16}, {b"m" * 16}, set()], strict=True):
        desk.journaling.settled(one)
        assert {lease for lease in (LEASE, b"m" * 16) if desk.journaling.pins(lease)} == pinned
    assert desk.road.leases.unknown([LEASE]) == [LEASE]


async def test_pinned_lease_is_no_stray_and_is_not_closed(desk: Desk) -> None:
    await desk.open()
    lease = desk.road.hold(5)
    await desk.journaling.append([pending(1, lease)])
    desk.road.leases.drop([lease])
    assert desk.road.leases.unknown([lease]) == []
    await desk.road.leases.replace([lease])
    assert desk.road.stock.is_active(lease)


async def test_journal_that_is_full_takes_nothing_of_the_call(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    await desk.open()

    def refuse(*_: object) -> None:
        raise JournalFullError("no space")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "append", refuse)
        with pytest.raises(JournalFullError):
            await desk.journaling.append([pending(1)])
    assert desk.journaling.is_empty
    assert desk.journaling.receipts == {}
    assert not desk.journaling.pins(LEASE)
    assert not desk.journaling.usable
    assert desk.journaling.fault == "no space"


async def test_journal_that_failed_is_never_used_again_and_its_worker_leaves(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.open()
    desk.journaling.on_poisoned = lambda: setattr(desk, "left", desk.left + 1)

    def fail(journal: Journal, *_: object) -> None:
        journal.poisoned = True
        raise JournalPoisonedError("EIO")

    monkeypatch.setattr(Journal, "append", fail)
    with pytest.raises(JournalError):
        await desk.journaling.append([pending(1)])
    assert desk.left == 1
    assert not desk.journaling.usable
    assert desk.journaling.receipts == {}


async def test_journal_that_may_have_an_order_keeps_its_units_for_who_adopts_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was promised it; but who reads the file makes an order of it."""
    await desk.open()

    def fail(*_: object) -> None:
        raise JournalPoisonedError("EIO")

    monkeypatch.setattr(Journal, "append", fail)
    with pytest.raises(JournalError):
        await desk.journaling.append([pending(1)])
    assert (desk.journaling.is_empty, desk.journaling.left) == (False, 1)
    assert desk.journaling.pins(LEASE)


async def test_next_owner_begins_a_journal_of_his_own_and_leaves_the_orders_of_the_one_before(desk: Desk) -> None:
    await desk.open()
    await desk.journaling.append([pending(1)])
    await desk.open(NEXT_OWNER)
    files = {file.owner: (file.records, file.locked) for file in peek(desk.folder)}
    assert files == {OWNER: (1, False), NEXT_OWNER: (0, True)}
    assert await desk.journaling.read() == []


async def test_next_owner_is_not_concerned_with_the_orders_of_the_one_before(desk: Desk) -> None:
    """Whoever adopts their journal tells nobody what becomes of them."""
    await desk.open()
    await desk.journaling.append([pending(1)])
    await desk.open(NEXT_OWNER)
    assert desk.journaling.is_empty
    assert desk.journaling.receipts == {}
    assert not desk.journaling.pins(LEASE)


async def test_next_owner_removes_an_empty_journal_of_the_one_before(desk: Desk) -> None:
    await desk.open()
    await desk.open(NEXT_OWNER)
    assert [file.owner for file in peek(desk.folder)] == [NEXT_OWNER]


async def test_journal_that_was_let_go_takes_nothing(desk: Desk) -> None:
    await desk.open()
    await desk.journaling.close(remove=True)
    with pytest.raises(JournalFullError):
        await desk.journaling.append([pending(1)])


async def test_order_of_another_process_with_the_same_key_settles_none_of_ours(desk: Desk) -> None:
    await desk.open()
    await desk.journaling.append([pending(1)])
    (record,) = await desk.journaling.read()
    ours = decode_kept(record.payload)
    desk.journaling.settled(msgspec.structs.replace(ours, order_id=b"o" * 16))
    assert (desk.journaling.left, desk.journaling.receipts) == (1, {ours.key_hash: b"f" * 16})
    assert desk.journaling.pins(LEASE)


@pytest.mark.parametrize("knows_at_first", [True, False])
async def test_worker_without_ledger_and_without_orders_tries_it_until_it_is_back(
    desk: Desk,
    knows_at_first: bool,  # noqa: FBT001 - by position
) -> None:
    """With a journal orders have somewhere to go, but nobody has units for them before the ledger is back."""
    road = desk.road
    await desk.open()
    road.admission.open, road.clock.is_known = False, knows_at_first
    road.start()
    await turns()
    assert desk.journaling.usable
    road.clock.is_known = True
    async with asyncio.timeout(5):
        while not road.admission.open:
            await asyncio.sleep(0.01)
    await road.close()


@pytest.mark.parametrize("what", ["clear", "read"])
async def test_journal_that_fails_while_it_is_drained_makes_its_worker_leave(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    await desk.open()
    desk.journaling.on_poisoned = lambda: setattr(desk, "left", desk.left + 1)
    await desk.journaling.append([pending(1)])
    (record,) = await desk.journaling.read()
    desk.journaling.settled(decode_kept(record.payload))

    def fail(journal: Journal, *_: object) -> None:
        journal.poisoned = True
        raise JournalPoisonedError("EIO")

    monkeypatch.setattr(Journal, what, fail)
    with pytest.raises(JournalError):
        await (desk.journaling.passed(record) if what == "clear" else desk.journaling.read())
    assert desk.left == 1
    assert not desk.journaling.usable
