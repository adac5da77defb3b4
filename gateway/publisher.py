"""The publisher: events of commits that are known, to the stream, as many commits together as wait. It removes from the
outbox what the stream has acknowledged, many commits at once.

It never holds up an order: what it cannot deliver it leaves to the relay, which finds it in the outbox. A late ack is
not a loss, and an event that is acknowledged and still in the outbox when the worker dies is sent again, with its id.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Sequence

import asyncpg
import structlog

from gateway.metrics import Counters
from gateway.tracing import Trace, Tracer
from persistence.errors import StreamUnavailableError
from persistence.nats.stream import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Event, Stream
from persistence.postgres import outbox
from persistence.postgres.connect import UNREACHABLE

# Events in memory, a second of the most orders that a worker commits; more are left to the relay.
BACKLOG_MAX = 25_000
# How long acknowledged commits may wait to be removed together; the relay looks at rows that are older than seconds.
REMOVE_S = 0.1
# Every batch costs the stream a write to the disk, so after one the publisher rests for half as long as that took.
# Where there is time to spare a batch is soon acknowledged, and events are hardly held up; a machine that is busy to
# the limit has its events in fewer, larger batches.
REST_SHARE = 0.5
REST_S_MAX = 0.02
PRESSING_EVENTS_MIN = BATCH_MESSAGES_MAX // 2  # that wait for nothing

log = structlog.get_logger("publisher")


class Publisher:
    """One per worker."""

    def __init__(self, stream: Stream, pool: asyncpg.Pool, counters: Counters, tracer: Tracer | None = None) -> None:
        self._stream = stream
        self._pool = pool
        self._counters = counters
        self._tracer = tracer
        self._traces: dict[bytes, Sequence[Trace]] = {}  # of the batches that wait and hold sampled orders
        self._waiting: deque[tuple[bytes, Sequence[Event]]] = deque()
        self._backlog = 0
        self._acknowledged: list[bytes] = []
        self._removed_at = -math.inf
        self._rests_until = -math.inf
        self._pressing = asyncio.Event()
        self._filled = asyncio.Event()
        self._closed = False

    @property
    def backlog(self) -> int:
        """Events that wait in memory or are on their way."""
        return self._backlog

    def put(self, batch_id: bytes, events: Sequence[Event], traces: Sequence[Trace] = ()) -> None:
        """The events of a committed batch, and what is traced of them. Never waits."""
        if self._backlog + len(events) > BACKLOG_MAX:
            self._counters.events_left += len(events)
            return
        if traces:
            self._traces[batch_id] = traces
        self._waiting.append((batch_id, events))
        self._backlog += len(events)
        self._filled.set()
        if self._backlog >= PRESSING_EVENTS_MIN:
            self._pressing.set()

    def close(self) -> None:
        """No more events come; `run` ends when the backlog is empty."""
        self._closed = True
        self._filled.set()
        self._pressing.set()

    async def run(self) -> None:
        """Publish until closed and empty."""
        while self._waiting or not self._closed:
            self._filled.clear()
            if not self._waiting:
                await self._pause()
                continue
            await self._rest()
            batch_ids, events = self._take()
            started = time.monotonic()
            try:
                await self._publish(batch_ids, events)
            finally:
                self._backlog -= len(events)
            now = time.monotonic()
            self._rests_until = now + min((now - started) * REST_SHARE, REST_S_MAX)
            if now - self._removed_at >= REMOVE_S:
                await self._remove()
        await self._remove()

    async def _rest(self) -> None:
        """Until the next batch may begin: at once when it would be half full, or the last."""
        wait_s = self._rests_until - time.monotonic()
        if wait_s > 0 and self._backlog < PRESSING_EVENTS_MIN and not self._closed:
            self._pressing.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._pressing.wait()

    async def _pause(self) -> None:
        """Until there are events, or it is time to remove what is acknowledged."""
        due_s = self._removed_at + REMOVE_S - time.monotonic() if self._acknowledged else None
        try:
            async with asyncio.timeout(due_s):
                await self._filled.wait()
        except TimeoutError:
            await self._remove()

    def _take(self) -> tuple[list[bytes], list[Event]]:
        """As many whole commits as fit one atomic batch."""
        batch_ids: list[bytes] = []
        events: list[Event] = []
        size = 0
        while self._waiting:
            batch_id, more = self._waiting[0]
            more_bytes = sum(len(event.payload) for event in more)
            if events and (len(events) + len(more) > BATCH_MESSAGES_MAX or size + more_bytes > BATCH_BYTES_MAX):
                break
            self._waiting.popleft()
            batch_ids.append(batch_id)
            events.extend(more)
            size += more_bytes
        return batch_ids, events

    async def _publish(self, batch_ids: list[bytes], events: list[Event]) -> None:
        started = time.monotonic()
        traces = [trace for batch_id in batch_ids for trace in self._traces.pop(batch_id, ())] if self._traces else []
        try:
            await self._stream.publish(events)
        except StreamUnavailableError as error:
            log.warning("events_left_to_the_relay", events=len(events), error=str(error))
            self._counters.events_left += len(events)
            return
        self._counters.events_published += len(events)
        if self._tracer is not None:
            count = {"messaging.batch.message_count": len(events)}
            self._tracer.together("publish", "PRODUCER", traces, time.monotonic() - started, count)
        self._acknowledged += batch_ids

    async def _remove(self) -> None:
        batch_ids, self._acknowledged = self._acknowledged, []
        self._removed_at = time.monotonic()
        if not batch_ids:
            return
        try:
            await outbox.remove(self._pool, batch_ids)
        except UNREACHABLE as error:
            log.warning("outbox_not_removed", batches=len(batch_ids), error=repr(error))
