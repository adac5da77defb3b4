"""Brings the orders of journals to the ledger, through the same transaction as all others: those of this worker's own
once the ledger is back, and those of processes that are gone, whose journals it adopts.

Each record becomes a row: an order; an alias of the order that has its key; or, when its units are gone for good, an
order that is cancelled. What the ledger refuses to store goes to a quarantine. A record that is read twice is a
duplicate of itself, so whatever stops this half-way may simply begin again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import structlog

from core_ext import ids
from gateway.clock import Clock
from gateway.domain.outcomes import OVERLOADED, Refusal
from gateway.journaling import ORDER, PIECE_BYTES, Journaling, Kept, decode_kept
from gateway.leases import Leases
from gateway.metrics import Counters
from gateway.parking import Demand, Parts, Short
from persistence.errors import LedgerUnavailableError, NotDurableError, PoisonError
from persistence.journal import JournalError, Orphan, Record, adopt, quarantine
from persistence.postgres import copied, journals
from persistence.postgres.journals import Alias
from persistence.postgres.ledger import AmbiguousError, BatchFencedError, Entry, Ledger
from persistence.postgres.ledger import Refusal as LedgerRefusal
from persistence.postgres.session import Session

PIECE_ORDERS_MAX = 1000
PAUSE_S = 0.2  # between two looks for something to bring
ADOPT_S = 1.0  # between two looks for journals of the dead
DAY_MS = 86_400_000
# A record so much younger than keys become finds its key, if the ledger has the order already: older ones are not told
# from new orders any more.
AGE_MARGIN_MS = 3_600_000
ACTOR = "floodgate"
UNITS_LOST = "units_lost"  # the reason of an order that is cancelled here

log = structlog.get_logger("drain")


class UndecidedError(Exception):
    """Orders whose units are gone wait for others, which may come."""


# Nothing is known to be wrong with the records: the same may be tried again.
AGAIN = (LedgerUnavailableError, NotDurableError, AmbiguousError, BatchFencedError, JournalError, UndecidedError)


class Drain:
    """Brings records to the ledger, piece by piece. `settled` is told of each that has come to its end."""

    def __init__(
        self,
        ledger: Ledger,
        session: Session,
        leases: Leases,
        clock: Clock,
        counters: Counters,
        age_ms_max: int,
        settled: Callable[[Kept], None],
        put_aside: Callable[[Record, str], Awaitable[None]],
    ) -> None:
        self._ledger = ledger
        self._session = session
        self._leases = leases
        self._clock = clock
        self._counters = counters
        self._age_ms_max = age_ms_max
        self._tell_settled = settled
        self._put_aside = put_aside
        self._records: dict[bytes, Record] = {}  # of what is being brought, by order
        self._supplies: dict[bytes, Parts] = {}  # units that were found for orders whose own are gone
        self._undecided: list[Kept] = []
        self._done: set[bytes] = set()  # orders of the records that are being brought

    async def bring(self, records: Sequence[Record]) -> None:
        """Bring all of them to their end, but those that wait for units: `bring_undecided` is for these. Raises one of
        AGAIN: all of them are to be brought again, together.
        """
        waiting = len(self._undecided)
        try:
            for piece in _pieces(await self._read(records)):
                await self._bring(piece)
        except BaseException:
            del self._undecided[waiting:]
            raise
        self._done.clear()

    async def bring_undecided(self) -> None:
        """Bring those that wait for units which others have in hand. Raises one of AGAIN, UndecidedError when some
        still do.
        """
        undecided, self._undecided = self._undecided, []
        try:
            for piece in _pieces(undecided):
                await self._bring(piece)
        finally:
            self._undecided = [kept for kept in undecided if kept.order_id in self._records]
            self._done.clear()
        if self._undecided:
            raise UndecidedError(f"{len(self._undecided)} orders wait for units that others have in hand")

    async def _read(self, records: Sequence[Record]) -> list[Kept]:
        """The orders in the records, with as long to be paid as they had when they were accepted."""
        found = []
        for record in records:
            late_ms = self._clock.now_ms() - record.at_ms
            try:
                kept = _kept_in(record, late_ms)
            except ValueError as error:  # Also what msgspec raises.
                await self._refuse(record, f"unreadable: {error}")
                continue
            if kept.order_id in self._done:
                continue
            self._records[kept.order_id] = record
            if late_ms > self._age_ms_max:
                await self._refuse(record, "older than keys are kept: it may be in the ledger already")
                self._leases.till.restore(kept.parts)
                self._settled(kept)
            else:
                found.append(kept)
        return found

    async def _bring(self, piece: Sequence[Kept]) -> None:
        piece = [msgspec.structs.replace(kept, parts=self._supplies.get(kept.order_id, kept.parts)) for kept in piece]
        while piece:
            fenced = await self._commit(piece)
            piece = [again for kept in fenced if (again := await self._supplied(kept)) is not None]

    async def _commit(self, piece: Sequence[Kept]) -> list[Kept]:
        """Those whose units are not there any more; all others have come to their end."""
        try:
            refusals = await self._ledger.commit(ids.new_id(self._clock.now_ms()), [_entry(kept) for kept in piece])
        except PoisonError as error:
            return await self._isolate(piece, error)
        return await self._conclude(piece, refusals)

    async def _isolate(self, piece: Sequence[Kept], error: PoisonError) -> list[Kept]:
        """The ledger refuses a row: halve the piece until the order stands alone; its neighbours are stored."""
        if len(piece) > 1:
            half = len(piece) // 2
            return [*await self._commit(piece[:half]), *await self._commit(piece[half:])]
        await self._refuse(self._records[piece[0].order_id], str(error))
        self._leases.till.restore(piece[0].parts)
        self._settled(piece[0])
        return []

    async def _conclude(self, piece: Sequence[Kept], refusals: Sequence[LedgerRefusal]) -> list[Kept]:
        refused = {refusal.entry.order_id: refusal for refusal in refusals}
        aliases = [
            Alias(refusal.entry.order_id, refusal.stored_order, refusal.stored_fingerprint == refusal.entry.fingerprint)
            for refusal in refusals
            if refusal.verdict == "duplicate" and refusal.stored_order != refusal.entry.order_id
        ]
        if aliases:
            await journals.store_aliases(self._session, aliases)
            log.warning("journal_aliases", orders=len(aliases))
            self._counters.journal_aliases += len(aliases)
        others = {alias.order_id for alias in aliases}
        fenced = []
        for kept in piece:
            refusal = refused.get(kept.order_id)
            if refusal is not None and refusal.verdict == "fenced":
                fenced.append(kept)
                continue
            if kept.order_id in others:
                self._leases.till.restore(kept.parts)
            else:
                self._leases.till.settle(kept.parts)
            self._settled(kept)
        self._counters.journal_drained += len(piece) - len(fenced)
        self._leases.returned()
        return fenced

    async def _supplied(self, kept: Kept) -> Kept | None:
        """The order with other units than those that are gone; None once it has been cancelled for want of any."""
        self._leases.drop(lease for lease, _ in kept.parts)
        self._supplies.pop(kept.order_id, None)
        parts = await self._units(kept.demand)
        if parts is None:
            self._undecided.append(kept)
            return None
        if isinstance(parts, Short):
            await self._lose(kept)
            return None
        # Should nobody know whether the commit with these happened, the next one is asked about the same.
        self._supplies[kept.order_id] = parts
        log.warning("journal_order_supplied", order_id=kept.order_id.hex())
        return msgspec.structs.replace(kept, parts=parts)

    async def _units(self, demand: Demand) -> Parts | Short | None:
        """`Short` when there are none, nor will be; None when nobody can tell now."""
        parts = self._leases.try_reserve(demand) if demand else []
        if parts is not None:
            return parts
        parked = self._leases.park(demand)
        result = await parked.result if parked is not None else OVERLOADED
        return None if isinstance(result, Refusal) else result

    async def _lose(self, kept: Kept) -> None:
        """Store the order as one that is cancelled."""
        at_ms = self._clock.now_ms() - ids.time_of(kept.order_id)
        try:
            row, histories = copied.cancelled(kept.order_row, kept.history_row, at_ms, ACTOR, UNITS_LOST)
            entry = _entry(kept)._replace(order_row=row, history_row=b"".join(histories), parts=[])
            refusals = await self._ledger.commit_lost(ids.new_id(self._clock.now_ms()), [entry])
        except (ValueError, PoisonError) as error:
            await self._refuse(self._records[kept.order_id], str(error))
            self._settled(kept)
            return
        if not refusals:
            log.error("journal_order_lost_its_units", order_id=kept.order_id.hex())
            self._counters.journal_lost += 1
        await self._conclude([msgspec.structs.replace(kept, parts=[])], refusals)

    def _settled(self, kept: Kept) -> None:
        self._supplies.pop(kept.order_id, None)
        self._records.pop(kept.order_id, None)
        self._done.add(kept.order_id)
        self._tell_settled(kept)

    async def _refuse(self, record: Record, why: str) -> None:
        log.error("journal_record_put_aside", sequence=record.sequence, error=why)
        self._counters.journal_put_aside += 1
        await self._put_aside(record, why)


class Drainer:
    """One per worker. Brings its own journal to the ledger, then those of the dead, one at a time."""

    def __init__(
        self,
        journaling: Journaling,
        open_ledger: Callable[[str], Ledger],
        session: Session,
        leases: Leases,
        clock: Clock,
        counters: Counters,
        key_days: int,
        is_open: Callable[[], bool],
    ) -> None:
        """`key_days`: how long the ledger keeps keys; `is_open`: whether it takes orders."""
        self._journaling = journaling
        self._open_ledger = open_ledger
        self._session = session
        self._leases = leases
        self._clock = clock
        self._counters = counters
        self._age_ms_max = key_days * DAY_MS - AGE_MARGIN_MS
        self._is_open = is_open
        self._own: tuple[str, Ledger, Drain] | None = None
        self._orphans: list[_Adopted] = []
        self._looked_at = 0.0
        self._faults: dict[str, str] = {}  # what keeps a journal, as it was said last

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(PAUSE_S)
                if self._journaling.folder is not None and self._is_open():
                    await self.step(self._journaling.folder)
        finally:
            if self._own is not None:
                self._own[1].close()
            for adopted in self._orphans:
                adopted.ledger.close()
                adopted.orphan.close(remove=False)
            self._orphans.clear()

    async def step(self, folder: Path) -> None:
        """Bring what there is. What cannot be brought now stays for the next time, and holds up nothing else: units
        that one journal's orders wait for may be kept for another one's.
        """
        if self._journaling.left:
            await self._try("own", self._drain_own(folder))
        for adopted in list(self._orphans):
            await self._try(adopted.orphan.owner, self._bury(adopted))
        now = time.monotonic()
        if now - self._looked_at >= ADOPT_S:
            self._looked_at = now
            await self._try("adopt", self._adopt(folder))

    async def _try(self, what: str, bringing: Coroutine[Any, Any, None]) -> None:
        """Say once what keeps it."""
        try:
            await bringing
        except AGAIN as error:
            fault = repr(error)
            if self._faults.get(what) != fault:
                log.warning("drain_stopped", journal=what, error=fault)
            self._faults[what] = fault
        else:
            self._faults.pop(what, None)

    async def _drain_own(self, folder: Path) -> None:
        owner = self._journaling.owner
        if self._own is None or self._own[0] != owner:
            ledger = self._open_ledger(owner)
            put_aside = partial(_put_aside, folder, owner)
            self._own = owner, ledger, self._drain(ledger, self._journaling.settled, put_aside)
        _, ledger, drain = self._own
        brought = 0
        try:
            while records := await self._journaling.read():
                brought += len(records)
                await drain.bring(records)
                await self._journaling.passed(records[-1])
            await drain.bring_undecided()
            await self._journaling.passed(None)
        finally:
            ledger.close()
            if brought:
                log.info("journal_drained", orders=brought, left=self._journaling.left)

    async def _adopt(self, folder: Path) -> None:
        """Take up all that nobody holds, and bring each to its end."""
        held = {self._journaling.owner, *(adopted.orphan.owner for adopted in self._orphans)}
        while (orphan := await asyncio.to_thread(_next_orphan, folder, held)) is not None:
            ledger = self._open_ledger(orphan.owner)
            drain = self._drain(ledger, self._journaling.settled, partial(_put_aside, folder, orphan.owner))
            adopted = _Adopted(orphan, ledger, drain)
            self._orphans.append(adopted)
            held.add(orphan.owner)
            log.warning(
                "journal_adopted", owner=orphan.owner, torn_bytes=orphan.torn_bytes, damages=len(orphan.damaged)
            )
            self._counters.journals_adopted += 1
            self._counters.journal_damages += len(orphan.damaged)
            await self._try(orphan.owner, self._bury(adopted))

    async def _bury(self, adopted: "_Adopted") -> None:
        """Every record becomes a row, the owner's leases are closed, and the file goes: in this order."""
        orphan = adopted.orphan
        await journals.end_committer(self._session, orphan.owner)
        try:
            while records := await asyncio.to_thread(orphan.read, adopted.read_to, PIECE_BYTES):
                await adopted.drain.bring(records)
                adopted.read_to = records[-1].sequence
            await adopted.drain.bring_undecided()
        finally:
            adopted.ledger.close()
        units = await journals.bury(self._session, orphan.owner, self._leases.home)
        self._leases.returned()
        self._orphans.remove(adopted)
        await asyncio.to_thread(orphan.close, remove=True)
        log.info("journal_done", owner=orphan.owner, units=units)

    def _drain(
        self, ledger: Ledger, settled: Callable[[Kept], None], put_aside: Callable[[Record, str], Awaitable[None]]
    ) -> Drain:
        return Drain(
            ledger, self._session, self._leases, self._clock, self._counters, self._age_ms_max, settled, put_aside
        )


class _Adopted(msgspec.Struct, eq=False):
    orphan: Orphan
    ledger: Ledger
    drain: Drain
    read_to: int = 0


def _next_orphan(folder: Path, held: Collection[str]) -> Orphan | None:
    return next(iter(adopt(folder, held)), None)


async def _put_aside(folder: Path, owner: str, record: Record, why: str) -> None:
    await asyncio.to_thread(quarantine, folder, owner, record, why)


def _kept_in(record: Record, late_ms: int) -> Kept:
    """The order in a record, with as long to be paid as it had `late_ms` ago. Raises ValueError."""
    if record.kind != ORDER:
        raise ValueError(f"a record of kind {record.kind}")
    kept = decode_kept(record.payload)
    return msgspec.structs.replace(kept, order_row=copied.expiring_later(kept.order_row, late_ms))


def _entry(kept: Kept) -> Entry:
    return Entry(
        kept.order_id,
        kept.key_hash,
        kept.fingerprint,
        kept.parts,
        kept.order_row,
        kept.line_rows,
        kept.history_row,
        kept.key_row,
    )


def _pieces(kept: Sequence[Kept]) -> list[list[Kept]]:
    """What one commit takes each: so many orders, and a key once."""
    pieces: list[list[Kept]] = [[]]
    keys: set[bytes] = set()
    for one in kept:
        if len(pieces[-1]) == PIECE_ORDERS_MAX or one.key_hash in keys:
            pieces.append([])
            keys.clear()
        pieces[-1].append(one)
        keys.add(one.key_hash)
    return pieces if kept else []
