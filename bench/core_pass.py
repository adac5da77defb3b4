"""One order through the compiled pass in this process: what `core` and `core_full` measure.

The road's own parts do the work, wired as a worker wires them, but without a loop, a server or a file: the till never
runs empty, and the queue keeps nothing. It promises that what is measured is what a worker runs, and never sends
anything.
"""

import time
from collections.abc import Callable
from typing import cast

import msgspec

from core_ext import admission, ids, pricing
from core_ext.shapes import OrderIn, Priced, Product
from gateway.access import Access
from gateway.admission import Admission, Request
from gateway.batch import BatchQueue, Pending
from gateway.bell import Bell
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.access import Client, token_hash
from gateway.domain.keys import Hasher, parse_key
from gateway.domain.outcomes import Promise
from gateway.domain.personal import Vault
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.lookup import KeyLookup
from gateway.metrics import Counters
from gateway.orders import OrderBook
from gateway.sales import Sales
from gateway.settings import load
from gateway.tasks import Tasks
from persistence.postgres.session import Session

TOKEN = "fg_benchmark"  # noqa: S105 - of a client that nobody else knows
KEY = b"0192b3c4-d5e6-7f80-9123-456789abcdef"
TITLE = "Flash"
PRICE = 9900
PAYMENT_MS = 1_800_000
UNITS = 1 << 60  # of every SKU
NOW_MS = 1_790_000_000_000


class Hole(BatchQueue):
    """A queue from which every order is taken at once."""

    def put(self, pending: Pending, now_s: float) -> None:
        """Let the order go, with the time at which it came."""
        pending.queued_at = now_s


class CorePass:
    """Everything that one order needs, in memory. `body` is an order as a client sends it, of products at PRICE."""

    def __init__(self, body: bytes) -> None:
        order = msgspec.json.decode(body, type=OrderIn)
        self._body, self._header = body, b"Bearer " + TOKEN.encode()
        self._clock, self._access = Clock(), Access()
        self._clock.observe(self._clock.now_s(), time.monotonic(), time.monotonic())
        self._client = Client(1, "shop", frozenset({"orders:write"}), frozenset({order.channel}))
        self._access.replace([(token_hash(TOKEN), self._client)])
        self._hasher, self._vault = Hasher(bytes(32)), Vault({1: bytes(32)})
        products = {item.sku: Product(item.sku, TITLE, PRICE, order.currency) for item in order.items}
        self._wire(products)
        # A decoded order without personal data, whose encryption is no part of this: priced, its units reserved, its
        # rows encoded.
        self.core = self._core_of(msgspec.structs.replace(order, note=None, ship_to=None), products)

    @property
    def sealing(self) -> str:
        """By which way AES-GCM is had here, of core_ext.sealing.WAYS."""
        return self._vault.sealer.way

    def core_full(self) -> None:
        """The headers and bytes of a request: token, key, hashes, decoding, validation, price, demand, reservation,
        encryption, rows, event, id and answer.
        """
        client, key = self._access.find(self._header, self._clock.now_s()), parse_key(KEY)
        assert client is not None
        assert key is not None
        request = Request(client, key, self._body)
        request.key_hash = self._hasher.key_hash(client.client_id, key)
        request.fingerprint = self._hasher.fingerprint(self._body)
        refused = self._admission.try_admit(request, Promise())
        assert refused is None, refused

    def _core_of(self, order: OrderIn, products: dict[str, Product]) -> Callable[[], None]:
        """A closure: what a method looks up by name each time would be a fifth of what is measured."""
        price = cast("Callable[[OrderIn, dict[str, Product], bool], Priced]", pricing.price_order)
        reserve, write, sealer = self._leases.till.try_reserve, admission.write, self._vault.sealer

        def core() -> None:
            priced = price(order, products, False)
            reserve(priced.demand)
            write(order, priced, 1, "client:shop", NOW_MS, PAYMENT_MS, None, sealer)

        return core

    def _wire(self, products: dict[str, Product]) -> None:
        settings, tasks = load(environ={}), Tasks()
        session = Session("", "bench")  # connects at first use, and is not used
        catalogue, book = Catalogue(), OrderBook(None, session, self._vault)
        catalogue.revision = 0
        for product in products.values():
            catalogue.put(product)
        live, counters = Live(settings), Counters()
        leases = self._leases = Leases(session, self._clock, live, Bell(session, None), counters)
        for sku in products:
            leases.till.add(sku, ids.new_id(NOW_MS), UNITS)
        sales = Sales(session, self._clock, catalogue, leases)
        sales.revision = 0
        self._admission = Admission(
            settings,
            self._clock,
            catalogue,
            leases,
            Hole(settings.batch),
            book,
            KeyLookup(book.keys),
            self._vault,
            self._hasher,
            tasks,
            sales,
            Journaling(settings.journal, live, self._clock, counters),
        )
        self._admission.open = True
