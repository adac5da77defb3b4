"""Clients that are slow, many, broken or gone, over real sockets: good buyers are answered meanwhile, everybody hears
something or is cut off in the end, and nothing of them stays in the worker.
"""

import asyncio
import json
import signal
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import asyncpg
import pytest

from bench.slow_posts import SlowPosts
from deploy.local import process_table
from gateway.edge.direct import ASGI, DIRECT, VARIABLE
from persistence.postgres.audit import audit
from tests.load import Buyers, order
from tests.served import Served
from tests.worker_world import eventually

WAIT_S = 60.0
CONNECTIONS_MAX = 128
SLOW = 200  # clients that never come to their end, more than a worker has connections
FLOOD = 600
VANISHED = 300
GOOD = 100  # orders, eight at a time
LEFT_MAX = 10  # descriptors of a worker that come and go without any client
RST_ON_CLOSE = struct.pack("ii", 1, 0)
BODY = json.dumps(order("A")).encode()
DEEP = 12_000


class Gateway:
    """A gateway with these settings, and raw connections to it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        address = urlsplit(served.url)
        assert address.hostname
        assert address.port
        self.address = (address.hostname, address.port)

    def head(self, key: str, *lines: str, target: str = "POST /v1/orders", host: str = "Host: floodgate") -> bytes:
        """Of a request after whose answer the connection is to be closed."""
        token = f"Authorization: Bearer {self.served.token}"
        fixed = (f"{target} HTTP/1.1", token, "Content-Type: application/json", "Connection: close")
        wanted = (*fixed, f"Idempotency-Key: {key}", *([host] if host else []), *lines)
        return "".join(f"{line}\r\n" for line in (*wanted, "")).encode()

    def order(self, key: str, *lines: str, host: str = "Host: floodgate") -> bytes:
        return self.head(key, f"Content-Length: {len(BODY)}", *lines, host=host) + BODY

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    @asynccontextmanager
    async def holding(self, count: int, sent: bytes) -> AsyncIterator[list[asyncio.StreamReader]]:
        """So many connections on which this was sent and nothing more."""
        pairs = [await self.connect() for _ in range(count)]
        try:
            for _, writer in pairs:
                writer.write(sent)
            yield [reader for reader, _ in pairs]
        finally:
            for _, writer in pairs:
                writer.transport.abort()

    async def say(self, sent: bytes) -> bytes:
        """All that comes back for this on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(sent)
            async with asyncio.timeout(WAIT_S):
                return await reader.read()
        finally:
            writer.transport.abort()

    async def buy(self, run: str) -> None:
        """Good buyers press: every one of them gets his order."""
        served = self.served
        history = await Buyers(served.url, served.token, "A", together=8, run=run, orders=GOOD).buy()
        assert (len(history.accepted), history.refused, history.unknown) == (GOOD, {}, set())

    async def orders(self) -> int:
        ((orders,),) = await self.served.fetch("select count(*) from orders")
        return int(orders)

    def descriptors(self) -> int:
        return sum(len(process_table.open_files(pid)) for pid in self.served.workers())


@asynccontextmanager
async def serving(served: Served) -> AsyncIterator[Gateway]:
    await served.prepare({"A": 100_000})
    try:
        await served.start()
        yield Gateway(served)
        assert (await audit(served.postgres_url)).clean
    finally:
        await served.close()


@pytest.fixture(params=[DIRECT, ASGI])
async def gateway(
    postgres_url: str, nats_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """Served either way, with few connections and short times."""
    monkeypatch.setenv(VARIABLE, request.param)
    monkeypatch.setenv("FLOODGATE_HTTP__CONNECTIONS_MAX", str(CONNECTIONS_MAX))
    monkeypatch.setenv("FLOODGATE_HTTP__BODY_TIMEOUT_MS", "500")
    monkeypatch.setenv("FLOODGATE_ORDERS__REPLY_MS_MAX", "500")
    async with serving(Served(postgres_url, nats_url)) as gateway:
        yield gateway


@pytest.fixture
async def roomy(postgres_url: str, nats_url: str) -> AsyncIterator[Gateway]:
    """With the settings that it has by itself."""
    async with serving(Served(postgres_url, nats_url)) as gateway:
        yield gateway


def status_of(answer: bytes) -> int:
    """0: nothing came, and the connection was closed."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


async def test_slow_posts_on_every_connection_are_timed_out_and_good_buyers_are_served(gateway: Gateway) -> None:
    slow = SlowPosts(gateway.served.url, gateway.served.token, SLOW)
    async with asyncio.timeout(WAIT_S), slow.pressing():
        await gateway.buy("beside")
    assert set(slow.told) <= {"408"}
    await gateway.buy("after")


async def test_slow_heads_and_silent_connections_do_not_keep_good_buyers_waiting(roomy: Gateway) -> None:
    half = roomy.head("slow")[:-20]
    async with roomy.holding(SLOW, half), roomy.holding(FLOOD, b""):
        await roomy.buy("beside")
    assert await roomy.orders() == GOOD


@pytest.mark.parametrize("gateway", [DIRECT], indirect=True)  # It is the server that waits, and for half a minute.
async def test_slow_heads_on_every_connection_are_cut_off_in_the_end(gateway: Gateway) -> None:
    half = gateway.head("slow")[:-20]
    async with gateway.holding(CONNECTIONS_MAX, half) as readers:
        async with asyncio.timeout(WAIT_S):
            answers = await asyncio.gather(*(reader.read() for reader in readers))
        assert {status_of(answer) for answer in answers} <= {0, 408}
        await gateway.buy("after")


async def test_clients_that_vanish_inside_a_request_leave_nothing_open_and_no_half_order(roomy: Gateway) -> None:
    await roomy.buy("before")
    before = roomy.descriptors()
    whole = roomy.order("vanished")
    for number in range(VANISHED):
        _, writer = await roomy.connect()
        writer.write(whole[: 1 + number * (len(whole) - 1) // VANISHED])
        with suppress(ConnectionError):
            await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        writer.transport.abort()

    async def is_closed() -> bool:
        return roomy.descriptors() <= before + LEFT_MAX

    await eventually("what they had open is closed", is_closed)
    assert await roomy.orders() == GOOD
    await roomy.buy("after")


async def test_gateway_told_to_end_while_the_ledger_hangs_ends_in_time_and_loses_no_order(gateway: Gateway) -> None:
    lock = await asyncpg.connect(gateway.served.postgres_url)
    await lock.execute("begin; lock table orders in exclusive mode")
    placing = asyncio.create_task(gateway.say(gateway.order("hangs")))

    async def waits() -> bool:
        return bool(await lock.fetchval("select count(*) from pg_locks where not granted"))

    await eventually("the commit waits", waits)
    stopping = asyncio.create_task(gateway.served.stop(signal.SIGTERM))
    assert status_of(await placing) == 503
    await lock.execute("rollback")
    assert await stopping == 0, gateway.served.log()
    await lock.close()
    await gateway.served.start()
    again = Gateway(gateway.served)
    assert status_of(await again.say(again.order("hangs"))) == 201
    assert await again.orders() == 1


BROKEN_CHUNKS = (
    b"zz\r\n{}\r\n0\r\n\r\n",
    b"5\r\n{}\r\n0\r\n\r\n",
    b"-1\r\n",
    b"ffffffffffffffffff\r\n{}",
    b"2\r\n{}XX",
)
NOT_UTF_8 = b'{"channel":"app","currency":"CNY","items":[{"sku":"\xff\xfe","quantity":1}]}'
DEEP_BODIES = (
    b'{"unknown":' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"items":' + b'{"deep":' * (DEEP // 2) + b"1" + b"}" * (DEEP // 2) + b"}",
    b"[" * DEEP,
)
TARGETS = (
    "POST /v1/orders",
    "PUT /v1/products/A",
    "PUT /v1/stock/A",
    "POST /v1/stock/A/adjustments",
    "PUT /v1/sales/s",
)


async def test_bodies_on_which_servers_stumble_are_the_clients_fault(gateway: Gateway) -> None:
    told: list[tuple[str, bytes, int]] = []
    for target in TARGETS:
        for chunks in BROKEN_CHUNKS:
            sent = gateway.head("broken", "Transfer-Encoding: chunked", target=target) + chunks
            told.append((target, chunks, status_of(await gateway.say(sent))))
        for body in (NOT_UTF_8, *DEEP_BODIES):
            sent = gateway.head("broken", f"Content-Length: {len(body)}", target=target) + body
            told.append((target, body[:20], status_of(await gateway.say(sent))))
    assert [one for one in told if one[2] and not 400 <= one[2] < 500] == []
    assert all(status for _, body, status in told if body not in BROKEN_CHUNKS)
    await gateway.buy("after")


async def test_names_of_a_host_that_a_client_gives_decide_and_show_nothing(roomy: Gateway) -> None:
    evil, lies = "Host: evil.example", ("X-Forwarded-Host: evil.example", "X-Forwarded-For: evil.example")
    answers = [
        await roomy.say(roomy.order("host", *lies, host=evil)),
        await roomy.say(roomy.order("two", *lies, evil)),
        await roomy.say(roomy.order("none", *lies, host="")),
        await roomy.say(roomy.head("list", *lies, target="GET /v1/orders?limit=1", host=evil)),
        await roomy.say(roomy.head("schema", *lies, target="GET /schema/openapi.json", host=evil)),
    ]
    assert [status_of(answer) for answer in answers] == [201, 201, 201, 200, 200]
    assert b'rel="next"' in answers[3]
    assert not any(b"evil.example" in answer for answer in answers)
