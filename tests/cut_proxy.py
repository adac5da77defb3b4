"""A TCP proxy between a committer and PostgreSQL that loses, once, exactly the message a test names.

It promises that nothing else is changed: every other byte arrives, in order, those before the trigger too. It acts
where the bytes of the trigger pass towards the server, so a test never has to guess a moment.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.faults import wire

CHUNK_BYTES = 1 << 16


class Trigger(NamedTuple):
    """The message that a test names, and what its reply ends with."""

    request: re.Pattern[bytes]
    reply: re.Pattern[bytes] = re.compile(b"")


COMMIT = Trigger(re.compile(wire.COMMIT.request, re.DOTALL), re.compile(wire.COMMIT.reply))
COPY_DATA = Trigger(re.compile(wire.COPY_DATA.request))
NEVER = Trigger(re.compile(rb"(?!)"))


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
    muted: list[re.Pattern[bytes]]  # what ends the reply that is lost


class CutProxy:
    """`url` leads through the proxy. `arm` names the next loss; `cut` says that it has happened."""

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._parts = target
        self._trigger: tuple[Trigger, Loss] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._links: list[Link] = []
        self._away = False
        self.url = ""
        self.cut = asyncio.Event()

    def arm(self, trigger: bytes | Trigger, loss: Loss) -> None:
        wanted = Trigger(re.compile(re.escape(trigger))) if isinstance(trigger, bytes) else trigger
        self._trigger = (wanted, loss)
        self.cut.clear()

    def disarm(self) -> None:
        self._trigger = None

    def take_away(self) -> None:
        """The server cannot be reached any more: every connection is reset, and none is made, until `bring_back`."""
        self._away = True
        self._abort_all()

    def bring_back(self) -> None:
        self._away = False

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
        self._abort_all()

    def _abort_all(self) -> None:
        for link in self._links:
            link.client[1].transport.abort()
            link.server[1].transport.abort()
        self._links.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.transport.abort()
            return
        try:
            server = await asyncio.open_connection(*self._target)
        except OSError:  # The server is gone: so is whoever wants it.
            writer.transport.abort()
            return
        link = Link((reader, writer), server, [])
        self._links.append(link)
        for pump in (self._to_server(link), self._to_client(link)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _to_server(self, link: Link) -> None:
        (source, client), (_, sink) = link.client, link.server
        while chunk := await _read(source):
            at, loss, reply = self._loss(chunk)
            if loss in (Loss.REQUEST, Loss.SILENCE):
                sink.write(chunk[:at])
                if loss is Loss.REQUEST:
                    client.transport.abort()
                return
            if loss is Loss.REPLY:
                link.muted.append(reply)
            sink.write(chunk)
        sink.transport.abort()

    async def _to_client(self, link: Link) -> None:
        (source, _), (_, sink) = link.server, link.client
        while chunk := await _read(source):
            if not link.muted:
                sink.write(chunk)
            elif link.muted[0].search(chunk):
                break
        sink.transport.abort()

    def _loss(self, chunk: bytes) -> tuple[int, Loss | None, re.Pattern[bytes]]:
        """Where in the chunk the trigger begins, what is lost from there on, and what ends the reply."""
        trigger, loss = self._trigger or (NEVER, None)
        found = trigger.request.search(chunk)
        if found is None:
            return 0, None, trigger.reply
        self._trigger = None
        self.cut.set()
        return found.start(), loss, trigger.reply


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
