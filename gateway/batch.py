"""The queue between admission and committer: bounded in count, bytes and time. What it holds has a reservation, and a
buyer who waits.

The committer takes all there is, up to one commit: an idle gateway commits a batch of one at once, a busy one commits
hundreds together. A buyer of a SKU with a limit stands in a batch once: his next order waits behind the first.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from gateway.domain.access import Client
from gateway.domain.outcomes import Outcome, Promise
from gateway.settings import Batch
from gateway.tracing import Trace
from persistence.nats.stream import Event
from persistence.postgres.ledger import Entry, Limit

# Orders of one buyer of a SKU with a limit that may wait behind another: each of them costs a commit of its own.
BEHIND_MAX = 100

# An order waits for the commit under way, then for its own one, which takes about as long. Who would have to wait
# longer is told to come back: else a gateway that is offered more than it can take answers everybody late.
WAIT_S_MAX = 0.04
WAITING_MIN = 256  # orders that may wait at any rate
TELLING_MIN = 64  # orders of a commit that tells the rate
RATE_WEIGHT = 0.3  # of the latest one

Buyer = tuple[str, str]  # stock key and customer


class Pending(Struct, eq=False):
    """An admitted order on its way into the ledger. `outcome` is what its buyer waits for."""

    client: Client
    entry: Entry
    demand: list[tuple[str, int]]
    event: Event
    body: bytes
    size: int  # bytes of the rows
    lines: int
    units: int
    outcome: Promise
    queued_at: float = 0.0
    tries: int = 0
    trace: Trace | None = None  # when it is sampled

    def answer(self, outcome: Outcome) -> None:
        """Answer the buyer, once: a later word about the same order changes nothing."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class BatchQueue:
    """First in, first out. `put` never waits: who finds no `room` is refused."""

    def __init__(self, settings: Batch) -> None:
        self._settings = settings
        self._waiting: deque[Pending] = deque()
        self._behind: dict[Pending, None] = {}  # in order of arrival, those who wait for another of the same buyer
        self._lines: dict[Buyer, deque[Pending]] = {}  # all orders of a buyer, in order of arrival
        self._bytes = 0
        self._filled = asyncio.Event()
        self._closed = False
        self._rate = 0.0  # orders that are committed in a second; 0 when it is not known

    def __len__(self) -> int:
        return len(self._waiting) + len(self._behind)

    @property
    def size(self) -> int:
        """Bytes of the rows that wait."""
        return self._bytes

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def waiting_max(self) -> int:
        """How many may wait, so that none of them waits much longer than WAIT_S_MAX for its commit to begin."""
        if not self._rate:
            return self._settings.queue_rows_max
        return min(self._settings.queue_rows_max, max(WAITING_MIN, int(self._rate * WAIT_S_MAX)))

    @property
    def is_full(self) -> bool:
        """Whether nobody may wait any more, by count or bytes."""
        return len(self) >= self.waiting_max or self._bytes >= self._settings.queue_bytes_max

    def committed(self, orders: int, seconds: float) -> None:
        """So many were committed in so long, without a rest. A small commit does not tell how many there could be."""
        if orders >= TELLING_MIN and seconds > 0:
            rate = orders / seconds
            self._rate += (rate - self._rate) * (RATE_WEIGHT if self._rate else 1.0)

    def room(self, now_s: float, limits: Sequence[Limit] = ()) -> bool:
        """Whether one more order, with these limits, may wait. An old head matters only when more than one commit is
        waiting: else the next commit takes all.
        """
        bounds = self._settings
        if self.is_full:
            return False
        if limits and any(len(self._lines.get(limit.buyer, ())) > BEHIND_MAX for limit in limits):
            return False
        if len(self._waiting) < bounds.rows_max and self._bytes < bounds.bytes_max:
            return True
        return now_s - self._waiting[0].queued_at < bounds.age_ms_max / 1000

    def put(self, pending: Pending, now_s: float) -> None:
        """Queue an order. It is committed, or answered otherwise, whatever happens to its buyer's connection."""
        pending.queued_at = now_s
        self._bytes += pending.size
        self._line_up(pending)
        self._filled.set()

    def close(self) -> None:
        """No more orders come. `take` hands out what waits, then nothing."""
        self._closed = True
        self._filled.set()

    def take_overdue(self, before_s: float) -> list[Pending]:
        """The orders that have waited since before `before_s`; they leave the queue, and nothing of them was sent."""
        taken = [pending for pending in (*self._waiting, *self._behind) if pending.queued_at < before_s]
        if taken:
            self._waiting = deque(pending for pending in self._waiting if pending.queued_at >= before_s)
            self._behind = {pending: None for pending in self._behind if pending.queued_at >= before_s}
            self._bytes -= sum(pending.size for pending in taken)
            self._leave(taken)
        return taken

    async def take(self) -> list[Pending]:
        """One commit's worth, as soon as there is anything; empty when the queue is closed and done."""
        while not self._waiting and not self._closed:
            self._filled.clear()
            await self._filled.wait()
        taken: list[Pending] = []
        size = 0
        while self._waiting and len(taken) < self._settings.rows_max:
            if taken and size + self._waiting[0].size > self._settings.bytes_max:
                break
            pending = self._waiting.popleft()
            size += pending.size
            taken.append(pending)
        self._bytes -= size
        self._leave(taken)
        return taken

    def _line_up(self, pending: Pending) -> None:
        """At the end of the queue, or behind the order of a buyer who stands in it already."""
        for limit in pending.entry.limits:
            self._lines.setdefault(limit.buyer, deque()).append(pending)
        if self._is_first(pending):
            self._waiting.append(pending)
        else:
            self._behind[pending] = None

    def _is_first(self, pending: Pending) -> bool:
        return all(self._lines[limit.buyer][0] is pending for limit in pending.entry.limits)

    def _leave(self, taken: Sequence[Pending]) -> None:
        """These orders leave the queue for good. Those that were behind them, and are behind nobody else, come to its
        front.
        """
        if not self._lines:
            return
        gone = set(taken)
        buyers = dict.fromkeys(limit.buyer for pending in taken for limit in pending.entry.limits)
        for buyer in buyers:
            line = deque(pending for pending in self._lines.pop(buyer) if pending not in gone)
            if line:
                self._lines[buyer] = line
        heads = dict.fromkeys(self._lines[buyer][0] for buyer in buyers if buyer in self._lines)
        first = [pending for pending in heads if pending in self._behind and self._is_first(pending)]
        for pending in first:
            del self._behind[pending]
        self._waiting.extendleft(reversed(first))
