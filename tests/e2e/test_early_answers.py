"""A request that is answered before its body has come: the client gets the answer, whatever it goes on to send, and the
connection serves the next order.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from tests.load import order
from tests.served import Served

ROUNDS = 5
PLACE = "POST /v1/orders"


@pytest.fixture
async def served(postgres_url: str, nats_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": 100})
    await gateway.start()
    yield gateway
    await gateway.close()


def head(token: str, key: str, size: int, target: str = PLACE) -> bytes:
    lines = (
        f"{target} HTTP/1.1",
        "Host: floodgate",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {size}",
        f"Idempotency-Key: {key}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, which is read to its end."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().splitlines()
    (length,) = [int(line.partition(":")[2]) for line in lines if line.startswith("content-length:")]
    await reader.readexactly(length)
    return int(lines[0].split()[1])


@pytest.mark.parametrize("target", [PLACE, "PUT /v1/stock/A"])
@pytest.mark.parametrize("size", [200, 60_000])
async def test_request_answered_before_its_body_came_leaves_the_connection_to_the_next(
    served: Served, size: int, target: str
) -> None:
    refused, placed = b" " * size, json.dumps(order("A")).encode()
    address = urlsplit(served.url)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for number in range(ROUNDS):
            writer.write(head("fg_unknown", "k", len(refused), target))
            assert await answered(reader) == 401
            writer.write(refused + head(served.token, f"k-{number}", len(placed)) + placed)
            assert await answered(reader) == 201
        writer.close()
        await writer.wait_closed()
