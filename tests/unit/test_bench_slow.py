"""Slow POSTs against a pretended gateway: as many as asked for, all the time, and nothing of them afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench import slow_posts
from bench.failure import ScenarioError
from bench.slow_posts import SlowPosts

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n"


class Gateway:
    """Hears heads; answers a request with what it is told to, or keeps it waiting."""

    def __init__(self) -> None:
        self.url = ""
        self.heads: list[bytes] = []
        self.open = 0
        self.answer = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer:
                answer, self.answer = self.answer, b""
                writer.write(answer)
            await reader.read(-1)
        except OSError:
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    pretended = Gateway()
    server = await asyncio.start_server(pretended.serve, "127.0.0.1", 0)
    pretended.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield pretended
    finally:
        server.close()
        await server.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_pressing_holds_as_many_posts_as_asked_for_and_leaves_none() -> None:
    async with gateway() as pretended:
        async with SlowPosts(pretended.url, "fg_x", 5).pressing():
            await until(lambda: len(pretended.heads) == 5)
            assert pretended.open == 5
        await until(lambda: pretended.open == 0)
        assert {head.partition(b"\r\n")[0] for head in pretended.heads} == {b"POST /v1/orders HTTP/1.1"}


async def test_pressing_told_off_comes_back_at_once() -> None:
    async with gateway() as pretended:
        pretended.answer = TIMED_OUT
        slow = SlowPosts(pretended.url, "fg_x", 2)
        async with slow.pressing():
            await until(lambda: len(pretended.heads) == 3)
        assert slow.told == {"408": 1}


async def test_pressing_sends_of_the_body_less_than_it_has_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_posts, "PAUSE_S", 0.0)
    monkeypatch.setattr(slow_posts, "BODY_BYTES", 4)
    received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        received.set_result(await reader.readexactly(3))
        assert await reader.read(-1) == b""
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, SlowPosts(url, "fg_x", 1).pressing():
        assert await asyncio.wait_for(received, 5) == b"   "


async def test_pressing_without_a_gateway_says_how_many_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_posts, "HELD_S", 0.05)
    async with gateway() as pretended:
        url = pretended.url
    with pytest.raises(ScenarioError, match="only 0 of 3 slow clients"):
        async with SlowPosts(url, "fg_x", 3).pressing():
            pass
