"""A TCP proxy between a committer and PostgreSQL that loses, once, exactly the message a test names.

It promises that nothing else is changed: every other byte arrives, in order. It acts where the bytes of the trigger
pass towards the server, so a test never has to guess a moment.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

COMMIT = b"Q\x00\x00\x00\x0bcommit\x00"  # the simple query `commit`
COPY_DATA = b"PGCOPY\n"
CHUNK_BYTES = 1 << 16


class Loss(Enum):
    """What is lost, from the trigger on: the server's reply; the request (its backend stays as it is); everything,
    without anybody noticing.
    """

    REPLY = "reply"
    REQUEST = "request"
    SILENCE = "silence"


class Link(NamedTuple):
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    muted: asyncio.Event


class CutProxy:
    """`url` leads through the proxy. `arm` names the next loss; `cut` says that it has happened."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._parts = target
        self._trigger: tuple[bytes, Loss] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: list[Link] = []
        self.url = ""
        self.cut = asyncio.Event()

    def arm(self, trigger: bytes, loss: Loss) -> None:
        self._trigger = (trigger, loss)
        self.cut.clear()

    def disarm(self) -> None:
        self._trigger = None

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        login = self._parts.netloc.rpartition("@")[0]
        self.url = self._parts._replace(netloc=f"{login}@127.0.0.1:{port}").geturl()
        return server

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._links:
            link.client[1].transport.abort()
            link.server[1].transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server = await asyncio.open_connection(*self._target)
        except OSError:  # The server is gone: so is whoever wants it.
            writer.transport.abort()
            return
        link = Link((reader, writer), server, asyncio.Event())
        self._links.append(link)
        for pump in (self._to_server(link), self._to_client(link)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _to_server(self, link: Link) -> None:
        (source, client), (_, sink) = link.client, link.server
        while chunk := await _read(source):
            loss = self._loss(chunk)
            if loss is Loss.REQUEST:
                client.transport.abort()
                return
            if loss is Loss.SILENCE:
                return
            if loss is Loss.REPLY:
                link.muted.set()
            sink.write(chunk)
        sink.transport.abort()

    async def _to_client(self, link: Link) -> None:
        (source, _), (_, sink) = link.server, link.client
        while chunk := await _read(source):
            if link.muted.is_set():
                break
            sink.write(chunk)
        sink.transport.abort()

    def _loss(self, chunk: bytes) -> Loss | None:
        if self._trigger is None or self._trigger[0] not in chunk:
            return None
        loss = self._trigger[1]
        self._trigger = None
        self.cut.set()
        return loss


async def _read(source: asyncio.StreamReader) -> bytes:
    """The next bytes; none when the peer has gone, however it went."""
    try:
        return await source.read(CHUNK_BYTES)
    except ConnectionError:
        return b""


@asynccontextmanager
async def open_proxy(url: str) -> AsyncIterator[CutProxy]:
    proxy = CutProxy(url)
    server = await proxy.open()
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
