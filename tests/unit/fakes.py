"""The servers as the worker's rooms see them, without servers: a ledger of stock, a committer's connection, a stream.

They keep the contracts that the rooms rely on and nothing more, and fail exactly when a test says so. A fake never
waits: time is what the test sets, and `turns` lets every task that can run do so.
"""

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from core_ext import ids
from core_ext.shapes import Order, Product
from gateway.admission import Admission, Request
from gateway.batch import BatchQueue, Pending
from gateway.bell import Bell
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.committer import Committer
from gateway.domain.access import Client
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Accepted, Outcome, Promise, Refusal
from gateway.domain.personal import Vault
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.lookup import KeyLookup
from gateway.metrics import Counters
from gateway.orders import OrderBook
from gateway.publisher import Publisher
from gateway.sales import Sales
from gateway.settings import Settings, load
from gateway.tasks import Tasks
from gateway.tracing import Trace, Tracer
from persistence.errors import LedgerUnavailableError, StreamUnavailableError
from persistence.nats.stream import NAME, Event, Stream
from persistence.postgres.ledger import Entry, Ledger, Limit
from persistence.postgres.ledger import Refusal as LedgerRefusal
from persistence.postgres.orders import StoredKey
from persistence.postgres.session import Session
from persistence.postgres.stock import Shard
from tests.unit.fake_ledger import START_S, FakeControl, FakeLease, FakeRefusals, FakeStock

T = TypeVar("T")
SKU = "85123A"
SALE = "double-11"
SERVICE = "SERVICE"  # a product without stock
SHOP = Client(1, "shop", frozenset({"orders:write", "orders:price", "pii:read"}), frozenset({"app"}))
NO_SETTINGS = load(environ={})


async def turns(count: int = 30) -> None:
    """Let every task run that can, without a moment passing."""
    for _ in range(count):
        await asyncio.sleep(0)


def settings(**sections: dict[str, Any]) -> Settings:
    """The default settings with some changed, by section."""
    return load(
        environ={}, flags={f"{section}.{key}": v for section, body in sections.items() for key, v in body.items()}
    )


class FrozenClock(Clock):
    """A clock that moves when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s = START_S
        self.is_known = True

    @property
    def known(self) -> bool:
        return self.is_known

    @property
    def was_known(self) -> bool:
        return self.is_known

    def now_s(self) -> float:
        return self.at_s

    def steady_s(self) -> float:
        return self.at_s


class FakeSession(Session):
    """Runs calls on a pretended connection. `away` refuses all; `lose_answers` carries so many calls out and loses what
    they answer; while `held`, calls wait before they are carried out.
    """

    def __init__(self, connection: Any) -> None:
        super().__init__("", "fake")
        self.fake = connection
        self.away = False
        self.lose_answers = 0
        self.held = asyncio.Event()
        self.held.set()

    async def run(self, call: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        await self.held.wait()
        if self.away:
            raise LedgerUnavailableError("PostgreSQL did not answer")
        answer = await call(self.fake)
        if self.lose_answers:
            self.lose_answers -= 1
            raise LedgerUnavailableError("the answer was lost")
        return answer


class FakeBell(Bell):
    """Notes what is called, freed and pushed; `shown` is what the mirror says is free."""

    def __init__(self) -> None:
        super().__init__(FakeSession(None), None)
        self.called: list[str] = []
        self.called_by_ledger: list[str] = []
        self.said_free: list[str] = []
        self.pushed: list[Shard] = []
        self.shown: dict[str, int] = {}

    def push(self, shards: Sequence[Shard]) -> None:
        self.pushed += shards

    def call(self, sku: str) -> None:
        self.called.append(sku)

    def freed(self, sku: str) -> None:
        self.said_free.append(sku)

    async def call_by_ledger(self, skus: Sequence[str]) -> None:
        self.called_by_ledger += skus

    async def free(self, skus: Sequence[str], now_ms: int) -> dict[str, int]:  # noqa: ARG002 - the bell's signature
        return {sku: self.shown[sku] for sku in skus if sku in self.shown}


Answer = list[LedgerRefusal] | BaseException | Callable[[Sequence[Entry]], list[LedgerRefusal]]


class FakeLedger(Ledger):
    """A committer's connection. `answers` are given in turn, an exception is raised; without one, every order lives.
    While `held`, a commit waits. Units of living orders are used in `stock`.
    """

    def __init__(self, owner: str = "", stock: FakeStock | None = None) -> None:
        super().__init__("", owner, 1.0)
        self.owner = owner
        self.stock = stock
        self.answers: list[Answer] = []
        self.unreachable: BaseException | None = None
        self.batches: list[tuple[bytes, list[Entry]]] = []
        self.stored: list[Entry] = []
        self.held = asyncio.Event()
        self.held.set()
        self.closed = False

    async def ensure_open(self) -> None:
        if self.unreachable is not None:
            raise self.unreachable

    def close(self) -> None:
        self.closed = True

    async def commit(self, batch_id: bytes, entries: Sequence[Entry]) -> list[LedgerRefusal]:
        keys = [entry.key_hash for entry in entries]
        assert len(set(keys)) == len(keys), "a batch holds a key once"
        buyers = [limit.buyer for entry in entries for limit in entry.limits]
        assert len(set(buyers)) == len(buyers), "a batch holds a buyer of a limited SKU once"
        self.batches.append((batch_id, list(entries)))
        await self.held.wait()
        answer: Answer = self.answers.pop(0) if self.answers else []
        if isinstance(answer, BaseException):
            raise answer
        refusals = answer(entries) if callable(answer) else answer
        refused = {refusal.entry.key_hash for refusal in refusals}
        self._store([entry for entry in entries if entry.key_hash not in refused])
        return refusals

    def _store(self, living: list[Entry]) -> None:
        self.stored += living
        for entry in living:
            for lease_id, units in entry.parts if self.stock else ():
                assert self.stock is not None
                lease = self.stock.leases[lease_id]
                lease.used += units
                lease.active = lease.used < lease.units


def duplicate(entry: Entry, order_id: bytes, fingerprint: bytes | None = None) -> LedgerRefusal:
    return LedgerRefusal(entry, "duplicate", order_id, entry.fingerprint if fingerprint is None else fingerprint)


def fenced(entry: Entry) -> LedgerRefusal:
    return LedgerRefusal(entry, "fenced", b"", b"")


def over_limit(entry: Entry, **taken: int) -> LedgerRefusal:
    return LedgerRefusal(entry, "limit", b"", b"", tuple(taken.items()))


class FakeLog:
    """Notes the names of what is logged."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def info(self, name: str, **_: object) -> None:
        self.names.append(name)

    warning = error = info


class FakeStream(Stream):
    """A stream that stores what it is sent, unless `away`. While `held`, publishing waits."""

    def __init__(self) -> None:
        super().__init__("", "fake", 1.0)
        self.away = False
        self.batches: list[list[Event]] = []
        self.held = asyncio.Event()
        self.held.set()

    async def publish(self, events: Sequence[Event], stream: str = NAME) -> int:
        assert stream == NAME
        await self.held.wait()
        if self.away:
            raise StreamUnavailableError("NATS cannot be reached")
        self.batches.append(list(events))
        return 0


class FakePool:
    """A pool that notes the statements that it is given; `error` is raised instead."""

    def __init__(self) -> None:
        self.removed: list[bytes] = []
        self.error: BaseException | None = None

    async def execute(self, text: str, batch_ids: list[UUID]) -> None:
        assert "delete from outbox" in text, text
        if self.error is not None:
            raise self.error
        self.removed += [batch_id.bytes for batch_id in batch_ids]


class FakeBook(OrderBook):
    """Knows the orders that a test puts in: `known` by key hash, `orders` by id. While `away`, nothing."""

    def __init__(self, vault: Vault) -> None:
        super().__init__(FakePool(), Session("", "unused"), vault)
        self.known: dict[bytes, StoredKey] = {}
        self.orders: dict[bytes, Order] = {}
        self.asked: list[Sequence[bytes]] = []
        self.error: BaseException | None = None

    async def keys(self, key_hashes: Sequence[bytes]) -> dict[bytes, StoredKey]:
        if self.error is not None:
            raise self.error
        self.asked.append(key_hashes)
        return {key_hash: self.known[key_hash] for key_hash in key_hashes if key_hash in self.known}

    async def as_created(self, order_ids: Sequence[bytes]) -> dict[bytes, Order]:
        if self.error is not None:
            raise self.error
        return {order_id: self.orders[order_id] for order_id in order_ids}


def body(sku: str = SKU, quantity: int = 1, **changes: Any) -> bytes:
    """An order as a client sends it."""
    document = {"channel": "app", "currency": "CNY", "items": [{"sku": sku, "quantity": quantity}]}
    return msgspec.json.encode(document | changes)


def sale_row(opens_in_s: float = 0, open_for_s: float = 3600, **changes: Any) -> dict[str, Any]:
    """A sale of SKU as the ledger has it, open from `opens_in_s` after START_S on."""
    starts_at = dt.datetime.fromtimestamp(START_S + opens_in_s, dt.UTC)
    return {
        "sale_id": SALE,
        "title": "Double 11",
        "starts_at": starts_at,
        "ends_at": starts_at + dt.timedelta(seconds=open_for_s),
        "payment_timeout_s": None,
        "version": 1,
        "revision": 1,
        "skus": [SKU],
        "prices": [99],
        "currencies": ["CNY"],
        "limits": [None],
        "units": [10],
    } | changes


class Road:
    """Admission, leases, queue and committer of one worker between fakes. A test starts the loops that it needs."""

    def __init__(self, free: dict[str, int], changed: Settings = NO_SETTINGS, tracer: Tracer | None = None) -> None:
        self.settings = changed
        self.clock = FrozenClock()
        self.stock = FakeStock(**free)
        self.session = FakeSession(self.stock)
        self.control = FakeControl(self.stock)
        self.control_session = FakeSession(self.control)
        self.bell, self.counters = FakeBell(), Counters()
        self.leases = Leases(self.session, self.clock, Live(changed), self.bell, self.counters)
        self.queue = BatchQueue(changed.batch)
        self.vault = Vault({1: bytes(32)})
        self.book = FakeBook(self.vault)
        self.tasks = Tasks()
        self.catalogue = Catalogue()
        self.catalogue.revision = 0
        self.catalogue.products = {sku: Product(sku, "HEART T-LIGHT", 255, "CNY") for sku in free}
        self.catalogue.products[SERVICE] = Product(SERVICE, "POSTAGE", 100, "CNY", stocked=False)
        self.lookup = KeyLookup(self.book.keys)
        self.hasher = Hasher(bytes(32))
        self.refusals = FakeRefusals()
        self.sales = Sales(FakeSession(self.refusals), self.clock, self.catalogue, self.leases)
        self.sales.revision = 0
        self.live = Live(changed)
        self.journaling = Journaling(changed.journal, self.live, self.clock, self.counters)
        self.leases.pins = self.journaling.pins
        self.admission = Admission(
            changed,
            self.clock,
            self.catalogue,
            self.leases,
            self.queue,
            self.book,
            self.lookup,
            self.vault,
            self.hasher,
            self.tasks,
            self.sales,
            self.journaling,
        )
        self.admission.open = True
        self.ledgers: list[FakeLedger] = []
        self.stream, self.pool = FakeStream(), FakePool()
        self.publisher = Publisher(self.stream, self.pool, self.counters, tracer)
        self.committer = Committer(
            self._open_ledger,
            self.control_session,
            self.queue,
            self.leases,
            self.admission,
            self.publisher,
            self.clock,
            self.tasks,
            self.counters,
            changed.orders.reply_ms_max / 1000,
            self.journaling,
            tracer,
        )

    def _open_ledger(self, owner: str) -> FakeLedger:
        self.ledgers.append(FakeLedger(owner, self.stock))
        return self.ledgers[-1]

    @property
    def ledger(self) -> FakeLedger:
        """The committer's present connection."""
        return self.ledgers[-1]

    def start(self) -> None:
        """Start every loop of the road but the publisher's, the heart's and the watch."""
        for name, run in (("leases", self.leases.run), ("lookup", self.lookup.run), ("committer", self.committer.run)):
            self.tasks.loop(name, run)

    def hold(self, units: int, sku: str = SKU) -> bytes:
        """Put a lease into the till, as a take would have."""
        lease = ids.new_id(self.clock.now_ms())
        self.stock.leases[lease] = FakeLease(self.leases.owner, sku, units)
        self.leases.till.add(sku, lease, units)
        return lease

    async def place(
        self, key: str = "k-1", body_: bytes = b"", client: Client = SHOP, trace: Trace | None = None
    ) -> Outcome:
        return await self.admission.place(Request(client, key.encode(), body_ or body(), trace=trace))

    def send(self, key: str = "k-1", body_: bytes = b"") -> "asyncio.Task[Outcome]":
        """Place an order without waiting for its answer."""
        return asyncio.ensure_future(self.place(key, body_))

    def key_hash(self, key: str = "k-1") -> bytes:
        return self.hasher.key_hash(SHOP.client_id, key.encode())

    def promised(self) -> int:
        """Units that a commit under way, or a leak, has."""
        return sum(lease.promised for lease in self.leases.till.leases())

    def assert_balanced(self, total: int, sku: str = SKU) -> None:
        """Every unit is free, in a lease of the till, or sold; and the till says what the ledger says."""
        self.assert_balanced_with(self.ledgers, total, sku)

    def assert_balanced_with(self, ledgers: Sequence[FakeLedger], total: int, sku: str = SKU) -> None:
        """The same, for orders that came to these ledgers."""
        sold = sum(units for ledger in ledgers for entry in ledger.stored for _, units in entry.parts)
        assert self.stock.free[sku] + self.stock.outstanding(sku) + sold == total
        assert self.promised() == 0
        for lease in self.leases.till.leases():
            known = self.stock.leases[lease.lease]
            assert (lease.units, lease.used, True) == (known.units, known.used, known.active)

    async def close(self) -> None:
        await self.tasks.close(wait_s=0)


def pending(size: int = 100, queued_at: float = START_S, buyers: Sequence[tuple[str, str]] = ()) -> Pending:
    """An order in the queue of which nothing but its size matters, and whose limits (SKU, customer) count."""
    order_id = ids.new_id(int(START_S * 1000))
    limits = [Limit(sku, customer, 1, 1) for sku, customer in buyers]
    entry = Entry(order_id, order_id, bytes(16), [], b"", [], b"", b"", limits)
    event = Event("orders.created.app.00", ids.format_id(order_id), b"{}")
    return Pending(SHOP, entry, [], event, b"{}", size, 1, 1, Promise(), queued_at)


def accepted(outcome: Outcome) -> Accepted:
    assert isinstance(outcome, Accepted), outcome
    return outcome


def refused(outcome: Outcome) -> str:
    """The code of a refusal."""
    assert isinstance(outcome, Refusal), outcome
    return outcome.code
