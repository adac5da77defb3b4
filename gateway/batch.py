"""The queue between admission and committer: bounded in count, bytes and age. What it holds has a reservation, and a
buyer who waits.

The committer takes all there is, up to one commit: an idle gateway commits a batch of one at once, a busy one commits
hundreds together.
"""

import asyncio
from collections import deque

from msgspec import Struct

from gateway.domain.access import Client
from gateway.domain.outcomes import Outcome
from gateway.settings import Batch
from persistence.nats.stream import Event
from persistence.postgres.ledger import Entry


class Pending(Struct, eq=False):
    """An admitted order on its way into the ledger. `outcome` is what its buyer waits for; `answered` tells whether
    anyone still does.
    """

    client: Client
    entry: Entry
    demand: list[tuple[str, int]]
    event: Event
    body: bytes
    size: int  # bytes of the rows
    lines: int
    units: int
    outcome: asyncio.Future[Outcome]
    queued_at: float = 0.0
    tries: int = 0

    def answer(self, outcome: Outcome) -> None:
        """Answer the buyer, once: a later word about the same order changes nothing."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


class BatchQueue:
    """First in, first out. `put` never waits: who finds no `room` is refused."""

    def __init__(self, settings: Batch) -> None:
        self._settings = settings
        self._waiting: deque[Pending] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size(self) -> int:
        """Bytes of the rows that wait."""
        return self._bytes

    @property
    def closed(self) -> bool:
        return self._closed

    def room(self, now_s: float) -> bool:
        """Whether one more order may wait. An old head matters only when more than one commit is waiting: else the next
        commit takes all.
        """
        bounds = self._settings
        if len(self._waiting) >= bounds.queue_rows_max or self._bytes >= bounds.queue_bytes_max:
            return False
        if len(self._waiting) < bounds.rows_max and self._bytes < bounds.bytes_max:
            return True
        return now_s - self._waiting[0].queued_at < bounds.age_ms_max / 1000

    def put(self, pending: Pending, now_s: float) -> None:
        """Queue an order. It is committed, or answered otherwise, whatever happens to its buyer's connection."""
        pending.queued_at = now_s
        self._waiting.append(pending)
        self._bytes += pending.size
        self._filled.set()

    def close(self) -> None:
        """No more orders come. `take` hands out what waits, then nothing."""
        self._closed = True
        self._filled.set()

    def take_overdue(self, before_s: float) -> list[Pending]:
        """The orders that have waited since before `before_s`; they leave the queue, and nothing of them was sent."""
        taken: list[Pending] = []
        while self._waiting and self._waiting[0].queued_at < before_s:
            taken.append(self._waiting.popleft())
        self._bytes -= sum(pending.size for pending in taken)
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
        return taken
