"""A request that is answered before its body has come: the client gets the answer, whatever it goes on to send, and the
connection serves the next order. A crowd that cannot be served in time is answered so.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.load import Buyers, order
from tests.served import Served

ROUNDS = 5
CROWD = 1500  # orders, 64 at a time
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


@pytest.fixture
async def narrow(postgres_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A gateway in which one order may wait to be committed."""
    monkeypatch.setenv("FLOODGATE_BATCH__QUEUE_ROWS_MAX", "1")
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": CROWD})
    await gateway.start()
    yield gateway
    await gateway.close()


async def test_crowd_is_told_that_it_is_one_and_every_answer_arrives_and_counts(narrow: Served) -> None:
    told = await Buyers(narrow.url, narrow.token, "A", together=64, run="crowd", orders=CROWD).buy()
    assert told.unknown == set()
    assert set(told.refused.values()) == {"overloaded"}
    assert len(told.accepted) + len(told.refused) == CROWD
    ((orders,),) = await narrow.fetch("select count(*) from orders")
    assert orders == len(told.accepted) > 0
    async with asyncio.timeout(10):
        while await overloaded(narrow) != len(told.refused):
            await asyncio.sleep(0.05)


async def overloaded(served: Served) -> int:
    """How many the gateway has counted."""
    headers = {"Authorization": f"Bearer {served.token}"}
    async with aiohttp.ClientSession(headers=headers) as client, client.get(f"{served.url}/metrics") as answer:
        found = re.search(r'floodgate_orders_refused_total\{code="overloaded"[^}]*\} ([0-9.]+)', await answer.text())
    assert found
    return int(float(found[1]))
