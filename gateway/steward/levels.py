"""Levels of stock: decides which SKUs have become low, sold out, or have come back, and publishes that.

Any number of stewards may: a change is decided once, by the ledger, and an event sent twice is one event to the stream.
Only SKUs on watch are looked at; the ledger puts them there when the last units move.
"""

import asyncpg
import structlog

from gateway.live import Live
from gateway.stock_events import event_of
from persistence.nats.stream import BATCH_MESSAGES_MAX, STOCK, Stream
from persistence.postgres import levels
from persistence.postgres.session import Session

PIECE_SKUS = 1000  # looked at in one statement

log = structlog.get_logger("levels")


class Levels:
    """Two jobs, each with a session of its own, so that a stream that is away holds up no decision."""

    def __init__(self, deciding: Session, publishing: Session, stream: Stream, source: str, live: Live) -> None:
        self._deciding = deciding
        self._publishing = publishing
        self._stream = stream
        self._source = source
        self._live = live

    async def decide(self) -> None:
        """One pass over all SKUs on watch. Raises LedgerUnavailableError."""
        after: str | None = ""
        while after is not None:
            after, events = await levels.decide(self._deciding, self._live.stock.low_units, after, PIECE_SKUS)
            if events:
                log.info("levels_changed", events=events)

    async def publish(self) -> None:
        """Send until nothing is left. Raises LedgerUnavailableError, StreamUnavailableError."""
        while await self._publishing.run(self._publish_some) == BATCH_MESSAGES_MAX:
            pass

    async def _publish_some(self, connection: asyncpg.Connection) -> int:
        async with levels.claim(connection, BATCH_MESSAGES_MAX) as changes:
            if changes:
                await self._stream.publish([event_of(change, self._source) for change in changes], STOCK)
                await levels.remove(connection, changes)
        return len(changes)
