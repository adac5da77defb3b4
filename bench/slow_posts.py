"""Clients that hold a POST open: they send its head, and then a byte of the body now and then. Each has a connection,
and opens another one when it is told off, so that there are always as many.

It promises that nothing of them is left when the block ends, and that what they were told is known.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from bench.failure import ScenarioError

BODY_BYTES = 1000
PAUSE_S = 1.0  # between two bytes
HELD_S = 10.0  # the longest wait until all are there
NO_ANSWER = "connection_closed"


class SlowPosts:
    """`count` clients at once. `told` counts by status what their requests were answered, or that they were cut off."""

    def __init__(self, url: str, token: str, count: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        self.told: Counter[str] = Counter()
        self._address = (parts.hostname, parts.port)
        self._head = (
            f"POST /v1/orders HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {BODY_BYTES}\r\nIdempotency-Key: slow-post\r\n\r\n"
        ).encode()
        self._count = count
        self._held = 0
        self._all_held = asyncio.Event()

    @asynccontextmanager
    async def pressing(self) -> AsyncIterator[None]:
        """Meanwhile they are there. Raises ScenarioError when the gateway does not take as many connections."""
        clients = [asyncio.create_task(self._press()) for _ in range(self._count)]
        try:
            async with asyncio.timeout(HELD_S):
                await self._all_held.wait()
            yield
        except TimeoutError as error:
            raise ScenarioError(f"only {self._held} of {self._count} slow clients have a connection") from error
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)

    async def _press(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection(*self._address)
            except OSError:
                await asyncio.sleep(PAUSE_S)
                continue
            self._hold(1)
            try:
                self.told[await self._request(reader, writer)] += 1
            finally:
                self._hold(-1)
                writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """The status that one is answered with, however far it has come."""
        dripping = asyncio.create_task(self._drip(writer))
        try:
            line = await reader.readline()
        except OSError:
            line = b""
        finally:
            dripping.cancel()
        return line.split()[1].decode() if line.startswith(b"HTTP/1.1 ") else NO_ANSWER

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(self._head)
            for _ in range(BODY_BYTES - 1):  # It never ends.
                await asyncio.sleep(PAUSE_S)
                writer.write(b" ")
                await writer.drain()

    def _hold(self, more: int) -> None:
        self._held += more
        if self._held == self._count:
            self._all_held.set()
