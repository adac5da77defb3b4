"""The generator of orders in bulk against a pretended gateway: it writes and reads at once, and keeps every verdict."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from bench import bulk_load
from bench.bulk_load import PIECE_LINES
from bench.failure import ScenarioError

ORDER_ID = b"0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51"
OK = b'{"line":1,"status":201,"order_id":"%b"}\n' % ORDER_ID
REFUSED = b'{"line":2,"status":409,"problem":{"status":409}}\n'
SUMMARY = b'{"summary":{"lines":2}}\n'
KEY = re.compile(rb'"idempotency_key":"([^"]+)"')


class Seen(NamedTuple):
    """What the pretended gateway was sent."""

    heads: list[bytes]
    lines: list[bytes]


@asynccontextmanager
async def gateway(status: bytes = b"200 OK") -> AsyncIterator[tuple[str, Seen]]:
    """Answers the first line of a stream with `OK`, and its end with the rest: who does not read meanwhile waits."""
    seen = Seen([], [])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 %b\r\ntransfer-encoding: chunked\r\n\r\n" % status)
        writer.write(b"%x\r\n%b\r\n" % (len(OK), OK))
        while size := int(await reader.readline(), 16):
            seen.lines.extend((await reader.readexactly(size + 2))[:-2].splitlines())
        rest = REFUSED + SUMMARY
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
    finally:
        server.close()
        await server.wait_closed()


async def test_load_keeps_the_verdicts_of_all_streams() -> None:
    async with gateway() as (url, _):
        load = await bulk_load.load(url, "fg_x", b"{}", 3, lambda written: written >= 3 * PIECE_LINES)
    assert load.answers == {"201": 3, "409": 3}
    assert load.ids == [ORDER_ID.decode()] * 3


async def test_load_sends_the_order_under_keys_of_its_own() -> None:
    async with gateway() as (url, seen):
        await bulk_load.load(url, "fg_x", b'{"a":1}', 2, lambda written: written >= 4 * PIECE_LINES)
    assert all(b"Authorization: Bearer fg_x" in head for head in seen.heads)
    keys = [KEY.search(line) for line in seen.lines]
    assert len({found[1] for found in keys if found}) == len(seen.lines) >= 4 * PIECE_LINES
    assert all(line.endswith(b'"order":{"a":1}}') for line in seen.lines)


async def test_load_that_is_not_taken_says_why() -> None:
    async with gateway(b"415 Unsupported Media Type") as (url, _):
        with pytest.raises(ScenarioError, match="415"):
            await bulk_load.load(url, "fg_x", b"{}", 1, lambda written: written >= PIECE_LINES)


async def test_load_of_nobody_says_so() -> None:
    with pytest.raises(ScenarioError, match="ended early"):
        await bulk_load.load("http://127.0.0.1:9", "fg_x", b"{}", 1, lambda _: True)
