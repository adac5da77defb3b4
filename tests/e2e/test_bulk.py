"""Orders in bulk at a gateway as a process, over a socket: both ways at once, bounded, and honest at every end."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from gateway.edge.bulk import LINES_AHEAD_MAX
from tests.load import order
from tests.served import Served

STOCK = 1_000_000
WAIT_S = 40.0
RESIDENT_GROWTH_MAX = 64 << 20
REFUSED = b"x\n"  # a line that costs little and has a long verdict
LONG = b"x" * 400 + b"\n"  # so long that the client, too, has to wait with what it writes


@pytest.fixture
async def served(postgres_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    monkeypatch.setenv("FLOODGATE_HTTP__BODY_TIMEOUT_MS", "1000")
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": STOCK})
    await gateway.start()
    yield gateway
    await gateway.close()


class Stream:
    """A request in bulk, written and read by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._body = b""
        self.has_ended = False

    @classmethod
    @asynccontextmanager
    async def open(cls, served: Served) -> AsyncIterator["Stream"]:
        """A stream whose head is sent; closed at the end, whatever is left of it."""
        address = urlsplit(served.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        lines = (
            "POST /v1/orders/bulk HTTP/1.1",
            "Host: floodgate",
            f"Authorization: Bearer {served.token}",
            "Content-Type: application/x-ndjson",
            "Transfer-Encoding: chunked",
        )
        writer.write("".join(f"{line}\r\n" for line in (*lines, "")).encode())
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def write(self, *lines: bytes) -> None:
        piece = b"".join(lines)
        self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self._writer.drain()

    async def end(self) -> None:
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def head(self) -> bytes:
        return await self._reader.readuntil(b"\r\n\r\n")

    async def line(self) -> dict[str, Any]:
        """The next line of the answer."""
        while b"\n" not in self._body:
            size = int(await self._reader.readline(), 16)
            self._body += (await self._reader.readexactly(size + 2))[:-2]
            self.has_ended = not size
        line, _, self._body = self._body.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        return told

    async def rest(self) -> list[dict[str, Any]]:
        """All lines that are left, the summary last."""
        lines = [await self.line()]
        while "summary" not in lines[-1]:
            lines.append(await self.line())
        return lines

    def take_little(self) -> None:
        """Let the kernel keep next to nothing of what is not read."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def abort(self) -> None:
        self._writer.transport.abort()


def lines_of(run: str, count: int) -> list[bytes]:
    body = json.dumps(order("A"))
    return [f'{{"idempotency_key":"{run}-{number}","order":{body}}}\n'.encode() for number in range(count)]


async def stored(served: Served) -> set[str]:
    return {str(row["order_id"]) for row in await served.fetch("select order_id from orders")}


async def resident_bytes(served: Served) -> int:
    (pid,) = served.workers()
    status = await asyncio.to_thread(Path(f"/proc/{pid}/status").read_text)
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) << 10


def order_ids(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    return [verdict["order_id"] for verdict in verdicts if "order_id" in verdict]


async def test_bulk_is_answered_while_it_is_written(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        found = []
        for number, line in enumerate(lines_of("a", 5)):
            await stream.write(line)
            if not number:
                assert (await stream.head()).startswith(b"HTTP/1.1 200")
            verdict = await stream.line()
            assert (verdict["line"], verdict["status"]) == (number + 1, 201)
            assert verdict["order_id"] in await stored(served)
            found.append(verdict["order_id"])
        await stream.end()
        (summary,) = await stream.rest()
        assert summary["summary"] == {
            "complete": True,
            "lines": 5,
            "accepted": 5,
            "replayed": 0,
            "receipts": 0,
            "refused": {},
        }
        assert await stored(served) == set(found)


async def test_bulk_of_a_client_that_goes_is_committed_as_far_as_it_was_told(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        sent = lines_of("a", 400)
        await stream.write(*sent, b'{"idempotency_key":"half","order":{"channel"')
        await stream.head()
        told = [await stream.line() for _ in range(150)]
        stream.abort()
        async with Stream.open(served) as again:
            await again.write(*sent)
            await again.end()
            await again.head()
            *verdicts, summary = await again.rest()
        assert summary["summary"]["accepted"] == 400
        assert order_ids(verdicts)[:150] == order_ids(told)
        assert await stored(served) == set(order_ids(verdicts))
        assert "request_failed" not in served.log()


async def test_bulk_that_never_comes_to_its_end_is_told_where_it_stopped(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        await stream.write(*lines_of("a", 2), b'{"idempotency_key"')
        await stream.head()
        *verdicts, summary = await stream.rest()
        assert [verdict["status"] for verdict in verdicts] == [201, 201, 408]
        assert summary["summary"]["complete"] is False


async def test_bulk_of_a_client_that_never_reads_while_it_writes_is_told_so(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        for _ in range(100):
            await stream.write(LONG * 1000)
        await stream.end()
        await stream.head()
        *verdicts, summary = await stream.rest()
        assert verdicts[-1]["problem"]["code"] == "read_while_writing"
        assert [verdict["line"] for verdict in verdicts] == [*range(1, len(verdicts) + 1)]
        assert LINES_AHEAD_MAX < len(verdicts) < 100_000
        assert summary["summary"]["complete"] is False


async def test_bulk_without_end_takes_no_more_memory(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        await stream.write(REFUSED * 10_000)
        await stream.head()
        for _ in range(10_000):
            await stream.line()
        before = await resident_bytes(served)
        async with asyncio.TaskGroup() as group:
            group.create_task(write_on(stream))
            lines = await group.create_task(stream.rest())
        assert lines[-1]["summary"]["lines"] == 110_000
        assert await resident_bytes(served) - before < RESIDENT_GROWTH_MAX


async def write_on(stream: Stream) -> None:
    for _ in range(100):
        await stream.write(REFUSED * 1000)
    await stream.end()


async def test_bulk_of_a_gateway_that_stops_ends_with_the_line_to_go_on_with(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        sent = lines_of("a", 10_000)
        await stream.write(*sent[:10])
        await stream.head()
        told = [await stream.line() for _ in range(10)]
        served.signal(signal.SIGTERM)
        writing = asyncio.create_task(keep_writing(stream, sent[10:]))
        *verdicts, summary = await stream.rest()
        writing.cancel()
        assert summary["summary"]["complete"] is False
        assert verdicts[-1]["problem"]["code"] == "ledger_away"
        assert verdicts[-1]["line"] == 10 + len(verdicts)
        assert await stored(served) == set(order_ids([*told, *verdicts]))


async def test_gateway_that_stops_waits_no_longer_than_so_for_a_client_that_does_not_read(served: Served) -> None:
    async with asyncio.timeout(WAIT_S), Stream.open(served) as stream:
        stream.take_little()
        await stream.write(*lines_of("a", 10))
        await stream.head()
        told = [await stream.line() for _ in range(10)]
        for _ in range(100):
            await stream.write(REFUSED * 1000)
        while 'code="read_while_writing"} 1.0' not in await metrics(served):
            await asyncio.sleep(0.1)
        assert await served.stop(signal.SIGTERM) == 0
        assert "worker_process_killed" not in served.log()
        assert await served.fetch("select 1 from stock_lease where state = 'active'") == []
        assert await stored(served) == set(order_ids(told))


async def metrics(served: Served) -> str:
    headers = {"Authorization": f"Bearer {served.token}"}
    async with aiohttp.request("GET", f"{served.url}/metrics", headers=headers) as answer:
        return await answer.text()


async def keep_writing(stream: Stream, lines: Sequence[bytes]) -> None:
    for line in lines:
        await stream.write(line)
        await asyncio.sleep(0.01)
