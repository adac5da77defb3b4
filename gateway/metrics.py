"""What the worker counts: plain integers on the road, turned into Prometheus' format only when somebody asks. Names
follow the Prometheus conventions.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

COMMIT_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
BATCH_ORDERS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Histogram:
    """Counts of values up to each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as Prometheus wants them."""
        total = 0
        found: list[tuple[str, float]] = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


class Counters:
    """Counts since the worker started."""

    def __init__(self) -> None:
        self.orders = 0
        self.lines = 0
        self.units = 0
        self.replayed = 0
        self.refused: Counter[str] = Counter()
        self.ambiguous = 0
        self.fenced = 0
        self.events_published = 0
        self.events_left = 0
        self.commit_seconds = Histogram(COMMIT_SECONDS)
        self.batch_orders = Histogram(BATCH_ORDERS)

    def created(self, lines: int, units: int) -> None:
        self.orders += 1
        self.lines += lines
        self.units += units

    def batch(self, orders: int, seconds: float) -> None:
        self.batch_orders.observe(orders)
        self.commit_seconds.observe(seconds)


class Exporter(Collector):
    """Counters, and values that are read when somebody asks: name -> (help, function). A name that ends in `_total` is
    a counter, any other a gauge.
    """

    def __init__(self, counters: Counters, values: dict[str, tuple[str, Callable[[], float]]]) -> None:
        self._counters = counters
        self._values = values
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        counters = self._counters
        for name, help_text, value in (
            ("floodgate_orders_created", "Orders that are in the ledger", counters.orders),
            ("floodgate_order_lines_created", "Lines of these orders", counters.lines),
            ("floodgate_order_units_created", "Units of these lines", counters.units),
            ("floodgate_orders_replayed", "Retries answered with the order of their key", counters.replayed),
            (
                "floodgate_batches_ambiguous",
                "Commits that were not answered and had to be resolved",
                counters.ambiguous,
            ),
            (
                "floodgate_orders_fenced",
                "Orders whose leases the ledger refused, and that were admitted again",
                counters.fenced,
            ),
            ("floodgate_events_published", "Events that the stream has acknowledged", counters.events_published),
            ("floodgate_events_left", "Events left to the relay", counters.events_left),
        ):
            yield CounterMetricFamily(name, help_text, value=value)
        refused = CounterMetricFamily("floodgate_orders_refused", "Orders that were refused, by code", labels=["code"])
        for code, count in sorted(counters.refused.items()):
            refused.add_metric([code], count)
        yield refused
        for name, help_text, histogram in (
            ("floodgate_commit_seconds", "From a batch's start to its settled end", counters.commit_seconds),
            ("floodgate_batch_orders", "Orders of a commit", counters.batch_orders),
        ):
            yield HistogramMetricFamily(name, help_text, buckets=histogram.buckets(), sum_value=histogram.sum)
        for name, (help_text, read) in self._values.items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, help_text, value=read())
