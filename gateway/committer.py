"""The committer: takes what waits, commits it in one transaction, and answers the buyers. It runs in a task of its own,
so no buyer's connection can end a commit.

It promises that every batch ends in knowledge: an ambiguous one is resolved by its outcome in the ledger before
anything else is done with its orders, or goes to the journal whole, whose records are told apart from what the ledger
has by their ids. While the ledger is away batches go to the journal, if there is one. A buyer who has waited too long
is told to come back; his order is then settled without him.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import structlog

from core_ext import ids
from gateway.admission import Admission
from gateway.batch import BatchQueue, Pending
from gateway.clock import Clock
from gateway.domain.outcomes import RECEIPT, Accepted, Refusal
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.limits import limit_reached
from gateway.metrics import Counters
from gateway.publisher import Publisher
from gateway.tasks import Tasks
from gateway.tracing import Trace, Tracer
from persistence.errors import LedgerUnavailableError, NotDurableError, PoisonError
from persistence.journal import JournalError, JournalFullError
from persistence.postgres import control, ledger
from persistence.postgres.orders import StoredKey
from persistence.postgres.session import Session

RETRY_MIN_S = 0.02
RETRY_MAX_S = 0.5
WATCHES = 10  # how often, within the longest wait of a buyer, somebody looks who has waited that long
FENCED_TRIES = 3  # an order that finds its leases closed this often is told that the units may come back

log = structlog.get_logger("committer")


class Doubt(NamedTuple):
    """A batch that nobody knows the outcome of: how its commit ended, and under whose name its backend runs, which may
    not be that of the owner any more when somebody asks.
    """

    batch_id: bytes
    error: ledger.AmbiguousError
    owner: str


class AwayError(Exception):
    """The ledger did not settle a batch in time, and the journal may have it. In doubt it may be in the ledger all the
    same.
    """

    def __init__(self, doubt: Doubt | None = None) -> None:
        super().__init__("the ledger is away")
        self.doubt = doubt


class Committer:
    """One lane: one owner of leases, one connection."""

    def __init__(
        self,
        open_ledger: Callable[[str], ledger.Ledger],
        control_session: Session,
        queue: BatchQueue,
        leases: Leases,
        admission: Admission,
        publisher: Publisher,
        clock: Clock,
        tasks: Tasks,
        counters: Counters,
        reply_s_max: float,
        journaling: Journaling,
        tracer: Tracer | None = None,
    ) -> None:
        self._open_ledger = open_ledger
        self._owner = leases.owner
        self._ledger = open_ledger(leases.owner)
        self._control = control_session
        self._queue = queue
        self._leases = leases
        self._admission = admission
        self._publisher = publisher
        self._clock = clock
        self._tasks = tasks
        self._counters = counters
        self._reply_s_max = reply_s_max
        self._journaling = journaling
        self._probing = False
        self._settled = asyncio.Event()  # while no batch is being tried
        self._settled.set()
        self._turn = asyncio.Lock()  # to use the ledger's connection
        self._tracer = tracer
        self._under_way: Sequence[Pending] = ()
        self._busy_since = math.inf  # the end of the commit before, on the clock that does not step; inf after a rest

    async def run(self) -> None:
        """Commit until the queue is closed and empty."""
        while True:
            if not self._admission.open and not self._queue.closed:
                self._ensure_probing()
                if not self._journaling.usable:
                    self._busy_since = math.inf
                    await asyncio.sleep(RETRY_MIN_S)
                    continue
            if not len(self._queue):
                self._busy_since = math.inf
            batch = await self._queue.take()
            if not batch:
                break
            self._under_way = batch
            self._busy_since = min(self._busy_since, time.monotonic())
            try:
                await (self._keep(batch) if self._goes_to_journal() else self._commit(batch))
            except BaseException as error:
                self._abandon(batch, "ledger_away" if isinstance(error, asyncio.CancelledError) else "internal")
                raise
            finally:
                self._under_way = ()
        self._ledger.close()

    async def watch(self) -> None:
        """Answer the buyers who have waited too long, until cancelled: a ledger that hangs keeps nobody for ever."""
        while True:
            await asyncio.sleep(self._reply_s_max / WATCHES)
            self.answer_overdue(self._clock.steady_s() - self._reply_s_max)

    def answer_overdue(self, before_s: float) -> None:
        """Tell buyers who have waited since before `before_s` to come back. An order of the commit under way is settled
        without its buyer; one that was not sent gives its units back.
        """
        for pending in self._under_way:
            if pending.queued_at < before_s:
                pending.answer(Refusal("ledger_away"))
        overdue = self._queue.take_overdue(before_s)
        if overdue:
            log.warning("orders_not_sent", orders=len(overdue))
            self._refuse(overdue, Refusal("ledger_away"))

    async def _reopen(self) -> None:
        try:
            async with self._turn:
                await self._ledger_of_owner().ensure_open()
        except (LedgerUnavailableError, NotDurableError) as error:
            log.warning("ledger_away", error=str(error))
            await asyncio.sleep(RETRY_MAX_S)
            return
        self._set_open(is_open=self._clock.known)
        if not self._admission.open:
            await asyncio.sleep(RETRY_MIN_S)

    def _set_open(self, *, is_open: bool) -> None:
        if is_open and not self._admission.open:
            self._journaling.note_open()
        self._admission.open = is_open
        self._leases.away = not is_open
        if not is_open:
            self._ensure_probing()

    def _goes_to_journal(self) -> bool:
        return not self._admission.open and self._journaling.usable

    def _ensure_probing(self) -> None:
        """Somebody tries the ledger as long as it is away, whether orders come or not: without it no stock does."""
        if not self._probing and not self._queue.closed:
            self._probing = True
            self._tasks.start(self._probe())

    async def _probe(self) -> None:
        """Try the ledger until it is back; admission stays closed meanwhile. A batch that is being tried says more
        about it than a connection does.
        """
        try:
            while not self._admission.open and not self._queue.closed:
                await self._settled.wait()
                await self._reopen()
        finally:
            self._probing = False

    async def _keep(self, batch: Sequence[Pending], away: AwayError | None = None) -> None:
        """The batch goes to the journal, and whoever waits gets a receipt. Units stay promised until the orders are
        rows, or are known not to become any.
        """
        self._set_open(is_open=False)
        doubt = away.doubt if away is not None else None
        if doubt is not None:
            self._tasks.start(self._end(doubt))
        kept = self._without_limits(batch, doubt)
        started = time.monotonic()
        try:
            if kept:
                await self._journaling.append(kept)
        except JournalError as error:
            await self._not_kept(kept, doubt, error)
            return
        self._busy_since = time.monotonic()
        self._queue.committed(len(kept), self._busy_since - started)
        for pending in kept:
            pending.answer(RECEIPT)

    async def _end(self, doubt: Doubt) -> None:
        """See to it that the commit of a batch in doubt is over: as long as it hangs in the server it holds what the
        next ones wait for. What became of it is told by the ids of its records.
        """
        while not self._queue.closed:
            with suppress(LedgerUnavailableError):
                await self._ask(doubt)
                return
            await asyncio.sleep(RETRY_MAX_S)

    def _without_limits(self, batch: Sequence[Pending], doubt: Doubt | None) -> Sequence[Pending]:
        """The orders that no limit can turn away: only these may be promised. The buyers of the others come again."""
        limited = [pending for pending in batch if pending.entry.limits]
        if not limited:
            return batch
        if doubt is None:
            self._refuse(limited, Refusal("ledger_away"))
        else:
            for pending in limited:
                pending.answer(Refusal("ledger_away"))
            self._tasks.start(self._find_out(limited, doubt))
        return [pending for pending in batch if not pending.entry.limits]

    async def _find_out(self, orders: Sequence[Pending], doubt: Doubt) -> None:
        """What became of orders in doubt whose buyers are gone; the relay sends the events of those that live."""
        dead = {refusal.entry.key_hash for refusal in doubt.error.refusals}
        committed = await self._resolve(doubt)
        for pending in orders:
            if committed and pending.entry.key_hash not in dead:
                self._leases.till.settle(pending.entry.parts)
                self._counters.created(pending.lines, pending.units)
            else:
                self._leases.till.restore(pending.entry.parts)
        self._leases.returned()

    async def _not_kept(self, batch: Sequence[Pending], doubt: Doubt | None, error: JournalError) -> None:
        """The journal was full and has nothing of the batch: what the ledger has not either is free again. Or nobody
        knows what it has: then the worker leaves, and units that may be promised somewhere stay so to its end.
        """
        if not isinstance(error, JournalFullError):
            for pending in batch:
                pending.answer(Refusal("ledger_away"))
        elif doubt is not None and await self._resolve(doubt):
            await self._settle(doubt.batch_id, batch, doubt.error.refusals)
        else:
            self._refuse(batch, Refusal("ledger_away"))

    async def _commit(self, batch: Sequence[Pending]) -> None:
        started = time.monotonic()
        self._settled.clear()
        try:
            known = await self._commit_until_known(batch, started + self._reply_s_max)
        except PoisonError as error:
            await self._isolate(batch, error)
            return
        except AwayError as error:
            await self._keep(batch, error)
            return
        finally:
            self._settled.set()
        if known is None:
            self._refuse(batch, Refusal("ledger_away"))
            return
        batch_id, refusals = known
        now = time.monotonic()
        seconds = now - started
        self._counters.batch(len(batch) - len(refusals), seconds)
        # With what the loop did between two commits: only all of it together tells how soon one more comes to its turn.
        self._queue.committed(len(batch), now - self._busy_since)
        self._busy_since = now
        if self._tracer is not None:
            orders = {"floodgate.batch.orders": len(batch), "floodgate.batch.refused": len(refusals)}
            self._tracer.together("commit", "CLIENT", _traces(batch), seconds, orders)
        await self._settle(batch_id, batch, refusals)

    async def _commit_until_known(
        self, batch: Sequence[Pending], deadline: float
    ) -> tuple[bytes, list[ledger.Refusal]] | None:
        """The batch's id and the orders that do not live; None when the batch has not happened and nobody waits any
        longer. Raises PoisonError; with a journal, AwayError once the ledger has not done it within its patience.
        """
        pause, started = RETRY_MIN_S, time.monotonic()
        while True:
            batch_id = ids.new_id(self._clock.now_ms())
            try:
                async with self._patience(started, batch_id), self._turn:
                    return batch_id, await self._ledger_of_owner().commit(batch_id, [each.entry for each in batch])
            except ledger.AmbiguousError as error:
                log.warning("batch_ambiguous", batch_id=batch_id.hex(), orders=len(batch))
                self._counters.ambiguous += 1
                doubt = Doubt(batch_id, error, self._owner)
                async with self._patience(started, batch_id, doubt):
                    if await self._resolve_soon(doubt):
                        return batch_id, error.refusals
            except ledger.BatchFencedError:
                log.warning("batch_id_exists")
            except (LedgerUnavailableError, NotDurableError) as error:
                log.warning("batch_failed", orders=len(batch), error=str(error))
                if not self._journaling.usable:
                    self._set_open(is_open=False)
                    if time.monotonic() >= deadline:
                        return None
                elif pause > RETRY_MIN_S:  # Once may be a deadlock, or a connection that broke.
                    raise AwayError from error
                await asyncio.sleep(pause)
                pause = min(2 * pause, RETRY_MAX_S)

    @asynccontextmanager
    async def _patience(self, started: float, batch_id: bytes, doubt: Doubt | None = None) -> AsyncIterator[None]:
        """No longer than the journal's patience, if there is one. What is cut off ends its connection, and is in
        doubt: how it ended is the same as if COMMIT had not been answered.
        """
        if not self._journaling.usable:
            yield
            return
        try:
            async with asyncio.timeout(max(started + self._journaling.patience_s - time.monotonic(), 0.0)):
                yield
        except TimeoutError as error:
            cut_off = ledger.AmbiguousError(self._ledger.backend_pid, [])
            raise AwayError(doubt or Doubt(batch_id, cut_off, self._owner)) from error

    async def _resolve_soon(self, doubt: Doubt) -> bool:
        """As `_resolve`; with a journal, raises AwayError rather than ask for long."""
        if not self._journaling.usable:
            return await self._resolve(doubt)
        try:
            return await self._ask(doubt)
        except LedgerUnavailableError as error:
            raise AwayError(doubt) from error

    async def _resolve(self, doubt: Doubt) -> bool:
        """Whether an ambiguous batch was committed. Asks until it knows, however long that takes."""
        while True:
            try:
                return await self._ask(doubt)
            except LedgerUnavailableError:
                self._set_open(is_open=False)
                await asyncio.sleep(RETRY_MAX_S)

    async def _ask(self, doubt: Doubt) -> bool:
        """Whether the batch was committed. Its backend is over then."""
        return await control.resolve(self._control, doubt.batch_id, doubt.error.backend_pid, doubt.owner)

    async def _settle(self, batch_id: bytes, batch: Sequence[Pending], refusals: list[ledger.Refusal]) -> None:
        """The batch is committed: answer its orders, and see to those that do not live."""
        refused = {refusal.entry.key_hash: refusal for refusal in refusals}
        living = [pending for pending in batch if pending.entry.key_hash not in refused] if refused else batch
        for pending in living:
            self._leases.till.settle(pending.entry.parts)
            self._counters.created(pending.lines, pending.units)
            pending.answer(Accepted(pending.entry.order_id, pending.body))
        if living:
            traces = _traces(living) if self._tracer is not None else ()
            self._publisher.put(batch_id, [pending.event for pending in living], traces)
        if refused:
            await self._settle_refused(batch, refused)
        self._leases.returned()

    async def _settle_refused(self, batch: Sequence[Pending], refused: dict[bytes, ledger.Refusal]) -> None:
        """Those of the batch that do not live, by the hash of their key."""
        for pending in batch:
            refusal = refused.get(pending.entry.key_hash)
            if refusal is not None and refusal.verdict == "duplicate":
                self._leases.till.restore(pending.entry.parts)
                self._tasks.start(self._replay(pending, refusal))
            elif refusal is not None and refusal.verdict == "limit":
                self._leases.till.restore(pending.entry.parts)
                pending.answer(limit_reached(pending.body, refusal.entry.limits, dict(refusal.taken)))
        fenced = [
            pending
            for pending in batch
            if pending.entry.key_hash in refused and refused[pending.entry.key_hash].verdict == "fenced"
        ]
        if fenced:
            await self._readmit(fenced)

    async def _replay(self, pending: Pending, refusal: ledger.Refusal) -> None:
        """Answer a retry with the order that its key belongs to."""
        stored = StoredKey(refusal.stored_order, refusal.stored_fingerprint)
        try:
            pending.answer(await self._admission.replay(stored, pending.entry.fingerprint, pending.client))
        except LedgerUnavailableError:
            pending.answer(Refusal("ledger_away"))
        finally:
            pending.answer(Refusal("internal"))

    async def _readmit(self, fenced: Sequence[Pending]) -> None:
        """The ledger refuses the leases of these orders: give up the leases, and find the orders other units."""
        log.warning("orders_fenced", orders=len(fenced))
        self._counters.fenced += len(fenced)
        leases = {lease for pending in fenced for lease, _ in pending.entry.parts}
        for pending in fenced:
            self._leases.till.restore(pending.entry.parts)
        try:
            await self._leases.replace(sorted(leases))
        except LedgerUnavailableError:
            log.warning("leases_left_to_the_heartbeat", leases=len(leases))
        for pending in fenced:
            pending.tries += 1
            if pending.tries > FENCED_TRIES:
                pending.answer(Refusal("stock_returning"))
            else:
                self._admission.readmit(pending)

    async def _isolate(self, batch: Sequence[Pending], error: PoisonError) -> None:
        """PostgreSQL refuses a row: halve the batch until the order stands alone; its neighbours are committed."""
        if len(batch) > 1:
            half = len(batch) // 2
            await self._commit(batch[:half])
            await self._commit(batch[half:])
            return
        log.error("order_refused_by_ledger", order_id=batch[0].entry.order_id.hex(), error=str(error))
        self._refuse(batch, Refusal("internal"))

    def _abandon(self, batch: Sequence[Pending], code: str) -> None:
        """The commit ended in a way that nobody foresaw. What became of it only the ledger knows, so its leases leave
        the till, and the heartbeat closes what is unsold of them.
        """
        self._leases.drop(lease for pending in batch for lease, _ in pending.entry.parts)
        for pending in batch:
            pending.answer(Refusal(code))

    def _refuse(self, batch: Sequence[Pending], refusal: Refusal) -> None:
        """The batch has not happened: its units are free again."""
        for pending in batch:
            self._leases.till.restore(pending.entry.parts)
            pending.answer(refusal)
        self._leases.returned()

    def _ledger_of_owner(self) -> ledger.Ledger:
        """The connection carries the owner's name, by which others end it once the owner is declared dead."""
        if self._owner != self._leases.owner:
            self._ledger.close()
            self._owner = self._leases.owner
            self._ledger = self._open_ledger(self._owner)
        return self._ledger


def _traces(batch: Sequence[Pending]) -> list[Trace]:
    """Of the orders that are sampled."""
    return [pending.trace for pending in batch if pending.trace is not None]
