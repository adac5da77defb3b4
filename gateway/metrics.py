"""What a worker counts: plain numbers on the road, turned into Prometheus' format only when somebody asks. Names follow
the Prometheus conventions.

A metric is declared by one line of `Counters`, the table of them all: an attribute whose annotation says what it is,
its name and its help. Whoever counts changes the attribute (`counters.orders += 1`); what is better looked up than
counted gets a reader in gateway/app.py (attribute -> function).

Whichever worker of a host is asked answers for all of them: each writes its numbers to a slot of shared memory
(gateway/slots.py) in a loop, never on the road. Counters outlive their worker, gauges do not.
"""

import platform
import time
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import chain, product
from typing import Annotated, ClassVar, NamedTuple, get_type_hints

from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from core_ext import IMPLEMENTATION
from core_ext.codes import PROBLEMS
from gateway.slots import NUMBERS_MAX, Place, Slot, Slots

COMMIT_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_ORDERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
# What a path is about, its second part; the last one stands for all others, and for paths that no route takes.
RESOURCES = ("orders", "products", "stock", "sales", "availability", "clients", "settings", "other")
STATUS_CLASSES = (2, 3, 4, 5)
# Between two writings to the slot: the age of other workers' numbers in an answer. The supervisor kills who has not
# written for much longer.
PUBLISH_PAUSE_S = 0.1


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Share(NamedTuple):
    """One worker's part of a metric; a dead worker's is there too."""

    worker: int
    alive: bool
    numbers: list[float]


class Total(Struct, frozen=True):
    """A counter: of the host, and of the workers that have died."""

    name: str  # without `_total`
    help_text: str
    carried: ClassVar[bool] = True
    width: ClassVar[int] = 1

    def start(self) -> int:
        return 0

    def numbers(self, value: int) -> list[float]:
        return [value]

    def family(self, shares: Sequence[Share]) -> Metric:
        return CounterMetricFamily(self.name, self.help_text, value=_added(shares)[0])


class TotalByCode(Struct, frozen=True):
    """A counter for each code of the registry of problems, label `code`. All are shown, at 0 as well: an increase from
    nothing would be none to Prometheus.
    """

    name: str
    help_text: str
    carried: ClassVar[bool] = True
    width: ClassVar[int] = len(PROBLEMS)

    def start(self) -> Counter[str]:
        return Counter()

    def numbers(self, value: Counter[str]) -> list[float]:
        assert value.keys() <= PROBLEMS.keys(), "a code that is not in the registry"
        return [value[code] for code in PROBLEMS]

    def family(self, shares: Sequence[Share]) -> Metric:
        family = CounterMetricFamily(self.name, self.help_text, labels=["code"])
        for code, count in sorted(zip(PROBLEMS, _added(shares), strict=True)):
            family.add_metric([code], count)
        return family


class TotalByAnswer(Struct, frozen=True):
    """A counter for each resource and class of status, labels `resource` and `status`. All are shown, at 0 as well."""

    name: str
    help_text: str
    carried: ClassVar[bool] = True
    keys: ClassVar[tuple[tuple[str, int], ...]] = tuple(product(RESOURCES, STATUS_CLASSES))
    width: ClassVar[int] = len(keys)

    def start(self) -> Counter[tuple[str, int]]:
        return Counter()

    def numbers(self, value: Counter[tuple[str, int]]) -> list[float]:
        assert value.keys() <= set(self.keys), "an answer of another kind"
        return [value[key] for key in self.keys]

    def family(self, shares: Sequence[Share]) -> Metric:
        family = CounterMetricFamily(self.name, self.help_text, labels=["resource", "status"])
        for (resource, status), count in zip(self.keys, _added(shares), strict=True):
            family.add_metric([resource, f"{status}xx"], count)
        return family


class Distribution(Struct, frozen=True):
    """A histogram with the upper bounds of its buckets, in the unit that its name ends in."""

    name: str
    help_text: str
    bounds: tuple[float, ...]
    carried: ClassVar[bool] = True

    @property
    def width(self) -> int:
        return len(self.bounds) + 2

    def start(self) -> Histogram:
        return Histogram(self.bounds)

    def numbers(self, value: Histogram) -> list[float]:
        return [*value.counts, value.sum]

    def family(self, shares: Sequence[Share]) -> Metric:
        *counts, total = _added(shares)
        return HistogramMetricFamily(self.name, self.help_text, buckets=_buckets(self.bounds, counts), sum_value=total)


class Gauge(Struct, frozen=True):
    """A value that goes up and down: the sum of the living workers'."""

    name: str
    help_text: str
    carried: ClassVar[bool] = False
    width: ClassVar[int] = 1

    def start(self) -> float:
        return 0

    def numbers(self, value: float) -> list[float]:
        return [value]

    def family(self, shares: Sequence[Share]) -> Metric:
        value = sum(share.numbers[0] for share in shares if share.alive)
        return GaugeMetricFamily(self.name, self.help_text, value=value)


class GaugeByWorker(Struct, frozen=True):
    """A gauge whose sum says nothing: each living worker's value, label `worker`."""

    name: str
    help_text: str
    carried: ClassVar[bool] = False
    width: ClassVar[int] = 1

    def start(self) -> float:
        return 0

    def numbers(self, value: float) -> list[float]:
        return [value]

    def family(self, shares: Sequence[Share]) -> Metric:
        family = GaugeMetricFamily(self.name, self.help_text, labels=["worker"])
        for share in shares:
            if share.alive:
                family.add_metric([str(share.worker)], share.numbers[0])
        return family


class Counters:
    """The table of all metrics, and their values in this worker since it started."""

    orders: Annotated[int, Total("floodgate_orders_created", "Orders that are in the ledger")]
    lines: Annotated[int, Total("floodgate_order_lines_created", "Lines of these orders")]
    units: Annotated[int, Total("floodgate_order_units_created", "Units of these lines")]
    replayed: Annotated[int, Total("floodgate_orders_replayed", "Retries answered with the order of their key")]
    refused: Annotated[Counter[str], TotalByCode("floodgate_orders_refused", "Orders that were refused, by code")]
    requests: Annotated[
        Counter[tuple[str, int]], TotalByAnswer("floodgate_requests", "Answers by resource and class of status")
    ]
    bulk_lines: Annotated[int, Total("floodgate_bulk_lines", "Lines of bulk requests that have their verdict")]
    clients_limited: Annotated[
        int, Total("floodgate_requests_limited", "Requests refused because their client has sent too many")
    ]
    customers_limited: Annotated[
        int, Total("floodgate_customer_orders_limited", "Orders refused because their customer has sent too many")
    ]
    reads_asked: Annotated[int, Total("floodgate_order_reads_asked", "Orders that the ledger was asked to show")]
    reads_shielded: Annotated[
        int,
        Total("floodgate_order_reads_shielded", "Orders not asked for: the ledger did not know the id a moment ago"),
    ]
    ambiguous: Annotated[int, Total("floodgate_batches_ambiguous", "Commits without an answer, which were resolved")]
    fenced: Annotated[int, Total("floodgate_orders_fenced", "Orders admitted again: the ledger refused their leases")]
    events_published: Annotated[int, Total("floodgate_events_published", "Events that the stream has acknowledged")]
    events_left: Annotated[int, Total("floodgate_events_left", "Events left to the relay")]
    lease_takes: Annotated[int, Total("floodgate_lease_takes", "Takes of stock that were asked for")]
    mirror_dropped: Annotated[int, Total("floodgate_mirror_dropped", "Shards and calls that the mirror was not told")]
    commit_seconds: Annotated[
        Histogram, Distribution("floodgate_commit_seconds", "From a batch's start to its settled end", COMMIT_SECONDS)
    ]
    batch_orders: Annotated[Histogram, Distribution("floodgate_batch_orders", "Orders of a commit", BATCH_ORDERS)]
    lease_refill_seconds: Annotated[
        Histogram,
        Distribution("floodgate_lease_refill_seconds", "From asking for units to having them", COMMIT_SECONDS),
    ]
    order_seconds: Annotated[
        Histogram,
        Distribution(
            "floodgate_order_seconds", "From an order's request to its answer, if it is in the ledger", COMMIT_SECONDS
        ),
    ]
    receipts: Annotated[int, Total("floodgate_receipts", "Requests that were answered 202: the order is in a journal")]
    journaled: Annotated[int, Total("floodgate_journal_orders", "Orders that were taken into a journal")]
    journal_seconds: Annotated[
        Histogram,
        Distribution("floodgate_journal_append_seconds", "From orders to their being on the disk", COMMIT_SECONDS),
    ]
    journal_drained: Annotated[
        int, Total("floodgate_journal_drained", "Orders of journals that have become rows of the ledger")
    ]
    journal_aliases: Annotated[
        int, Total("floodgate_journal_aliases", "Orders of journals whose key another order had by then")
    ]
    journal_lost: Annotated[
        int,
        Total("floodgate_journal_units_lost", "Orders of journals that were cancelled because their units were gone"),
    ]
    journal_put_aside: Annotated[
        int, Total("floodgate_journal_put_aside", "Records of journals that the ledger refuses, put into quarantine")
    ]
    journal_damages: Annotated[
        int, Total("floodgate_journal_damages", "Stretches of adopted journals that could not be read")
    ]
    journals_adopted: Annotated[int, Total("floodgate_journals_adopted", "Journals of the dead that were taken over")]
    journal_usable: Annotated[
        float,
        GaugeByWorker("floodgate_journal_usable", "0 while orders could not go to the journal that the settings want"),
    ]
    journal_left: Annotated[
        float, GaugeByWorker("floodgate_journal_left", "Orders in the journal that are not rows yet")
    ]
    journal_bytes: Annotated[float, GaugeByWorker("floodgate_journal_bytes", "Size of the journal's file")]
    log_lines_dropped: Annotated[int, Total("floodgate_log_lines_dropped", "Lines that standard error did not take")]
    spans_exported: Annotated[int, Total("floodgate_trace_spans_exported", "Spans that the collector has taken")]
    spans_dropped: Annotated[int, Total("floodgate_trace_spans_dropped", "Spans that no collector got")]
    queue_orders: Annotated[float, Gauge("floodgate_queue_orders", "Orders that wait to be committed")]
    queue_bytes: Annotated[float, Gauge("floodgate_queue_bytes", "Encoded rows that wait to be committed")]
    parked_orders: Annotated[float, Gauge("floodgate_parked_orders", "Orders that wait for stock")]
    orders_in_flight: Annotated[
        float, Gauge("floodgate_orders_in_flight", "Keys whose first request is being answered")
    ]
    events_backlog: Annotated[
        float, Gauge("floodgate_events_backlog", "Events in memory that the stream has not acknowledged")
    ]
    clock_offset_seconds: Annotated[
        float, GaugeByWorker("floodgate_clock_offset_seconds", "PostgreSQL's clock less this host's")
    ]
    heartbeats_missed: Annotated[
        float, GaugeByWorker("floodgate_heartbeats_missed", "Heartbeats in a row that the ledger did not answer")
    ]
    bell_up: Annotated[float, GaugeByWorker("floodgate_bell_up", "1 while calls of other workers come by way of Redis")]
    rates_alone: Annotated[
        float, GaugeByWorker("floodgate_rates_alone", "1 while a worker holds rates by itself: Redis is not heard")
    ]
    ledger_up: Annotated[float, GaugeByWorker("floodgate_ledger_up", "1 while the ledger takes orders")]

    stream_full: Annotated[
        float, GaugeByWorker("floodgate_stream_full", "1 while the stream refuses events for want of room")
    ]
    stream_faults: Annotated[
        float, GaugeByWorker("floodgate_stream_faults", "Settings of the streams that are not as they should be")
    ]
    stream_up: Annotated[float, GaugeByWorker("floodgate_stream_up", "1 while events go to the stream")]
    resident_bytes: Annotated[float, GaugeByWorker("floodgate_worker_resident_bytes", "Memory that a worker holds")]
    open_files: Annotated[float, GaugeByWorker("floodgate_worker_open_fds", "Files and connections a worker has open")]
    started_seconds: Annotated[
        float, GaugeByWorker("floodgate_worker_start_time_seconds", "When a worker started, since 1970")
    ]

    def __init__(self) -> None:
        for attribute, kind in TABLE.items():
            setattr(self, attribute, kind.start())

    def created(self, lines: int, units: int) -> None:
        self.orders += 1
        self.lines += lines
        self.units += units

    def batch(self, orders: int, seconds: float) -> None:
        self.batch_orders.observe(orders)
        self.commit_seconds.observe(seconds)


Kind = Total | TotalByCode | TotalByAnswer | Distribution | Gauge | GaugeByWorker
TABLE: dict[str, Kind] = {
    attribute: hint.__metadata__[0] for attribute, hint in get_type_hints(Counters, include_extras=True).items()
}
NUMBERS = sum(kind.width for kind in TABLE.values())
LAYOUT = zlib.crc32(repr((TABLE, list(PROBLEMS), TotalByAnswer.keys)).encode())
BUILD_INFO = "floodgate_build_info"
BUILD = {"version": version("floodgate"), "python": platform.python_version(), "core": IMPLEMENTATION}
assert NUMBERS <= NUMBERS_MAX


class Exporter(Collector):
    """Writes a worker's numbers to its place, and shows those of all workers there."""

    def __init__(self, counters: Counters, place: Place | None = None) -> None:
        self._counters = counters
        self._readers: Mapping[str, Callable[[], float]] = {}
        self._place = place or Place(Slots.private(), 0)
        before = self.slot.claim(LAYOUT, NUMBERS)
        self._carried = [number if kind.carried else 0.0 for kind, number in zip(_columns(), before, strict=True)]
        self.slot.write(self._carried)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    @property
    def slot(self) -> Slot:
        """The worker's own."""
        return self._place.own

    def attach(self, readers: Mapping[str, Callable[[], float]]) -> None:
        """Name who is asked for an attribute's value at each writing."""
        assert readers.keys() <= TABLE.keys(), "a reader of what is not in the table"
        self._readers = readers

    def publish(self) -> None:
        """Write the numbers to the slot, and that this worker lives."""
        for attribute, read in self._readers.items():
            setattr(self._counters, attribute, read())
        own = chain.from_iterable(kind.numbers(getattr(self._counters, name)) for name, kind in TABLE.items())
        self.slot.write([number + before for number, before in zip(own, self._carried, strict=True)])
        self.slot.sign_at = time.monotonic()

    def text(self) -> bytes:
        """The metrics of all workers in Prometheus' text format, those of the others up to PUBLISH_PAUSE_S old."""
        self.publish()
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        written = [
            Share(slot.number, slot.pid != 0, numbers)
            for slot in self._place.slots
            if (numbers := slot.read(LAYOUT, NUMBERS))
        ]
        start = 0
        for kind in TABLE.values():
            yield kind.family([share._replace(numbers=share.numbers[start : start + kind.width]) for share in written])
            start += kind.width
        yield _build_info()


def _columns() -> list[Kind]:
    """The metric of each number of a slot."""
    return [kind for kind in TABLE.values() for _ in range(kind.width)]


def _build_info() -> Metric:
    """What runs here: 1, with the version of Floodgate, of Python, and whether the compiled modules are in use."""
    family = GaugeMetricFamily(BUILD_INFO, "The versions that the worker runs", labels=list(BUILD))
    family.add_metric(list(BUILD.values()), 1)
    return family


def _added(shares: Sequence[Share]) -> list[float]:
    return [sum(column) for column in zip(*(share.numbers for share in shares), strict=True)]


def _buckets(bounds: Sequence[float], counts: Sequence[float]) -> list[tuple[str, float]]:
    """Cumulative counts, as Prometheus wants them."""
    total = 0.0
    found: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found
