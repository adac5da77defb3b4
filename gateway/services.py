"""What a worker is made of, as `gateway.app` has wired it: the routes of Litestar find here what they need."""

import asyncpg
from msgspec import Struct

from gateway.access import Access
from gateway.admission import Admission
from gateway.availability import Board
from gateway.batch import BatchQueue
from gateway.bell import Bell
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.keys import Hasher
from gateway.draining import Drainer
from gateway.edge.bulk import BulkRoom
from gateway.edge.hot import OrderRoute
from gateway.edge.show import ShowRoute
from gateway.following import Following
from gateway.footprint import Footprint
from gateway.heart import Heart
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.metrics import Counters, Exporter
from gateway.orders import OrderBook
from gateway.publisher import Publisher
from gateway.rates import Rates
from gateway.reads import OrderReads
from gateway.sales import Sales
from gateway.settings import Settings
from gateway.stream_watch import StreamWatch
from gateway.tracing import Tracer
from persistence.nats.stream import Stream
from persistence.redis.mirror import Mirror


class Services(Struct, eq=False):
    """One per worker. Wired before the first request; `ready` says which parts can be used."""

    settings: Settings
    clock: Clock
    access: Access
    catalogue: Catalogue
    sales: Sales
    live: Live
    rates: Rates
    mirror: Mirror | None
    board: Board
    bell: Bell
    leases: Leases
    queue: BatchQueue
    admission: Admission
    route: OrderRoute
    bulk: BulkRoom
    book: OrderBook
    reads: OrderReads
    show: ShowRoute
    hasher: Hasher
    pool: asyncpg.Pool
    stream: Stream
    stream_watch: StreamWatch
    publisher: Publisher
    heart: Heart
    journaling: Journaling
    drainer: Drainer
    following: Following
    footprint: Footprint
    tracer: Tracer | None
    counters: Counters
    exporter: Exporter

    def ready(self) -> dict[str, bool]:
        """Part -> whether it can be used. Only those in REQUIRED keep the worker from taking orders."""
        return {
            "ledger": self.admission.open,
            "journal": self.journaling.usable or not self.journaling.wanted,
            "clock": self.clock.known,
            "catalogue": self.catalogue.loaded,
            "sales": self.sales.loaded,
            "clients": self.access.loaded,
            "admission": not self.admission.draining,
            "stream": self.stream.connected,
            "stream_settings": not self.stream_watch.faults,
            "settings": self.live.fault is None,
        }

    @property
    def takes_orders(self) -> bool:
        """Whether every part that orders need can be used."""
        parts = self.ready()
        return all(parts[name] for name in self.required)

    @property
    def required(self) -> frozenset[str]:
        """The parts without which no order is taken now: the journal stands for the ledger while that is away."""
        return REQUIRED - NEEDS_LEDGER if self.journaling.usable and not self.admission.open else REQUIRED

    def faults(self) -> dict[str, str]:
        """Part -> why it cannot be used, of those that can tell."""
        told = {
            "settings": self.live.fault or "",
            "stream_settings": "; ".join(self.stream_watch.faults),
            "journal": self.journaling.fault,
            "ledger": f"away, {self.journaling.left} orders in the journal" if self.journaling.left else "",
        }
        return {part: fault for part, fault in told.items() if fault}


REQUIRED = frozenset({"ledger", "clock", "catalogue", "sales", "clients", "admission"})
NEEDS_LEDGER = frozenset({"ledger", "clock"})  # which is read with each heartbeat
