"""Draining between fakes: what becomes of each record, whatever the ledger says, however often it is asked again."""

from typing import Any

import msgspec
import pytest

from core_ext import ids
from gateway.draining import AGAIN, Drain, UndecidedError
from gateway.journaling import ORDER, Kept, _encode, decode_kept
from persistence.errors import LedgerUnavailableError, PoisonError
from persistence.journal import Record
from persistence.postgres import copied
from persistence.postgres.ledger import AmbiguousError, Entry
from persistence.postgres.ledger import Refusal as LedgerRefusal
from tests.unit.fakes import SKU, FakeLedger, FakeSession, Road, duplicate, fenced

AGE_MS_MAX = 1000 * 3600


class Aliases:
    """Stands for the connection that aliases are stored by."""

    def __init__(self) -> None:
        self.stored: list[tuple[bytes, bytes, bool]] = []

    async def execute(self, text: str, orders: Any, of_orders: Any, same: Any) -> None:
        assert "order_alias" in text
        self.stored += [(a.bytes, b.bytes, c) for a, b, c in zip(orders, of_orders, same, strict=True)]


class LosingLedger(FakeLedger):
    """Takes lost orders, too."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.lost: list[Entry] = []
        self.lost_answer: list[LedgerRefusal] = []

    async def commit_lost(self, batch_id: bytes, entries: Any) -> list[LedgerRefusal]:  # noqa: ARG002 - as Ledger
        self.lost += entries
        return self.lost_answer


class Bench:
    def __init__(self, free: int = 0) -> None:
        self.road = Road({SKU: free})
        self.ledger = LosingLedger("owner", self.road.stock)
        self.aliases = Aliases()
        self.settled: list[bytes] = []
        self.aside: list[tuple[int, str]] = []
        self.drain = Drain(
            self.ledger,
            FakeSession(self.aliases),
            self.road.leases,
            self.road.clock,
            self.road.counters,
            AGE_MS_MAX,
            lambda kept: self.settled.append(kept.order_id),
            self._put_aside,
        )
        self._sequence = 0

    async def _put_aside(self, record: Record, why: str) -> None:
        self.aside.append((record.sequence, why))

    def record(self, parts: list[tuple[bytes, int]], key: bytes = b"", units: int = 1, age_ms: int = 0) -> Record:
        """An order of some units, as the journal keeps it."""
        from_ms = self.road.clock.now_ms() - age_ms
        self._sequence += 1
        order_id = ids.new_id(from_ms)
        columns: list[bytes | None] = [b"x"] * 18
        columns[-1] = (123_456_000).to_bytes(8, "big")
        history: list[bytes | None] = [b"x"] * 10
        history[2] = (100_000).to_bytes(8, "big")
        kept = Kept(
            order_id,
            key or order_id,
            b"f" * 16,
            parts,
            [(SKU, units)],
            copied.join(columns),
            [b"lines"],
            copied.join(history),
            b"",
        )
        return Record(self._sequence, ORDER, from_ms, _encode(kept))

    def reserve(self, lease: bytes, units: int = 1) -> list[tuple[bytes, int]]:
        parts = self.road.leases.till.try_reserve([(SKU, units)])
        assert parts is not None
        assert {part for part, _ in parts} == {lease}
        return parts


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(autouse=True)
async def _close(bench: Bench) -> Any:
    yield
    await bench.road.close()


def order_of(record: Record) -> bytes:
    return decode_kept(record.payload).order_id


async def test_record_that_is_stored_settles_its_units(bench: Bench) -> None:
    lease = bench.road.hold(5)
    record = bench.record(bench.reserve(lease))
    await bench.drain.bring([record])
    assert bench.settled == [order_of(record)]
    bench.road.assert_balanced_with([bench.ledger], 5)


async def test_record_that_is_a_duplicate_of_itself_settles_its_units(bench: Bench) -> None:
    """It was committed before, and its lease is used in the ledger."""
    lease = bench.road.hold(5)
    record = bench.record(bench.reserve(lease))
    bench.road.stock.leases[lease].used = 1
    bench.ledger.answers = [lambda entries: [duplicate(entries[0], entries[0].order_id)]]
    await bench.drain.bring([record])
    assert bench.settled == [order_of(record)]
    assert bench.aliases.stored == []
    (view,) = bench.road.leases.till.leases()
    assert (view.used, view.promised) == (1, 0)


@pytest.mark.parametrize("same", [True, False])
async def test_record_whose_key_has_another_order_becomes_an_alias_and_frees_its_units(
    bench: Bench,
    same: bool,  # noqa: FBT001 - by position
) -> None:
    lease = bench.road.hold(5)
    record, other = bench.record(bench.reserve(lease)), b"o" * 16
    bench.ledger.answers = [lambda entries: [duplicate(entries[0], other, b"f" * 16 if same else b"g" * 16)]]
    await bench.drain.bring([record])
    assert bench.aliases.stored == [(order_of(record), other, same)]
    assert bench.road.leases.till.free(SKU) == 5
    assert bench.settled == [order_of(record)]


async def test_records_with_one_key_go_in_batches_of_their_own(bench: Bench) -> None:
    lease = bench.road.hold(5)
    records = [bench.record(bench.reserve(lease), key=b"k" * 16) for _ in range(3)]
    await bench.drain.bring(records)
    assert [len(entries) for _, entries in bench.ledger.batches] == [1, 1, 1]


async def test_order_expires_as_late_as_it_lay_in_the_journal(bench: Bench) -> None:
    record = bench.record([], age_ms=7000)
    await bench.drain.bring([record])
    (entry,) = bench.ledger.stored
    assert copied.split(entry.order_row)[-1] == (123_456_000 + 7_000_000).to_bytes(8, "big")


async def test_record_older_than_keys_is_put_aside_and_frees_its_units(bench: Bench) -> None:
    lease = bench.road.hold(5)
    record = bench.record(bench.reserve(lease), age_ms=AGE_MS_MAX + 1)
    await bench.drain.bring([record])
    assert [sequence for sequence, _ in bench.aside] == [record.sequence]
    assert bench.ledger.batches == []
    assert bench.road.leases.till.free(SKU) == 5
    assert bench.settled == [order_of(record)]


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93abc"])
async def test_record_that_cannot_be_read_is_put_aside_and_others_go_on(bench: Bench, payload: bytes) -> None:
    good = bench.record([])
    await bench.drain.bring([Record(99, ORDER, good.at_ms, payload), Record(98, 77, good.at_ms, good.payload), good])
    assert [sequence for sequence, _ in bench.aside] == [99, 98]
    assert bench.settled == [order_of(good)]


async def test_record_that_the_ledger_refuses_is_put_aside_alone(bench: Bench) -> None:
    lease = bench.road.hold(9)
    records = [bench.record(bench.reserve(lease)) for _ in range(4)]
    bad = order_of(records[2])

    def refuse(entries: Any) -> list[LedgerRefusal]:
        if any(entry.order_id == bad for entry in entries):
            raise PoisonError("a row is refused")
        return []

    bench.ledger.answers = [refuse] * 10
    await bench.drain.bring(records)
    assert [sequence for sequence, _ in bench.aside] == [records[2].sequence]
    assert len(bench.ledger.stored) == 3
    assert len(bench.settled) == 4
    bench.road.assert_balanced_with([bench.ledger], 9)


@pytest.mark.parametrize("error", [LedgerUnavailableError("away"), AmbiguousError(1, [])], ids=["away", "in doubt"])
async def test_piece_that_cannot_be_brought_now_is_brought_the_next_time(bench: Bench, error: Exception) -> None:
    lease = bench.road.hold(5)
    record = bench.record(bench.reserve(lease))
    bench.ledger.answers = [error]
    with pytest.raises(AGAIN):
        await bench.drain.bring([record])
    assert bench.settled == []
    await bench.drain.bring([record])
    assert bench.settled == [order_of(record)]
    bench.road.assert_balanced_with([bench.ledger], 5)


async def test_order_whose_units_are_gone_gets_others(bench: Bench) -> None:
    lease = bench.road.hold(5)
    record = bench.record([(b"g" * 16, 1)])
    bench.ledger.answers = [lambda entries: [fenced(entries[0])]]
    await bench.drain.bring([record])
    (entry,) = bench.ledger.stored
    assert entry.parts == [(lease, 1)]
    assert bench.settled == [order_of(record)]
    bench.road.assert_balanced_with([bench.ledger], 5)


async def test_units_found_for_an_order_are_kept_over_a_commit_in_doubt(bench: Bench) -> None:
    """The next commit says that it happened: nothing may stay promised, nor be promised twice."""
    lease = bench.road.hold(5)
    record = bench.record([(b"g" * 16, 1)])
    bench.ledger.answers = [lambda entries: [fenced(entries[0])], AmbiguousError(1, [])]
    with pytest.raises(AmbiguousError):
        await bench.drain.bring([record])
    bench.road.stock.leases[lease].used = 1  # It had happened.
    bench.ledger.answers = [lambda entries: [duplicate(entries[0], entries[0].order_id)]]
    await bench.drain.bring([record])
    (view,) = bench.road.leases.till.leases()
    assert (view.used, view.promised) == (1, 0)


async def test_order_for_which_there_are_no_units_is_cancelled(bench: Bench) -> None:
    bench.road.start()
    record = bench.record([(b"g" * 16, 1)])
    bench.ledger.answers = [lambda entries: [fenced(entries[0])]]
    await bench.drain.bring([record])
    (entry,) = bench.ledger.lost
    assert (entry.order_id, entry.parts) == (order_of(record), [])
    assert copied.split(entry.order_row)[7] == b"cancelled"
    assert bench.road.counters.journal_lost == 1
    assert bench.settled == [order_of(record)]
    assert bench.ledger.stored == []


async def test_order_that_cannot_be_cancelled_is_put_aside_and_others_go_on(bench: Bench) -> None:
    bench.road.start()
    gone = bench.record([(b"g" * 16, 1)])
    kept = decode_kept(gone.payload)
    damaged = msgspec.structs.replace(kept, history_row=copied.join([b"one column"]))
    bench.ledger.answers = [lambda entries: [fenced(entries[0])]]
    await bench.drain.bring([gone._replace(payload=_encode(damaged))])
    good = bench.record([], units=0)
    await bench.drain.bring([good])
    assert [sequence for sequence, _ in bench.aside] == [gone.sequence]
    assert bench.settled == [kept.order_id, order_of(good)]
    assert bench.ledger.lost == []


async def test_order_never_goes_to_the_ledger_without_the_units_that_it_wants(bench: Bench) -> None:
    """Whatever happens while units are sought."""
    bench.road.start()
    bench.road.session.away = True
    record = bench.record([(b"g" * 16, 1)])
    bench.ledger.answers = [lambda entries: [fenced(entries[0])]] * 3
    await bench.drain.bring([record])
    for _ in range(2):
        with pytest.raises(UndecidedError):
            await bench.drain.bring_undecided()
    assert all(entry.parts for _, entries in bench.ledger.batches for entry in entries)
    assert (bench.ledger.lost, bench.settled) == ([], [])
    bench.road.session.away = False
    lease = bench.road.hold(5)
    bench.ledger.answers = [lambda entries: [fenced(entries[0])]]
    await bench.drain.bring_undecided()
    (entry,) = bench.ledger.stored
    assert entry.parts == [(lease, 1)]
    assert bench.settled == [order_of(record)]


async def test_order_that_waits_for_units_holds_up_no_other(bench: Bench) -> None:
    bench.road.start()
    bench.road.session.away = True
    waiting, other = bench.record([(b"g" * 16, 1)]), bench.record([])
    bench.ledger.answers = [lambda entries: [fenced(entry) for entry in entries if entry.parts]]
    await bench.drain.bring([waiting, other])
    assert bench.settled == [order_of(other)]


async def test_records_brought_again_after_an_error_settle_their_units_once(bench: Bench) -> None:
    """Two pieces, of which the second is not brought the first time."""
    lease = bench.road.hold(5)
    records = [bench.record(bench.reserve(lease), key=b"k" * 16) for _ in range(2)]
    bench.ledger.answers = [[], LedgerUnavailableError("away")]
    with pytest.raises(LedgerUnavailableError):
        await bench.drain.bring(records)
    await bench.drain.bring(records)
    assert bench.settled == [order_of(record) for record in records]
    bench.road.assert_balanced_with([bench.ledger], 5)
