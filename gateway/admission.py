"""Admission: from a request to an order in the queue, in one synchronous function. Who is asking, is the order valid,
is there stock in hand, is there room?

Its answers are *admitted*, *refused* with a code, or *parked*. It promises that an admitted order has its units, and
that a refusal for a reason that may have changed since the first try is given only after the ledger has said that it
does not know the key.
"""

import asyncio

import msgspec

from core_ext import ids, pricing, rows, validation
from core_ext.faults import FaultAt, find_faults, pricing_faults
from core_ext.shapes import Change, Order, OrderIn, Priced, Product
from gateway.batch import BatchQueue, Pending
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Accepted, Outcome, Refusal
from gateway.domain.personal import Vault
from gateway.domain.sales import Sale, not_in_sale
from gateway.domain.stock_keys import stock_key
from gateway.leases import Leases
from gateway.lookup import KeyLookup, OverloadedError
from gateway.orders import CREATED, OrderBook, body_of, event_of
from gateway.parking import Parked, Parts, Short
from gateway.rates import Allowance
from gateway.sales import Sales
from gateway.settings import Settings
from gateway.tasks import Tasks
from gateway.tracing import Trace
from persistence.errors import LedgerUnavailableError
from persistence.postgres.ledger import Entry, Limit
from persistence.postgres.orders import StoredKey, to_ms

# A row of order_lines has at most 64 x 4 bytes of SKU, 200 x 4 of title and 76 of the rest, with lengths; 250 of them
# stay well under the 512 KiB of one COPY.
PIECE_LINES_MAX = 250
LARGE_ITEMS_MIN = 101  # an order of more than 100 items may be larger than the usual body
STATELESS = "the order is not valid"
PRICING = "the order does not fit the catalogue"
# Refusals for reasons that may not have been there when the key was first used. `invalid` by the body alone would have
# been invalid then, too, but is looked up all the same: it costs one query, and is what nobody sends in a sale.
MAY_HAVE_CHANGED = frozenset(
    {"sold_out", "stock_returning", "sale_not_open", "sale_closed", "channel_forbidden", "invalid"}
)

_decode = msgspec.json.Decoder(OrderIn).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


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
    outcome: asyncio.Future[Outcome]


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
        self._source = f"/floodgate/{settings.installation.name}"
        self._in_flight: dict[bytes, InFlight] = {}
        self.lookup = lookup
        self.open = False  # whether the ledger takes orders, as the committer last saw it
        self.draining = False
        self.event_bytes_max = 1 << 20

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    async def place(self, request: Request) -> Outcome:
        """Answer a request for an order. The order goes on when the caller is cancelled: its buyer may ask again with
        the same key.
        """
        if request.trace is not None:
            request.trace.placed_s = self._clock.now_s()
        request.key_hash = self._hasher.key_hash(request.client.client_id, request.key)
        request.fingerprint = self._hasher.fingerprint(request.body)
        first = self._in_flight.get(request.key_hash)
        if first is not None:
            return await self._second(first, request)
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._in_flight[request.key_hash] = InFlight(request.fingerprint, outcome)
        outcome.add_done_callback(lambda _: self._answered(request, outcome))
        try:
            answer = self.try_admit(request, outcome)
        except BaseException:
            outcome.set_result(Refusal("internal"))
            raise
        if isinstance(answer, Refusal) and answer.code not in MAY_HAVE_CHANGED:
            outcome.set_result(answer)
        elif answer is not None:
            self._tasks.start(self._finish(answer, request, outcome))
        return await asyncio.shield(outcome)

    def try_admit(self, request: Request, outcome: asyncio.Future[Outcome]) -> Refusal | Waiting | None:
        """Admit an order into the queue (None: `outcome` will tell), or say why not, or what it waits for."""
        if self.draining or not (self.open and self._clock.known and self._catalogue.loaded and self._sales.loaded):
            return Refusal("ledger_away")
        draft = self._draft(request)
        if isinstance(draft, Refusal):
            return draft
        if not self._queue.room(self._clock.now_s(), _limits(draft)):
            return Refusal("overloaded")
        demand = draft.priced.demand
        parts = self._leases.try_reserve(demand) if demand else []
        if parts is not None:
            return self._enqueue(draft, parts, outcome)
        short = self._leases.short(demand)
        if short is not None:
            return _sold_out(draft.order_in, short)
        parked = self._leases.park(demand)
        return Refusal("overloaded") if parked is None else Waiting(draft, parked)

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

    def _answered(self, request: Request, outcome: asyncio.Future[Outcome]) -> None:
        self._in_flight.pop(request.key_hash, None)
        if request.sale is not None and not outcome.cancelled() and isinstance(refusal := outcome.result(), Refusal):
            self._sales.count(request.sale, refusal.code)

    async def _second(self, first: InFlight, request: Request) -> Outcome:
        """A request whose key is in flight: the same answer as the first one, once there is one."""
        if first.fingerprint != request.fingerprint:
            return Refusal("key_reused")
        try:
            outcome = await asyncio.wait_for(
                asyncio.shield(first.outcome), self._settings.orders.key_wait_ms_max / 1000
            )
        except TimeoutError:
            return Refusal("key_in_flight")
        return msgspec.structs.replace(outcome, replayed=True) if isinstance(outcome, Accepted) else outcome

    def _draft(self, request: Request) -> Draft | Refusal:
        may_price = request.client.may("orders:price")
        try:
            order_in = _decode(request.body)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return _explain(request.body, may_price=may_price)
        if validation.check_order(order_in, may_price):
            return _explain(request.body, may_price=may_price)
        if len(request.body) > self._settings.http.body_max_bytes and len(order_in.items) < LARGE_ITEMS_MIN:
            return Refusal("body_too_large")
        if not request.client.sells_on(order_in.channel):
            return Refusal("channel_forbidden", f"the client may not sell on {order_in.channel}")
        return _limited(order_in, request) or self._draft_of(order_in, request)

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

    def _enqueue(self, draft: Draft, parts: Parts, outcome: asyncio.Future[Outcome]) -> Refusal | None:
        try:
            pending = self._pending(draft, parts, outcome)
        except BaseException:
            self._leases.till.restore(parts)
            raise
        if len(pending.event.payload) > self.event_bytes_max:
            self._leases.till.restore(parts)
            return Refusal("body_too_large", "the order's event would be larger than the stream takes")
        self._queue.put(pending, self._clock.now_s())
        if pending.trace is not None:
            pending.trace.admitted_s = pending.queued_at
        return None

    def _pending(self, draft: Draft, parts: Parts, outcome: asyncio.Future[Outcome]) -> Pending:
        """The order with its id, its rows, its event and its answer."""
        request, now_ms = draft.request, self._clock.now_ms()
        sale_timeout_s = request.sale.payment_timeout_s if request.sale else None
        payment_timeout_s = sale_timeout_s or self._settings.orders.payment_timeout_s
        order = _order(draft, ids.new_id(now_ms), now_ms, payment_timeout_s * 1000)
        change = Change(1, now_ms, CREATED, order.status, request.client.actor, traceparent=request.traceparent)
        sealed = self._vault.seal(order.id, order.note, order.ship_to)
        entry = Entry(
            order.id,
            request.key_hash,
            request.fingerprint,
            parts,
            rows.order_row(order, sealed.personal if sealed else None),
            _line_rows(order),
            rows.history_row(order.id, change),
            rows.key_row(order.id, sealed.master_version, sealed.wrapped) if sealed else b"",
            _limits(draft),
        )
        size = sum(map(len, (entry.order_row, *entry.line_rows, entry.history_row, entry.key_row)))
        event = event_of(order, change, self._source, (request.key_hash, request.fingerprint))
        units = sum(line.quantity for line in order.lines)
        return Pending(
            request.client,
            entry,
            draft.priced.demand,
            event,
            body_of(order, request.client),
            size,
            len(order.lines),
            units,
            outcome,
            trace=request.trace,
        )

    async def _finish(self, answer: Refusal | Waiting, request: Request, outcome: asyncio.Future[Outcome]) -> None:
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

    async def _wait(self, waiting: Waiting, outcome: asyncio.Future[Outcome]) -> Refusal | None:
        """Queue a parked order once it has its units, or say why it gets none."""
        result = await waiting.parked.result
        if isinstance(result, Short):
            return _sold_out(waiting.draft.order_in, result)
        if isinstance(result, Refusal):
            return result
        sale = waiting.draft.request.sale
        over = self._sales.refusal(sale) if sale else None
        if over is None and not self._queue.room(self._clock.now_s(), _limits(waiting.draft)):
            over = Refusal("overloaded")
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
                return refusal
            return await self.replay(stored, fingerprint, client)
        except OverloadedError:
            return Refusal("overloaded")
        except LedgerUnavailableError:
            return Refusal("ledger_away")

    async def replay(self, stored: StoredKey, fingerprint: bytes, client: Client) -> Outcome:
        """The answer to a retry: the order as created. Raises LedgerUnavailableError."""
        if stored.fingerprint != fingerprint:
            return Refusal("key_reused")
        order = (await self._book.as_created([stored.order_id]))[stored.order_id]
        return Accepted(stored.order_id, body_of(order, client), replayed=True)

    async def _reserve_later(self, pending: Pending) -> None:
        try:
            parked = self._leases.park(pending.demand)
            result = Refusal("overloaded") if parked is None else await parked.result
            if isinstance(result, Short):
                result = Refusal("sold_out", "fewer units are left than asked for")
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
        self._queue.put(pending, self._clock.now_s())


def _order(draft: Draft, order_id: bytes, now_ms: int, payment_timeout_ms: int) -> Order:
    order_in, priced = draft.order_in, draft.priced
    paid = order_in.paid
    is_paid = paid is not None or priced.total == 0
    return Order(
        id=order_id,
        client_id=draft.request.client.client_id,
        channel=order_in.channel,
        currency=order_in.currency,
        status="paid" if is_paid else "pending_payment",
        version=1,
        total=priced.total,
        lines=priced.lines,
        created_at=now_ms,
        customer_id=order_in.customer_id,
        external_id=order_in.external_id,
        sale_id=order_in.sale_id,
        metadata=None if order_in.metadata is None else _encode(order_in.metadata),
        adjustments=None if order_in.adjustments is None else _encode(order_in.adjustments),
        placed_at=to_ms(order_in.placed_at),
        paid_reference=paid.reference if paid else None,
        paid_at=to_ms(paid.at) if paid else None,
        expires_at=None if is_paid else now_ms + payment_timeout_ms,
        note=order_in.note,
        ship_to=order_in.ship_to,
    )


def _limits(draft: Draft) -> list[Limit]:
    """What the order wants of stock keys of which its customer, who is known, may hold so many."""
    sale_id, customer = draft.order_in.sale_id, draft.order_in.customer_id
    return [Limit(stock_key(sale_id, sku), str(customer), units, limit) for sku, units, limit in draft.priced.limits]


def _line_rows(order: Order) -> list[bytes]:
    """The rows of the lines in pieces that the ledger may copy apart: one for nearly every order."""
    if len(order.lines) <= PIECE_LINES_MAX:
        return [rows.line_rows(order)]
    starts = range(0, len(order.lines), PIECE_LINES_MAX)
    pieces = (order.lines[start : start + PIECE_LINES_MAX] for start in starts)
    return [rows.line_rows(msgspec.structs.replace(order, lines=lines)) for lines in pieces]


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
    """The refusal of a customer who orders too often."""
    if request.allowance is None or order_in.customer_id is None:
        return None
    return request.allowance.refusal_of(order_in.customer_id)


def _draft_at(products: dict[str, Product], order_in: OrderIn, request: Request) -> Draft | Refusal:
    """The order at the prices of these products."""
    may_price = request.client.may("orders:price")
    priced = pricing.price_order(order_in, products, may_price)
    if isinstance(priced, int):
        faults = pricing_faults(order_in, products, may_price)
        return _invalid(faults if order_in.sale_id is None else not_in_sale(faults), PRICING)
    return _drafted(order_in, priced, request)


def _drafted(order_in: OrderIn, priced: Priced, request: Request) -> Draft | Refusal:
    """A draft, whose customer has to be known where he may hold only so many units."""
    if not priced.limits or order_in.customer_id is not None:
        return Draft(order_in, priced, request)
    sku, _, limit = priced.limits[0]
    detail = f"is required, because a customer may hold no more than {limit} of {sku}"
    return _invalid([FaultAt("required", "#/customer_id", detail)], PRICING)


def _sold_out(order_in: OrderIn, short: Short) -> Refusal:
    available = dict(short.available)
    left = [available.get(stock_key(order_in.sale_id, item.sku)) for item in order_in.items]
    errors = tuple(
        {"detail": f"{units} of {item.sku} are left", "pointer": f"#/items/{at}/quantity", "available": units}
        for at, (item, units) in enumerate(zip(order_in.items, left, strict=True))
        if units is not None
    )
    return Refusal("sold_out", "fewer units are left than asked for", errors)
