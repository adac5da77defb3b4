"""The relay: sends what no worker got acknowledged, from the outbox, encoded again from the tables to the same id and
bytes.

Any number may run: rows are taken with SKIP LOCKED, and an event sent twice is one event to the stream, and to every
consumer that keeps the id.
"""

import asyncpg
import structlog

from gateway.orders import event_of, restore, restore_change
from persistence.nats.stream import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, Event, Stream
from persistence.postgres import orders, outbox
from persistence.postgres.session import Session

BATCHES_MAX = 20  # commits that one pass takes

log = structlog.get_logger("relay")


class Relay:
    """One pass at a time; `sent` counts events since the start, `unknown` batches that wait for a newer release."""

    def __init__(self, session: Session, stream: Stream, source: str, age_s: float) -> None:
        self._session = session
        self._stream = stream
        self._source = source
        self._age_s = age_s
        self.sent = 0
        self.unknown = 0

    async def drain(self) -> None:
        """Send until nothing old is left. Raises LedgerUnavailableError, StreamUnavailableError."""
        while await self._session.run(self._pass):
            pass
        await self._session.run(self._count_unknown)

    async def _pass(self, connection: asyncpg.Connection) -> int:
        async with outbox.claim(connection, self._age_s, BATCHES_MAX) as pending:
            events = await self._events(connection, pending)
            for piece in _pieces(events):
                await self._stream.publish(piece)
            if pending:
                await outbox.remove(connection, [batch.batch_id for batch in pending])
        if events:
            self.sent += len(events)
            log.info("events_relayed", events=len(events))
        return len(pending)

    async def _count_unknown(self, connection: asyncpg.Connection) -> None:
        unknown = await outbox.unknown(connection)
        if unknown > self.unknown:
            log.error("outbox_format_unknown", batches=unknown, remedy="run the stewards of the newer release")
        self.unknown = unknown

    async def _events(self, connection: asyncpg.Connection, pending: list[outbox.Pending]) -> list[Event]:
        order_ids = [order_id for batch in pending for order_id, _ in batch.changes]
        stored = await orders.fetch(connection, order_ids, history=True, personal=False)
        keys = await orders.keys_of(connection, order_ids)
        events = []
        for batch in pending:
            for order_id, version in batch.changes:
                rows = stored[order_id]
                change = next(row for row in rows.history if row["version"] == version)
                key = keys.get(order_id)
                events.append(event_of(restore(rows, None), restore_change(change), self._source, key))
        return events


def _pieces(events: list[Event]) -> list[list[Event]]:
    """The events in atomic batches that the stream takes."""
    pieces: list[list[Event]] = []
    size = 0
    for event in events:
        if not pieces or len(pieces[-1]) == BATCH_MESSAGES_MAX or size + len(event.payload) > BATCH_BYTES_MAX:
            pieces.append([])
            size = 0
        pieces[-1].append(event)
        size += len(event.payload)
    return pieces
