"""What becomes of a request for an order by how its body comes over a real connection, and that a worker's end waits
for what is under way.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.load import order
from tests.served import Served

STEP_S = 0.05  # between the pieces of a body, so that they come as pieces
TIMEOUT_S = 30
BODY = json.dumps(order("A")).encode()


@pytest.fixture
async def served(
    edge_way: str, postgres_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Served]:
    monkeypatch.setenv("FLOODGATE_HTTP__BODY_TIMEOUT_MS", "500")
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": 100})
    await gateway.start()
    assert f'"way":"{edge_way}"' in gateway.log()
    yield gateway
    await gateway.close()


class Connection:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self._reader = reader
        self._writer = writer
        self._token = token

    async def begin(self, key: str, *framing: str) -> None:
        """Send the head of a request for an order."""
        lines = ["POST /v1/orders HTTP/1.1", "Host: floodgate", f"Authorization: Bearer {self._token}"]
        lines += ["Content-Type: application/json", f"Idempotency-Key: {key}", *framing, "", ""]
        await self.send("\r\n".join(lines).encode())

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(STEP_S)

    async def status(self) -> int:
        """Of the next answer, which is read to its end. That the client may go on is none."""
        async with asyncio.timeout(TIMEOUT_S):
            lines = await self._head()
            while lines[0].split()[1] == "100":
                lines = await self._head()
            (length,) = [int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")]
            await self._reader.readexactly(length)
        return int(lines[0].split()[1])

    async def _head(self) -> list[str]:
        return (await self._reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def connect(served: Served) -> Connection:
    address = urlsplit(served.url)
    return Connection(*await asyncio.open_connection(address.hostname, address.port), served.token)


def length(size: int) -> str:
    return f"Content-Length: {size}"


async def orders(served: Served) -> int:
    [row] = await served.fetch("select count(*) as orders from orders")
    return int(row["orders"])


async def test_order_is_placed_however_its_body_comes(served: Served) -> None:
    client = await connect(served)
    await client.begin("whole", length(len(BODY)))
    await client.send(BODY)
    assert await client.status() == 201
    await client.begin("pieces", length(len(BODY)))
    await client.send(BODY[:10], BODY[10:20], BODY[20:])
    assert await client.status() == 201
    await client.begin("chunks", "Transfer-Encoding: chunked")
    await client.send(*[b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (BODY[:10], BODY[10:])], b"0\r\n\r\n")
    assert await client.status() == 201
    await client.begin("asked", length(len(BODY)), "Expect: 100-continue")
    await client.send(BODY)
    assert await client.status() == 201
    await client.close()
    assert await orders(served) == 4


@pytest.mark.parametrize("sent", [b"", BODY[:10]])
async def test_order_whose_body_does_not_come_is_408(served: Served, sent: bytes) -> None:
    client = await connect(served)
    await client.begin("late", length(len(BODY)))
    await client.send(sent)
    assert await client.status() == 408
    await client.close()


async def test_order_too_large_is_413_and_the_connection_serves_the_next(served: Served) -> None:
    client = await connect(served)
    large = b" " * (2 << 20)
    await client.begin("large", length(len(large)))
    await client.send(large)
    assert await client.status() == 413
    await client.begin("next", length(len(BODY)))
    await client.send(BODY)
    assert await client.status() == 201
    await client.close()


async def test_order_of_a_client_that_goes_before_its_answer_is_in_the_ledger(served: Served) -> None:
    client = await connect(served)
    await client.begin("gone", length(len(BODY)))
    await client.send(BODY)
    await client.close()
    async with asyncio.timeout(TIMEOUT_S):
        while await orders(served) == 0:
            await asyncio.sleep(STEP_S)
    again = await connect(served)
    await again.begin("gone", length(len(BODY)))
    await again.send(BODY)
    assert await again.status() == 201
    await again.close()
    assert await orders(served) == 1


async def test_worker_that_ends_answers_what_is_under_way(served: Served) -> None:
    client = await connect(served)
    await client.begin("last", length(len(BODY)))
    stopping = asyncio.ensure_future(served.stop(signal.SIGTERM))
    await client.send(BODY)
    assert await client.status() == 201
    await client.close()
    assert await stopping == 0
    assert await orders(served) == 1
