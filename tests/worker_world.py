"""A small world around whole workers for their tests: products, clients, workers and stewards on one database and one
stream, wired by `gateway.app` as in production and asked through the hot route.

It stops what it started. `close` never repairs anything; a test that calls `assert_clean` has proved that the books
balance. Waits poll a condition, bounded, and say what they waited for.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import msgspec
import nats

from core_ext import ids
from gateway.app import Worker, open_secrets
from gateway.domain.access import SCOPES, new_token, token_hash
from gateway.edge.answers import Answer
from gateway.edge.requests import Headers
from gateway.services import Services
from gateway.settings import Settings, load
from gateway.steward import Steward
from persistence.nats.stream import NAME, Stream, StreamSettings
from persistence.postgres import catalogue, clients, stock
from persistence.postgres.audit import audit
from persistence.postgres.connect import open_pool

SKU = "85123A"
WAIT_S = 15.0
LOOK_AGAIN_S = 0.01
SECRET = base64.b64encode(bytes(32)).decode()
# Short times, so that nobody waits for a test; long enough for a busy machine.
FLAGS: dict[str, Any] = {
    "owner.heartbeat_ms": 100,
    "owner.timeout_ms": 1500,
    "nats.ack_timeout_ms": 300,
    "stock.park_ms_max": 5000,
    "secrets.master_keys": f"1:{SECRET}",
    "secrets.hash_key": SECRET,
}


def order(sku: str = SKU, quantity: int = 1, **changes: Any) -> bytes:
    """An order as a client sends it."""
    document = {"channel": "app", "currency": "CNY", "items": [{"sku": sku, "quantity": quantity}]}
    return msgspec.json.encode(document | changes)


async def eventually(what: str, is_so: Callable[[], Awaitable[Any]]) -> None:
    """Wait until `is_so`, looking again and again."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not await is_so():
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s: {what}") from None


class StoredEvent(NamedTuple):
    """A message of the stream."""

    subject: str
    id: str
    payload: bytes


async def stored_events(nats_url: str) -> list[StoredEvent]:
    """Everything in the stream, in order, asked for over a connection of its own."""
    client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(NAME)).state
        messages = [await jetstream.get_msg(NAME, seq) for seq in range(state.first_seq, state.last_seq + 1)]
    finally:
        await client.close()
    return [
        StoredEvent(message.subject or "", (message.headers or {})["Nats-Msg-Id"], message.data or b"")
        for message in messages
    ]


class Shop:
    """A running worker, and a client's token."""

    def __init__(self, worker: Worker, token: str) -> None:
        self.worker = worker
        self.token = token
        self.stopped = False
        self.killed = asyncio.Event()

    @property
    def services(self) -> Services:
        return self.worker.services

    async def place(self, key: str = "k-1", body: bytes = b"", token: str = "") -> Answer:
        """Place an order over the hot route."""
        body = body or order()
        authorization = f"Bearer {token or self.token}".encode()
        headers = Headers(authorization, b"application/json", key.encode(), length=len(body), keys=1)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        return await self.services.route.respond(headers, receive)

    async def buy(self, key: str, body: bytes = b"") -> Answer:
        """Place an order as a patient buyer does: a 5xx is tried again with the same key."""
        while True:
            answer = await self.place(key, body)
            if answer.status < 500:
                return answer
            await asyncio.sleep(LOOK_AGAIN_S)

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.worker.stop()

    async def kill(self) -> None:
        """End the worker as a crash would: nothing is finished, nothing given back, every connection is cut."""
        self.stopped = True
        self.killed.set()
        worker, services = self.worker, self.worker.services
        await worker._tasks.close(wait_s=0)
        worker._committer._ledger.close()
        for session in worker._sessions.values():
            session.discard()
        services.pool.terminate()
        await services.journaling.close(remove=False)  # The kernel lets go of the lock of the dead.
        await services.stream.close()
        if services.mirror is not None:
            await services.mirror.close()


class World:
    """One database, one stream, and everything that a test starts on them."""

    def __init__(self, postgres_url: str, nats_url: str, redis_url: str, pool: asyncpg.Pool) -> None:
        self.postgres_url = postgres_url
        self.nats_url = nats_url
        self.redis_url = redis_url
        self.pool = pool
        self.token = ""
        self._shops: list[Shop] = []
        self._stewards: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    def settings(self, **flags: Any) -> Settings:
        """`http__port=1` is the setting http.port."""
        changed = {key.replace("__", "."): value for key, value in flags.items()}
        urls = {"postgres.url": self.postgres_url, "nats.url": self.nats_url, "redis.url": self.redis_url}
        return load(environ={}, flags=FLAGS | urls | changed)

    async def prepare(self) -> None:
        """The stream, and a client that may do everything."""
        await self.make_stream()
        self.token = await self.client("shop")

    async def make_stream(self) -> None:
        stream = Stream(self.nats_url, "test", 5.0)
        await stream.ensure_streams(StreamSettings(1, 604800, 600))
        await stream.close()

    async def remove_stream(self) -> None:
        client = await nats.connect(self.nats_url)
        await client.jetstream().delete_stream(NAME)
        await client.close()

    async def client(self, name: str) -> str:
        """The token of a new client with every scope."""
        token = new_token()
        async with self.pool.acquire() as connection:
            await clients.add(connection, name, list(SCOPES), ["*"], token_hash(token), None)
        return token

    async def product(
        self, sku: str = SKU, units: int = 100, price: int = 255, title: str = "HEART T-LIGHT", shards: int = 4
    ) -> None:
        await self.price(sku, price, title)
        outcome, _, _ = await stock.set_total(self.pool, sku, units, shards, "test", None, None)
        assert outcome == "set"

    async def price(self, sku: str, price: int, title: str = "HEART T-LIGHT") -> None:
        await catalogue.put(self.pool, [catalogue.ProductRow(sku, title, price, "CNY", stocked=True, active=True)])

    async def shop(self, *, ready: bool = True, **flags: Any) -> Shop:
        """Start a worker, and wait until it takes orders."""
        settings = self.settings(**flags)
        shop = Shop(await Worker.start(settings, *open_secrets(settings.secrets)), self.token)
        self._shops.append(shop)
        if ready:
            await eventually("the worker is ready", lambda: _is_ready(shop))
        return shop

    def steward(self, **flags: Any) -> Callable[[], Coroutine[Any, Any, None]]:
        """Start a steward. Returns what stops it."""
        stop = asyncio.Event()
        task = asyncio.create_task(Steward(self.settings(**flags)).run(stop))
        self._stewards.append((stop, task))

        async def end() -> None:
            stop.set()
            await task

        return end

    async def value(self, query: str, *arguments: Any) -> Any:
        return await self.pool.fetchval(query, *arguments)

    async def count(self, table: str) -> int:
        return int(await self.value(f"select count(*) from {table}"))

    async def order_ids(self) -> set[str]:
        return {str(row["order_id"]) for row in await self.pool.fetch("select order_id from orders")}

    async def active_leases(self) -> int:
        return int(await self.value("select count(*) from stock_lease where state = 'active'"))

    async def outbox_is_empty(self) -> bool:
        return await self.count("outbox") == 0

    async def events(self) -> list[StoredEvent]:
        """Everything in the stream, in order."""
        return await stored_events(self.nats_url)

    async def end_backends(self) -> None:
        """End every connection that a process of ours has to this database."""
        await self.pool.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name like 'fg-%' and application_name <> 'fg-test'"
        )

    async def assert_clean(self) -> None:
        """Every invariant that the ledger can show holds."""
        report = await audit(self.postgres_url)
        assert report.clean, [finding for finding in report.findings if finding.count]

    async def close(self) -> None:
        for stop, task in self._stewards:
            stop.set()
            await task
        for shop in self._shops:
            await shop.stop()
        self.pool.terminate()


async def _is_ready(shop: Shop) -> bool:
    return shop.services.takes_orders


def order_id_of(answer: Answer) -> str:
    """The order that a 201 speaks of."""
    assert answer.status == 201, answer.body
    order_id = str(msgspec.json.decode(answer.body)["order_id"])
    assert ids.parse_id(order_id) is not None
    return order_id


def code_of(answer: Answer) -> str:
    """The code of a problem."""
    return str(msgspec.json.decode(answer.body)["code"])


@asynccontextmanager
async def open_world(postgres_url: str, nats_url: str, redis_url: str = "") -> AsyncIterator[World]:
    """A world; without `redis_url` its workers have no mirror."""
    world = World(postgres_url, nats_url, redis_url, await open_pool(postgres_url, "fg-test", 8, 10.0))
    try:
        await world.prepare()
        yield world
    finally:
        await world.close()
