"""The worker's journal: where its orders go while the ledger is away, so that they are durable before their buyers are
told so. What it has taken is brought to the ledger later (gateway/draining.py).

It promises that an order is on the disk when `append` returns, that its units are kept from everybody else until its
row is in the ledger, and that nothing is taken before the ledger knows of the journal: only the holder of its lock, who
has replayed it, may close this owner's leases.
"""

import asyncio
import math
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from gateway.batch import Pending
from gateway.clock import Clock
from gateway.live import Live
from gateway.metrics import Counters
from gateway.settings import Journal as JournalSettings
from persistence.journal import Journal, JournalError, JournalFullError, Record

ORDER = 1  # the kind of a record that is an order
PIECE_BYTES = 400_000  # of records that are brought to the ledger at once
# How long nothing is tried after the journal was found full: the disk may have room again.
FULL_S = 1.0

T = TypeVar("T")

log = structlog.get_logger("journal")


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """An order as the journal keeps it: what its entry in the ledger is made of, and the units that it wants, should
    those of its parts be gone. What is personal in its rows is sealed.
    """

    order_id: bytes
    key_hash: bytes
    fingerprint: bytes
    parts: list[tuple[bytes, int]]
    demand: list[tuple[str, int]]
    order_row: bytes
    line_rows: list[bytes]
    history_row: bytes
    key_row: bytes


_encode = msgspec.msgpack.Encoder().encode
decode_kept = msgspec.msgpack.Decoder(Kept).decode


class Journaling:
    """One per worker. `named` is the owner that the ledger knows to have this journal."""

    def __init__(self, settings: JournalSettings, live: Live, clock: Clock, counters: Counters) -> None:
        """Without a folder there is no journal, and `usable` stays False."""
        self.folder = Path(settings.folder) if settings.folder else None
        self.patience_s = settings.patience_ms / 1000
        self.named = ""
        self.receipts: dict[bytes, bytes] = {}  # key -> fingerprint of the body, of orders that are not rows yet
        self.others_may_hold = False  # orders of which the ledger does not know yet, in their journals
        self.back_at_s = 0.0  # when the ledger came back last, on PostgreSQL's clock
        self._was_open = False
        self.fault = "" if self.folder else "no folder"
        self.on_poisoned: Callable[[], None] = lambda: None
        self._bytes_max = settings.bytes_max
        self._live = live
        self._clock = clock
        self._counters = counters
        self._thread = ThreadPoolExecutor(1, "journal")
        self._file: Journal | None = None
        self._owner = ""
        self._pinned: Counter[bytes] = Counter()  # leases, by the orders here that have units of them
        self._leases_of: dict[bytes, set[bytes]] = {}  # by order
        self._read_to = 0  # the last record that is a row
        self._full_until = -math.inf

    @property
    def usable(self) -> bool:
        """Whether orders may be appended now. Before the ledger has taken orders for the first time it has nothing to
        stand for: there are no units in hand.
        """
        return (
            self._was_open
            and bool(self.named)
            and self.named == self._owner
            and self.wanted
            and self._file is not None
            and not self._file.poisoned
            and time.monotonic() >= self._full_until
        )

    @property
    def wanted(self) -> bool:
        """Whether the settings want orders to go on while the ledger is away."""
        return self._live.journal_mode == "journal"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in it that is not a row, nor about to be, nor may be in it without anybody knowing."""
        return not self._leases_of

    @property
    def left(self) -> int:
        """Orders of which that cannot be said."""
        return len(self._leases_of)

    @property
    def owner(self) -> str:
        """Whose journal it is; empty when there is none."""
        return self._owner

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._file.size if self._file is not None else 0

    def note_open(self) -> None:
        """The ledger takes orders. Unless it does for the first time it has been away, and until the next heartbeat
        nobody knows who else has taken orders meanwhile.
        """
        if self._was_open:
            self.back_at_s = self._clock.now_s()
            self.others_may_hold = True
        self._was_open = True

    def pins(self, lease: bytes) -> bool:
        """Whether an order in the journal has units of this lease, which nobody may close before it is a row."""
        return lease in self._pinned

    async def ensure_open(self, owner: str) -> str | None:
        """The path of this owner's journal, which is made if need be; None when there cannot be one. The journal of an
        owner before is left to whoever adopts it.
        """
        if self.folder is None:
            return None
        if self._file is None or self._owner != owner:
            await self.close(remove=self.is_empty)
            try:
                self._file = await self._run(lambda folder: Journal.create(folder, owner, _host(), self._bytes_max))
            except JournalError as error:
                self._fail(str(error))
                return None
            self._owner, self.fault = owner, ""
        return str(self._file.path)

    async def append(self, batch: Sequence[Pending]) -> None:
        """Make the orders durable here. Their units stay promised. Raises JournalFullError: nothing of them is here;
        JournalError: they may be, nobody knows, and nothing will be appended any more.
        """
        file, records = self._file, [(ORDER, _encode(_kept(pending))) for pending in batch]
        if file is None or self.named != self._owner:  # The settings have changed while the ledger was tried.
            raise JournalFullError("there is no journal any more")
        at_ms, started = self._clock.now_ms(), time.monotonic()
        self._pin(batch)
        try:
            await self._do(file, lambda: file.append(records, at_ms))
        except JournalFullError as error:
            self._full_until = time.monotonic() + FULL_S
            for pending in batch:
                self._unpin(pending.entry.order_id)
            self._fail(str(error))
            raise
        self.fault = ""
        if self._file is file:
            self.receipts.update((pending.entry.key_hash, pending.entry.fingerprint) for pending in batch)
        self._counters.journaled += len(batch)
        self._counters.journal_seconds.observe(time.monotonic() - started)

    async def read(self) -> list[Record]:
        """The next records that are no rows, in order; none when all are."""
        file = self._file
        return await self._do(file, lambda: file.read(self._read_to, PIECE_BYTES)) if file is not None else []

    def settled(self, kept: Kept) -> None:
        """The order is a row, or what becomes of it is known otherwise. One that was in the journal of another process
        is none of ours, although we may have one with its key.
        """
        if kept.order_id not in self._leases_of:
            return
        self.receipts.pop(kept.key_hash, None)
        self._unpin(kept.order_id)

    async def passed(self, record: Record | None) -> None:
        """Everything up to this record has been brought. When nothing is left the file begins anew."""
        if record is not None:
            self._read_to = record.sequence
        file = self._file
        if self.is_empty and file is not None and not file.poisoned:
            await self._do(file, file.clear)

    async def close(self, *, remove: bool) -> None:
        """Let go of the file. Unless it is removed, it is adopted by whoever looks next, and what is in it is his
        affair: nobody would tell this worker what becomes of it.
        """
        file, self._file = self._file, None
        self.named = self._owner = ""
        self._read_to = 0
        for kept in (self.receipts, self._pinned, self._leases_of):
            kept.clear()
        if file is not None:
            try:
                await self._run(lambda _: file.close(remove=remove))
            except JournalError as error:  # Its lock is given up all the same: somebody adopts what is there.
                log.error("journal_not_put_away", path=str(file.path), error=str(error))  # noqa: TRY400 - no bug of ours

    def _pin(self, batch: Sequence[Pending]) -> None:
        for pending in batch:
            self._leases_of[pending.entry.order_id] = leases = {lease for lease, _ in pending.entry.parts}
            self._pinned.update(leases)

    def _unpin(self, order_id: bytes) -> None:
        for lease in self._leases_of.pop(order_id, ()):
            self._pinned[lease] -= 1
            if not self._pinned[lease]:
                del self._pinned[lease]

    async def _do(self, file: Journal, call: Callable[[], T]) -> T:
        """Call the file. One that is not to be trusted any more, since it may have lost what was acknowledged, or not
        have what will be, makes the worker leave: its successor adopts what can be read.
        """
        try:
            return await self._run(lambda _: call())
        finally:
            if file.poisoned:
                self._fail("the journal is not to be trusted any more")
                self.on_poisoned()

    async def _run(self, call: Callable[[Path], T]) -> T:
        """In the journal's own thread, one call after the other."""
        assert self.folder is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, self.folder)

    def _fail(self, why: str) -> None:
        if why != self.fault:
            log.error("journal_refuses", error=why)
        self.fault = why


def _kept(pending: Pending) -> Kept:
    entry = pending.entry
    return Kept(
        entry.order_id,
        entry.key_hash,
        entry.fingerprint,
        entry.parts,
        pending.demand,
        entry.order_row,
        entry.line_rows,
        entry.history_row,
        entry.key_row,
    )


def _host() -> str:
    return socket.gethostname()
