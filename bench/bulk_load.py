"""Sends orders in bulk: streams of lines that write and read at once, as the route wants it. Pre-encoded but for the
keys, so that the generator costs a microsecond or two an order.

It promises that every verdict is read and kept, and that it never holds more of an answer than what has arrived. It
neither tries anything again nor decides what a verdict means for a run.
"""

import asyncio
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.failure import ScenarioError

PATH = "/v1/orders/bulk"
PIECE_LINES = 1000
CREATED = re.compile(rb'"status":201,"order_id":"([0-9a-f-]{36})"')
STATUS = re.compile(rb'"line":\d+,"status":(\d{3})')
READ_TIMEOUT_S = 60.0


class BulkLoad(NamedTuple):
    """What the streams were told. `ids` are those of the orders that were accepted; `stopped_at` is the moment of the
    last verdict, of the monotonic clock; `cpu_s` is this process' own.
    """

    answers: dict[str, int]
    ids: list[str]
    seconds: float
    stopped_at: float
    cpu_s: float


async def load(url: str, token: str, body: bytes, streams: int, is_over: Callable[[int], bool]) -> BulkLoad:
    """Send `body` again and again, until `is_over` says so of the lines that were written. Raises ScenarioError."""
    started, cpu_s = time.monotonic(), time.process_time()
    written = [0]
    try:
        told = await asyncio.gather(*(_stream(url, token, body, written, is_over) for _ in range(streams)))
    except OSError as error:
        raise ScenarioError(f"a stream of orders in bulk has ended early: {error}") from error
    stopped_at, cpu_s = time.monotonic(), time.process_time() - cpu_s
    answers, ids = Counter[str](), list[str]()
    for answer in told:
        answers.update(status.decode() for status in STATUS.findall(answer))
        ids += [order_id.decode() for order_id in CREATED.findall(answer)]
    return BulkLoad(dict(answers), ids, stopped_at - started, stopped_at, cpu_s)


async def _stream(url: str, token: str, body: bytes, written: list[int], is_over: Callable[[int], bool]) -> bytes:
    """One stream, and the lines of its answer."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writing = asyncio.create_task(_write(writer, address.netloc, token, body, written, is_over))
        try:
            return await _read(reader)
        finally:
            writing.cancel()
            await asyncio.wait([writing])
    finally:
        writer.close()


async def _write(
    writer: asyncio.StreamWriter, host: str, token: str, body: bytes, written: list[int], is_over: Callable[[int], bool]
) -> None:
    writer.write(
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    run = secrets.token_hex(6).encode()
    end = b'","order":%b}\n' % body
    sent = 0
    while not is_over(written[0]):
        start = b'{"idempotency_key":"%b-' % run
        piece = b"".join([b"%b%d%b" % (start, number, end) for number in range(sent, sent + PIECE_LINES)])
        sent += PIECE_LINES
        written[0] += PIECE_LINES
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The body of the answer. Raises ScenarioError for another one than 200."""
    async with asyncio.timeout(READ_TIMEOUT_S):
        head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise ScenarioError(f"orders in bulk: {head.decode(errors='replace')}")
    pieces: list[bytes] = []
    while True:
        async with asyncio.timeout(READ_TIMEOUT_S):
            size = int(await reader.readline(), 16)
            piece = await reader.readexactly(size + 2)
        if not size:
            return b"".join(pieces)
        pieces.append(piece[:-2])
