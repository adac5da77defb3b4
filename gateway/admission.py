"""Admission: from a request to an order in the queue, in one synchronous function. Who is asking, is the order valid,
is there stock in hand, is there room?

Its answers are *admitted*, *refused* with a code, or *parked*. It promises that an admitted order has its units, and
that a refusal for a reason that may have changed since the first try is given only after the ledger has said that it
does not know the key.
"""

import asyncio
from collections.abc import Sequence
from functools import lru_cache, partial

import msgspec

from core_ext import admission, documents, pricing, validation
from core_ext.faults import FaultAt, find_faults, pricing_faults
from core_ext.shapes import OrderIn, Priced, Product
from gateway.batch import BatchQueue, Pending
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import LEDGER_AWAY, OVERLOADED, RECEIPT, Accepted, Outcome, Promise, Refusal
from gateway.domain.personal import Vault
from gateway.domain.rules import Rules
from gateway.domain.sales import Sale, not_in_sale
from gateway.domain.stock_keys import stock_key
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.lookup import KeyLookup, LookupFailedError, OverloadedError
from gateway.orders import OrderBook, body_of
from gateway.parking import Parked, Parts, Short
from gateway.rates import Allowance
from gateway.sales import Sales
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.tracing import Trace
from persistence.errors import LedgerUnavailableError
from persistence.nats.stream import Event
from persistence.postgres.ledger import Entry, Limit
from persistence.postgres.orders import StoredKey

LARGE_ITEMS_MIN = 101  # an order of more than 100 items may be larger than the usual body
STATELESS = "the order is not valid"
PRICING = "the order does not fit the catalogue"
# Refusals for reasons that may not have been there when the key was first used. `invalid` by the body alone would have
# been invalid then, too, but is looked up all the same: it costs one query, and is what nobody sends in a sale.
MAY_HAVE_CHANGED = frozenset(
    {"sold_out", "stock_returning", "sale_not_open", "sale_closed", "channel_forbidden", "invalid"}
)

SHORT = "fewer units are left than asked for"
SHORT_KEPT_MAX = 1024  # refusals of orders of one line, by SKU and units left

_decode = msgspec.json.Decoder(OrderIn).decode
_decode_any = msgspec.json.Decoder().decode


class Request(msgspec.Struct, eq=False):
    """A request for an order, as the edge has read it. `key` is the parsed Idempotency-Key."""

    client: Client
    key: bytes
    body: bytes
    traceparent: str | None = None
    allowance: Allowance | None = None
    trace: Trace | None = None  # when it is sampled
    key_hash: bytes = b""
    fingerprint: bytes = b""
    sale: Sale | None = None  # that the order names, once it is known


class Draft(msgspec.Struct, eq=False):
    """A valid and priced order that has no units yet."""

    order_in: OrderIn
    priced: Priced
    request: Request


class Waiting(msgspec.Struct, eq=False):
    """A draft that waits for stock."""

    draft: Draft
    parked: Parked


class InFlight(msgspec.Struct, eq=False):
    """The first request with a key, while it is being answered."""

    fingerprint: bytes
    outcome: Promise


class Admission:
    """One per lane. Everything that it needs to know is in memory; only `place` waits."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        catalogue: Catalogue,
        leases: Leases,
        queue: BatchQueue,
        book: OrderBook,
        lookup: KeyLookup,
        vault: Vault,
        hasher: Hasher,
        tasks: Tasks,
        sales: Sales,
        journaling: Journaling,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._catalogue = catalogue
        self._leases = leases
        self._queue = queue
        self._book = book
        self._vault = vault
        self._hasher = hasher
        self._tasks = tasks
        self._sales = sales
        self._journaling = journaling
        self._payments = Rules([(rule.channel, rule.payment_timeout_s) for rule in settings.orders.rule])
        self._source = f"/floodgate/{settings.installation.name}"
        self._in_flight: dict[bytes, InFlight] = {}
        self.lookup = lookup
        self.open = False  # whether the ledger takes orders, as the committer last saw it
        self.draining = False
        self.event_bytes_max = 1 << 20

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def is_crowded(self) -> bool:
        """Whether one more order would have to wait too long. Reads a few numbers, so that any thread may ask."""
        return self.takes_orders and not self.draining and self._queue.is_full

    @property
    def takes_orders(self) -> bool:
        """Whether orders have somewhere to go: the ledger, or the journal while it is away."""
        return self.open or self._journaling.usable

    async def place(self, request: Request) -> Outcome:
        """Answer a request for an order. The order goes on when the caller is cancelled: its buyer may ask again with
        the same key.
        """
        return await _known(self.begin(request))

    def begin(self, request: Request) -> Promise:
        """Begin to answer a request, without waiting: the promise has the answer, now or later."""
        if request.trace is not None:
            request.trace.placed_s = self._clock.now_s()
        request.key_hash = self._hasher.key_hash(request.client.client_id, request.key)
        request.fingerprint = self._hasher.fingerprint(request.body)
        if (kept := self._journaling.receipts.get(request.key_hash)) is not None:
            known = Promise()
            known.set_result(RECEIPT if kept == request.fingerprint else Refusal("key_reused"))
            return known
        first = self._in_flight.get(request.key_hash)
        if first is not None:
            outcome = Promise()
            self._tasks.start(self._second(first, request, outcome))
            return outcome
        outcome = Promise([partial(self._answered, request)])
        self._in_flight[request.key_hash] = InFlight(request.fingerprint, outcome)
        try:
            answer = self.try_admit(request, outcome)
        except BaseException:
            outcome.set_result(Refusal("internal"))
            raise
        if answer is None:
            return outcome
        if isinstance(answer, Waiting):
            self._tasks.start(self._finish(answer, request, outcome))
        elif answer.code in MAY_HAVE_CHANGED:
            self._refuse_unless_known(answer, request, outcome)
        else:
            outcome.set_result(answer)
        return outcome

    def try_admit(self, request: Request, outcome: Promise) -> Refusal | Waiting | None:
        """Admit an order into the queue (None: `outcome` will tell), or say why not, or what it waits for."""
        if self.draining or not (self.open and self._clock.known and self._catalogue.loaded and self._sales.loaded):
            return self._try_admit_away(request, outcome)
        # Whether there is room is asked before the order is read: to refuse must cost little.
        draft = self._draft(request) if self._queue.room(self._clock.steady_s()) else OVERLOADED
        if isinstance(draft, Refusal):
            return draft
        limits = _limits(draft) if draft.priced.limits else ()
        if limits and not self._queue.room(self._clock.steady_s(), limits):
            return OVERLOADED
        demand = draft.priced.demand
        parts = self._leases.try_reserve(demand) if demand else []
        if parts is not None:
            return self._enqueue(draft, parts, outcome)
        short = self._leases.short(demand)
        if short is not None:
            return _sold_out(draft.order_in, short)
        parked = self._leases.park(demand)
        return OVERLOADED if parked is None else Waiting(draft, parked)

    def _try_admit_away(self, request: Request, outcome: Promise) -> Refusal | None:
        """Admit an order for the journal, out of the units in hand. Who would have to be refused for a reason that only
        the ledger can confirm, or who may hold only so many units, has to come again.
        """
        loaded = self._catalogue.loaded and self._sales.loaded
        if self.open or self.draining or not (loaded and self._journaling.usable and self._clock.was_known):
            return LEDGER_AWAY
        if not self._queue.room(self._clock.steady_s()):
            return OVERLOADED
        draft = self._draft(request)
        if isinstance(draft, Refusal):
            return LEDGER_AWAY if draft.code in MAY_HAVE_CHANGED else draft
        demand = draft.priced.demand
        if draft.priced.limits or (parts := self._leases.try_reserve(demand) if demand else []) is None:
            return LEDGER_AWAY
        return self._enqueue(draft, parts, outcome)

    def readmit(self, pending: Pending) -> None:
        """Give an order other parts of leases than those that the ledger has refused, and queue it again. One whose
        buyer has been answered is let go: he may have sent it again, and a batch holds a key once.
        """
        if pending.outcome.done():
            return
        parts = self._leases.try_reserve(pending.demand)
        if parts is None:
            self._tasks.start(self._reserve_later(pending))
        else:
            self._requeue(pending, parts)

    def _answered(self, request: Request, outcome: Promise) -> None:
        self._in_flight.pop(request.key_hash, None)
        if request.sale is not None and isinstance(refusal := outcome.result(), Refusal):
            self._sales.count(request.sale, refusal.code)

    async def _second(self, first: InFlight, request: Request, outcome: Promise) -> None:
        """A request whose key is in flight: the same answer as the first one, once there is one."""
        answer: Outcome = Refusal("internal")
        try:
            answer = await self._same(first, request)
        finally:
            outcome.set_result(answer)

    async def _same(self, first: InFlight, request: Request) -> Outcome:
        if first.fingerprint != request.fingerprint:
            return Refusal("key_reused")
        try:
            outcome = await asyncio.wait_for(_known(first.outcome), self._settings.orders.key_wait_ms_max / 1000)
        except TimeoutError:
            return Refusal("key_in_flight")
        return msgspec.structs.replace(outcome, replayed=True) if isinstance(outcome, Accepted) else outcome

    def _draft(self, request: Request) -> Draft | Refusal:
        body, client = request.body, request.client
        may_price = "orders:price" in client.scopes
        try:
            order_in = _decode(body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return _explain(body, may_price=may_price)
        if validation.check_order(order_in, may_price):
            return _explain(body, may_price=may_price)
        if len(body) > self._settings.http.body_max_bytes and len(order_in.items) < LARGE_ITEMS_MIN:
            return Refusal("body_too_large")
        if not client.sells_on(order_in.channel):
            return Refusal("channel_forbidden", f"the client may not sell on {order_in.channel}")
        limited = _limited(order_in, request) if request.allowance is not None else None
        return limited or self._draft_of(order_in, request)

    def _draft_of(self, order_in: OrderIn, request: Request) -> Draft | Refusal:
        if order_in.sale_id is not None:
            return self._draft_of_sale(order_in, order_in.sale_id, request)
        return _draft_at(self._catalogue.products, order_in, request)

    def _draft_of_sale(self, order_in: OrderIn, sale_id: str, request: Request) -> Draft | Refusal:
        """As the sale sells, out of its own units."""
        sale = request.sale = self._sales.find(sale_id)
        if sale is None:
            return _invalid([FaultAt("unknown_sale", "#/sale_id", "is not a sale")], PRICING)
        draft = self._sales.refusal(sale) or _draft_at(self._sales.products(sale), order_in, request)
        if isinstance(draft, Draft):
            demand = [(stock_key(sale_id, sku), units) for sku, units in draft.priced.demand]
            draft.priced = draft.priced._replace(demand=demand)
        return draft

    def _enqueue(self, draft: Draft, parts: Parts, outcome: Promise) -> Refusal | None:
        try:
            pending = self._pending(draft, parts, outcome, self._clock.now_ms())
        except BaseException:
            self._leases.till.restore(parts)
            raise
        if len(pending.event.payload) > self.event_bytes_max:
            self._leases.till.restore(parts)
            return Refusal("body_too_large", "the order's event would be larger than the stream takes")
        self._queue.put(pending, self._clock.steady_s())
        if pending.trace is not None:
            pending.trace.admitted_s = self._clock.now_s()
        return None

    def _pending(self, draft: Draft, parts: Parts, outcome: Promise, now_ms: int) -> Pending:
        """The order with its id, its rows, its event and its answer. The tuples are made without their constructors,
        which are Python functions and cost three times as much.
        """
        request, order_in, priced = draft.request, draft.order_in, draft.priced
        client, key, fingerprint, trace = request.client, request.key_hash, request.fingerprint, request.traceparent
        client_id, actor = client.client_id, client.actor
        personal = documents.PLAIN if "pii:read" in client.scopes else documents.MASKED
        timeout_s = request.sale.payment_timeout_s if request.sale is not None else None
        payment_ms = 1000 * (timeout_s or self._payment_s(order_in.channel))
        written = admission.write(order_in, priced, client_id, actor, now_ms, payment_ms, trace, self._vault.sealer)
        told = admission.tell(
            order_in, priced, written, client_id, actor, now_ms, trace, self._source, key, fingerprint, personal
        )
        order_id, _, _, order_row, line_rows, history_row, key_row, size, units = written
        subject, event_id, payload, headers, body = told
        limits = _limits(draft) if priced.limits else ()
        rows = order_id, key, fingerprint, parts, order_row, line_rows, history_row, key_row, limits
        entry = tuple.__new__(Entry, rows)
        event = tuple.__new__(Event, (subject, event_id, payload, headers))
        lines = len(priced.lines)
        return Pending(client, entry, priced.demand, event, body, size, lines, units, outcome, trace=request.trace)

    def _payment_s(self, channel: str) -> int:
        """How long an order of this channel may wait for its payment."""
        return self._payments.find(channel) or self._settings.orders.payment_timeout_s

    def _refuse_unless_known(self, refusal: Refusal, request: Request, outcome: Promise) -> None:
        """Refuse once the ledger has said that it does not know the key: a known key beats every refusal. There is no
        task for it, since a sale refuses nearly everybody.
        """
        try:
            self.lookup.ask(request.key_hash, partial(self._looked_up, refusal, request, outcome))
        except OverloadedError:
            outcome.set_result(OVERLOADED)

    def _looked_up(
        self,
        refusal: Refusal,
        request: Request,
        outcome: Promise,
        stored: StoredKey | None,
        error: LedgerUnavailableError | LookupFailedError | None,
    ) -> None:
        if error is not None:
            outcome.set_result(LEDGER_AWAY if isinstance(error, LedgerUnavailableError) else Refusal("internal"))
        elif stored is None:
            outcome.set_result(self._of_unknown(refusal))
        else:  # It is a retry, which is rare, and is looked up once more.
            self._tasks.start(self._finish(refusal, request, outcome))

    def _of_unknown(self, refusal: Refusal) -> Refusal:
        """What to answer to a key that the ledger does not know: it may be in a journal, and then it has an order. That
        has its units, which the ledger still counts as unsold: as long as they are there, nobody hears that they are
        sold out.
        """
        held = self._journaling.others_may_hold and refusal.code != "sold_out"
        return LEDGER_AWAY if held else refusal

    async def _finish(self, answer: Refusal | Waiting, request: Request, outcome: Promise) -> None:
        """Bring a request to its answer that could not be answered at once."""
        try:
            refusal = answer if isinstance(answer, Refusal) else await self._wait(answer, outcome)
            if refusal is not None:
                known = await self._unless_known(refusal, request.key_hash, request.fingerprint, request.client)
                outcome.set_result(known)
        except BaseException:
            if not outcome.done():
                outcome.set_result(Refusal("internal"))
            raise

    async def _wait(self, waiting: Waiting, outcome: Promise) -> Refusal | None:
        """Queue a parked order once it has its units, or say why it gets none."""
        result = await waiting.parked.result
        if isinstance(result, Short):
            return _sold_out(waiting.draft.order_in, result)
        if isinstance(result, Refusal):
            return result
        sale = waiting.draft.request.sale
        over = self._sales.refusal(sale) if sale else None
        if over is None and not self._queue.room(self._clock.steady_s(), _limits(waiting.draft)):
            over = OVERLOADED
        if over is not None:
            self._leases.till.restore(result)
            self._leases.returned()
            return over
        return self._enqueue(waiting.draft, result, outcome)

    async def _unless_known(self, refusal: Refusal, key_hash: bytes, fingerprint: bytes, client: Client) -> Outcome:
        """The refusal, unless the key belongs to an order: a known key beats every refusal."""
        try:
            stored = await self.lookup.find(key_hash)
            if stored is None:
                return self._of_unknown(refusal)
            return await self.replay(stored, fingerprint, client)
        except OverloadedError:
            return OVERLOADED
        except LedgerUnavailableError:
            return LEDGER_AWAY

    async def replay(self, stored: StoredKey, fingerprint: bytes, client: Client) -> Outcome:
        """The answer to a retry: the order as created. Raises LedgerUnavailableError."""
        if stored.fingerprint != fingerprint:
            return Refusal("key_reused")
        order = (await self._book.as_created([stored.order_id]))[stored.order_id]
        return Accepted(stored.order_id, body_of(order, client), replayed=True)

    async def _reserve_later(self, pending: Pending) -> None:
        try:
            parked = self._leases.park(pending.demand)
            result = OVERLOADED if parked is None else await parked.result
            if isinstance(result, Short):
                result = Refusal("sold_out", SHORT)
            if isinstance(result, Refusal):
                entry = pending.entry
                pending.answer(await self._unless_known(result, entry.key_hash, entry.fingerprint, pending.client))
            elif pending.outcome.done():
                self._leases.till.restore(result)
                self._leases.returned()
            else:
                self._requeue(pending, result)
        except BaseException:
            pending.answer(Refusal("internal"))
            raise

    def _requeue(self, pending: Pending, parts: Parts) -> None:
        pending.entry = pending.entry._replace(parts=parts)
        self._queue.put(pending, self._clock.steady_s())


async def _known(promise: Promise) -> Outcome:
    """Wait for an outcome. Who is cancelled meanwhile changes nothing about it."""
    if promise.done():
        return promise.result()
    known: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def tell(told: Promise) -> None:
        if not known.done():
            known.set_result(told.result())

    promise.add_done_callback(tell)
    return await known


def _limits(draft: Draft) -> Sequence[Limit]:
    """What the order wants of stock keys of which its customer, who is known, may hold so many."""
    sale_id, customer = draft.order_in.sale_id, draft.order_in.customer_id
    return [Limit(stock_key(sale_id, sku), str(customer), units, limit) for sku, units, limit in draft.priced.limits]


def _explain(body: bytes, *, may_price: bool) -> Refusal:
    """Everything that is wrong with a body, once it is known that something is."""
    try:
        document = _decode_any(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Refusal("malformed_json")
    faults = find_faults(document, may_price)
    if not faults:
        # Decoding into an order looks at every value of a field that stands there twice, this reading at the last one.
        return Refusal("malformed_json", "an object names a field twice")
    return _invalid(faults, STATELESS)


def _invalid(faults: list[FaultAt], detail: str) -> Refusal:
    return Refusal(
        "invalid",
        detail,
        tuple({"detail": fault.detail, "pointer": fault.pointer, "code": fault.code} for fault in faults),
    )


def _limited(order_in: OrderIn, request: Request) -> Refusal | None:
    """The refusal of a customer who orders too often. He is charged once, however often his request is tried."""
    allowance, request.allowance = request.allowance, None
    if allowance is None or order_in.customer_id is None:
        return None
    return allowance.refusal_of(order_in.customer_id)


def _draft_at(products: dict[str, Product], order_in: OrderIn, request: Request) -> Draft | Refusal:
    """The order at the prices of these products."""
    may_price = "orders:price" in request.client.scopes
    priced = pricing.price_order(order_in, products, may_price)
    if isinstance(priced, int):
        faults = pricing_faults(order_in, products, may_price)
        return _invalid(faults if order_in.sale_id is None else not_in_sale(faults), PRICING)
    return _drafted(order_in, priced, request) if priced.limits else Draft(order_in, priced, request)


def _drafted(order_in: OrderIn, priced: Priced, request: Request) -> Draft | Refusal:
    """A draft, whose customer has to be known where he may hold only so many units."""
    if order_in.customer_id is not None:
        return Draft(order_in, priced, request)
    sku, _, limit = priced.limits[0]
    detail = f"is required, because a customer may hold no more than {limit} of {sku}"
    return _invalid([FaultAt("required", "#/customer_id", detail)], PRICING)


def _sold_out(order_in: OrderIn, short: Short) -> Refusal:
    items, available = order_in.items, short.available
    if len(items) == 1:  # Of its one demand.
        return _sold_out_of(items[0].sku, available[0][1])
    units_of = dict(available)
    left = [units_of.get(stock_key(order_in.sale_id, item.sku)) for item in items]
    errors = [_left(at, items[at].sku, units) for at, units in enumerate(left) if units is not None]
    return Refusal("sold_out", SHORT, tuple(errors))


@lru_cache(SHORT_KEPT_MAX)
def _sold_out_of(sku: str, units: int) -> Refusal:
    """An order of one line: in a sale nearly every order is refused so, and the same units are left for all."""
    return Refusal("sold_out", SHORT, (_left(0, sku, units),))


def _left(at: int, sku: str, units: int) -> dict[str, str | int]:
    return {"detail": f"{units} of {sku} are left", "pointer": f"#/items/{at}/quantity", "available": units}
