"""Events of products: publishes the changes that the ledger has written down with the products themselves.

Any number of stewards may: a change is held while it is sent, and an event sent twice is one event to the stream.
"""

import asyncpg

from gateway.stock_events import product_event_of
from persistence.nats.stream import BATCH_MESSAGES_MAX, STOCK, Stream
from persistence.postgres import product_events
from persistence.postgres.session import Session


class ProductEvents:
    """One pass at a time."""

    def __init__(self, session: Session, stream: Stream, source: str) -> None:
        self._session = session
        self._stream = stream
        self._source = source

    async def publish(self) -> None:
        """Send until nothing is left. Raises LedgerUnavailableError, StreamUnavailableError."""
        while await self._session.run(self._publish_some) == BATCH_MESSAGES_MAX:
            pass

    async def _publish_some(self, connection: asyncpg.Connection) -> int:
        async with product_events.claim(connection, BATCH_MESSAGES_MAX) as changes:
            if changes:
                await self._stream.publish([product_event_of(change, self._source) for change in changes], STOCK)
                await product_events.put_away(connection, changes)
        return len(changes)
