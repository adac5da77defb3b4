"""What a steward counts, for Prometheus: how its jobs fare, and what waits in the ledger. Shown at `/metrics` of a port
of its own, without a token, when `steward.metrics_port` says so: bind it to where only the monitoring can reach it.

It tells nothing of sales. What it must look up it looks up in a job, and never when it is asked.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import asyncpg
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from persistence.postgres import journals, outbox, partitions

SILENT_S = 600.0  # after which an owner with a journal needs somebody to look after it
TEXT = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


class Named(NamedTuple):
    """A metric, without the `_total` of a counter. `by_job`: with the label `task`, since Prometheus has a
    label `job` of its own.
    """

    name: str
    help_text: str
    is_counter: bool
    by_job: bool = False

    def family(self) -> CounterMetricFamily | GaugeMetricFamily:
        kind = CounterMetricFamily if self.is_counter else GaugeMetricFamily
        return kind(self.name, self.help_text, labels=["task"] if self.by_job else [])


JOBS = Named("floodgate_steward_jobs", "Passes of a job that came to their end", is_counter=True, by_job=True)
FAILURES = Named("floodgate_steward_job_failures", "Passes of a job that did not", is_counter=True, by_job=True)
AGES = Named("floodgate_steward_job_age_seconds", "Since a job last came to its end", is_counter=False, by_job=True)
RELAYED = Named(
    "floodgate_events_relayed", "Events that no worker got acknowledged, and this steward did", is_counter=True
)
EXPIRED = Named("floodgate_orders_expired", "Orders that nobody paid, and this steward ended", is_counter=True)
OWNERS = Named("floodgate_owners_closed", "Dead workers whose leases this steward has given back", is_counter=True)
WAITING = Named("floodgate_outbox_batches", "Commits whose events the stream has not acknowledged", is_counter=False)
OLDEST = Named("floodgate_outbox_oldest_seconds", "Since the oldest of these commits", is_counter=False)
UNKNOWN = Named(
    "floodgate_outbox_unknown_batches", "Commits that only a steward of a newer release can relay", is_counter=False
)
SILENT = Named(
    "floodgate_journals_silent", "Owners with a journal that have been silent for ten minutes", is_counter=False
)
AHEAD = Named("floodgate_partitions_ahead_seconds", "Until a table has no partition for a new order", is_counter=False)
TABLE = (JOBS, FAILURES, AGES, RELAYED, EXPIRED, OWNERS, WAITING, OLDEST, UNKNOWN, SILENT, AHEAD)


class StewardMetrics(Collector):
    """One per steward."""

    def __init__(self) -> None:
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._done_at: dict[str, float] = {}
        self.values: dict[Named, float] = {}  # of gauges that are known
        self.counts: Counter[Named] = Counter()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        """One pass of a job. Whatever it raises goes on."""
        self._done_at.setdefault(name, time.monotonic())  # A job that never succeeds ages from its first start.
        self._failed[name] += 0
        try:
            yield
        except Exception:
            self._failed[name] += 1
            raise
        self._done[name] += 1
        self._done_at[name] = time.monotonic()

    async def look(self, connection: asyncpg.Connection) -> None:
        """Ask the ledger what waits. Raises what the connection does."""
        batches, age_s = await outbox.backlog(connection)
        ends_ms = await partitions.ends(connection)
        now_s = (await connection.fetchval("select clock_timestamp()")).timestamp()
        silent = await journals.silent(connection, SILENT_S)
        ahead_s = min(ends_ms.values()) / 1000 - now_s
        self.values |= {WAITING: batches, OLDEST: age_s, SILENT: silent, AHEAD: ahead_s}

    def collect(self) -> Iterator[Metric]:
        now = time.monotonic()
        by_job: dict[Named, Mapping[str, float]] = {
            JOBS: self._done,
            FAILURES: self._failed,
            AGES: {job: now - at for job, at in self._done_at.items()},
        }
        single = self.values | {named: self.counts[named] for named in TABLE if named.is_counter and not named.by_job}
        for named in TABLE:
            family = named.family()
            for job, value in by_job.get(named, {}).items():
                family.add_metric([job], value)
            if not named.by_job and named in single:
                family.add_metric([], single[named])
            yield family

    def text(self) -> bytes:
        return generate_latest(self._registry)


@asynccontextmanager
async def shown(metrics: StewardMetrics, host: str, port: int) -> AsyncIterator[int]:
    """Show the metrics until the block ends; gives the port, which the system chooses if it is 0. Raises OSError when
    the address is taken.
    """

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=metrics.text(), headers=TEXT)

    application = web.Application()
    application.router.add_get("/metrics", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
