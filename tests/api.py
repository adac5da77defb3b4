"""What the tests of the HTTP API share: a worker's services made of fakes, and a client that speaks ASGI itself, so a
test sees the bytes and headers that go out.

The scope is made as the server makes it: `path` decoded, `raw_path` as sent.
"""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from gateway.access import Access
from gateway.admission import Request
from gateway.app import Gateway
from gateway.batch import BatchQueue
from gateway.bell import Bell
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.access import SCOPES, Client, token_hash
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Outcome, Promise
from gateway.edge.bulk import BulkRoom
from gateway.edge.hot import OrderRoute
from gateway.edge.show import ShowRoute
from gateway.footprint import Footprint
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.lookup import Asker, Lookup
from gateway.metrics import Counters, Exporter
from gateway.rates import Rates
from gateway.reads import OrderReads
from gateway.requests_log import RequestLog
from gateway.sales import Sales
from gateway.services import Services
from gateway.settings import Nats, Postgres, Secrets, Settings, Stock
from persistence.postgres import clients
from persistence.postgres.connect import connect
from persistence.postgres.session import Session

App = Callable[[Any, Any, Any], Awaitable[None]]

TOKEN = "fg_all"
ALL = Client(1, "shop", frozenset(SCOPES), frozenset({"*"}))
CLIENTS = {
    TOKEN: ALL,
    "fg_none": Client(2, "nobody", frozenset(), frozenset({"*"})),
    "fg_own": Client(3, "own", frozenset({"orders:read", "orders:write"}), frozenset({"app"})),
    "fg_expired": Client(4, "expired", frozenset(SCOPES), frozenset({"*"}), expires_at=1.0),
    "fg_manager": Client(5, "manager", frozenset({"orders:manage"}), frozenset({"*"})),
    "fg_reader": Client(6, "reader", frozenset({"orders:write", "orders:read:all"}), frozenset({"*"})),
}


class Reply(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem, None for a success."""
        return str(self.json["code"]) if self.header("content-type") == "application/problem+json" else None

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known == name]
        assert len(found) < 2, f"{name} is there twice"
        return found[0] if found else None


async def call(
    app: App,
    method: str,
    target: str,
    body: bytes | None = None,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    token: str | None = TOKEN,
    *,
    stalled: bool = False,
    reads: asyncio.Event | None = None,
) -> Reply:
    """Send one request. With a body it says application/json, unless `headers` say otherwise; a `stalled` one
    never comes. The answer is taken once `reads` is set.
    """
    path, _, query = target.partition("?")
    given = [(name.lower(), value) for name, value in (headers.items() if isinstance(headers, dict) else headers or [])]
    names = {name for name, _ in given}
    usual = [("host", "floodgate")]
    if token is not None:
        usual.append(("authorization", f"Bearer {token}"))
    if body is not None:
        usual += [("content-type", "application/json"), ("content-length", str(len(body)))]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "method": method,
        "path": unquote(path, errors="replace"),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [
            (name.encode(), value.encode("latin-1"))
            for name, value in [*given, *usual]
            if (name, value) in given or name not in names
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    return await _exchange(app, scope, None if stalled else body or b"", reads)


async def _exchange(
    app: App, scope: MutableMapping[str, Any], body: bytes | None, reads: asyncio.Event | None
) -> Reply:
    incoming = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[Any] = []

    async def receive() -> Any:
        if body is None:
            await asyncio.Event().wait()
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if reads is not None:
            await reads.wait()
        sent.append(message)

    await app(scope, receive, send)
    start, *pieces = sent
    headers = [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]]
    return Reply(start["status"], headers, b"".join(piece.get("body", b"") for piece in pieces))


class Placing:
    """Stands for Admission: answers what it is told, or raises it."""

    def __init__(self) -> None:
        self.outcome: Outcome | Exception | None = None
        self.requests: list[Request] = []
        self.open = True
        self.draining = False
        self.crowded = False
        self.in_flight = 0

    def is_crowded(self) -> bool:
        return self.crowded

    def begin(self, request: Request) -> Promise:
        self.requests.append(request)
        assert self.outcome is not None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        promise = Promise()
        promise.set_result(self.outcome)
        return promise

    async def place(self, request: Request) -> Outcome:
        self.requests.append(request)
        assert self.outcome is not None
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Book:
    """Stands for OrderBook: what `page` and `now` answer is set by the test."""

    def __init__(self) -> None:
        self.orders: list[Any] = []
        self.asked: list[tuple[dict[str, object], int]] = []
        self.journaled = False  # whether an order may be in a journal
        self.error: Exception | None = None

    async def now(self, order_id: bytes) -> Any:
        if self.error:
            raise self.error
        return next((order for order in self.orders if order.id == order_id), None)

    async def all_now(self, order_ids: Sequence[bytes]) -> dict[bytes, Any]:
        return {order_id: order for order_id in order_ids if (order := await self.now(order_id)) is not None}

    def restore(self, stored: Any) -> Any:
        return stored

    async def may_be_journaled(self, but: str, seen_since_s: float) -> bool:  # noqa: ARG002 - as OrderBook
        return self.journaled

    async def page(self, filters: dict[str, object], limit: int) -> list[Any]:
        self.asked.append((filters, limit))
        if self.error:
            raise self.error
        before = filters.get("before_id")
        newest_first = sorted(self.orders, key=lambda order: order.id, reverse=True)
        return [order for order in newest_first if before is None or order.id < before][:limit]


class DirectLookup(Lookup[Any]):
    """Looks up at once, without the loop that gathers those who ask together."""

    def ask(self, key: bytes, asker: Asker[Any]) -> None:
        super().ask(key, asker)
        self._asking = asyncio.ensure_future(self._answer_quietly())

    async def _answer_quietly(self) -> None:
        with contextlib.suppress(Exception):  # Who asked has been told.
            await self._answer(self._take())


class DirectReads(OrderReads):
    """Reads orders by a DirectLookup."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._lookup = DirectLookup(self._fetch_unshielded)

    async def find(self, order_id: bytes) -> Any:
        """Whatever the book raises comes out as it is."""
        return (await self._fetch([order_id])).get(order_id)


class Fake:
    """A part whose attributes the test names."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def services(**parts: Any) -> Services:
    """A worker's services: real where they need no server, fakes of this module elsewhere; `parts` replace any."""
    settings = parts.pop("settings", Settings())
    clock, access, counters = Clock(), Access(), Counters()
    clock.observe(1_800_000_000.0, time.monotonic(), time.monotonic())
    clock.offset_s = 0.0
    access.replace((token_hash(token), client) for token, client in CLIENTS.items())
    catalogue = Catalogue()
    catalogue.revision = 0
    sales = Sales(Session("", "unused"), clock, catalogue, cast("Leases", None))
    sales.revision = 0
    live, hasher = Live(settings), Hasher(bytes(range(32)))
    rates = Rates(live.rate_of, hasher, None, counters)
    admission = parts.pop("admission", Placing())
    request_log = RequestLog(settings.log, counters)
    book = parts.pop("book", Book())
    reads = DirectReads(book.all_now, book.restore, counters)
    wired: dict[str, Any] = {
        "settings": settings,
        "clock": clock,
        "access": access,
        "catalogue": catalogue,
        "sales": sales,
        "live": live,
        "rates": rates,
        "mirror": None,
        "board": None,
        "bell": Bell(Session("", "unused"), None),
        "leases": None,
        "queue": None,
        "admission": admission,
        "route": OrderRoute(settings.http, access, clock, admission, counters, rates, request_log),
        "bulk": BulkRoom(settings, admission, BatchQueue(settings.batch), counters, request_log, lambda: 0),
        "book": book,
        "reads": reads,
        "show": ShowRoute(access, clock, reads, rates, request_log),
        "hasher": hasher,
        "pool": None,
        "stream": Fake(connected=True),
        "stream_watch": Fake(faults=[]),
        "publisher": None,
        "heart": None,
        "journaling": Journaling(settings.journal, live, clock, counters),
        "drainer": None,
        "following": Fake(ready=True),
        "footprint": Footprint(),
        "tracer": None,
        "counters": counters,
        "exporter": Exporter(counters),
    }
    return Services(**(wired | parts))


@asynccontextmanager
async def running_worker(postgres_url: str, nats_url: str, **sections: Any) -> AsyncIterator[tuple[App, Services]]:
    """A whole worker in this process, ready for the clients of CLIENTS; the database has the schema. `sections` are
    those of its settings that are not the usual ones.
    """
    connection = await connect(postgres_url, "test")
    for token, client in CLIENTS.items():
        await clients.add(
            connection, client.name, sorted(client.scopes), sorted(client.channels), token_hash(token), None
        )
    await connection.close()
    secret = base64.b64encode(bytes(32)).decode()
    gateway = Gateway(
        Settings(
            postgres=Postgres(url=postgres_url),
            nats=Nats(url=nats_url),
            stock=Stock(park_ms_max=5000),  # A busy machine may take long over the first take.
            secrets=Secrets(master_keys=f"1:{secret}", hash_key=secret),
            **sections,
        )
    )
    running = await gateway.start()
    try:
        async with asyncio.timeout(20):
            while not running.takes_orders:
                await asyncio.sleep(0.01)
        yield gateway, running
    finally:
        await gateway.stop()
