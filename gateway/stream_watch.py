"""Looks after the settings of the streams: that they are as ours say, when a process starts and from then on. What is
wrong is said once in the log, and stands in `/readyz?verbose` and in a metric as long as it lasts.

It changes nothing: the steward and `floodgate migrate` do, what the server lets them.
"""

import asyncio

import structlog

from gateway.settings import Nats
from persistence.errors import StreamUnavailableError
from persistence.nats.stream import Stream, StreamSettings

LOOK_EVERY_S = 30.0
AWAY_PAUSE_S = 1.0

log = structlog.get_logger("stream")


def stream_settings(nats: Nats) -> StreamSettings:
    """Those of each stream."""
    return StreamSettings(nats.replicas, nats.max_age_s, nats.duplicate_window_s, nats.max_bytes)


class StreamWatch:
    """`faults`: what was wrong at the last look, a line each."""

    def __init__(self, stream: Stream, nats: Nats) -> None:
        self._stream = stream
        self._settings = stream_settings(nats)
        self.faults: list[str] = []

    @property
    def full(self) -> bool:
        """Whether the last event was refused for want of room: it, and what follows, waits in the ledger."""
        return self._stream.full

    @property
    def connected(self) -> bool:
        return self._stream.connected

    async def run(self) -> None:
        """Look for ever. While the stream is away the last findings stay."""
        while True:
            try:
                await self.look()
            except StreamUnavailableError:
                await asyncio.sleep(AWAY_PAUSE_S)
            else:
                await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Raises StreamUnavailableError."""
        faults = await self._stream.faults(self._settings)
        for fault in faults:
            if fault not in self.faults:
                log.warning("stream_is_not_as_it_should_be", fault=fault)
        self.faults = faults
