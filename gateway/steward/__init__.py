"""The steward: the work beside the road. Partitions ahead of time, leases of the dead, events that no worker got
acknowledged, shards by rule, levels of stock, the mirror, what is old.

Any number may run. There is no leader: every job is safe when it runs twice at once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from gateway.live import Live
from gateway.settings import Settings
from gateway.steward.expiry import Expiry
from gateway.steward.levels import Levels
from gateway.steward.metrics import EXPIRED, OWNERS, RELAYED, UNKNOWN, StewardMetrics, shown
from gateway.steward.product_events import ProductEvents
from gateway.steward.relay import Relay
from gateway.steward.shards import Shards
from gateway.steward.sweep import Sweep
from gateway.stream_watch import StreamWatch, stream_settings
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError, Unavailable
from persistence.nats.stream import Stream
from persistence.postgres import control, housekeeping, partitions, schema
from persistence.postgres.session import Session
from persistence.redis.mirror import Mirror

RELAY_EVERY_S = 1.0
PARTITIONS_EVERY_S = 60.0
HOUSEKEEPING_EVERY_S = 600.0
SETTINGS_EVERY_S = 1.0
SHARDS_EVERY_S = 1.0
LEVELS_EVERY_S = 0.25
EXPIRE_EVERY_S = 0.1  # units of an order that was not paid are for sale again within a second
METRICS_EVERY_S = 5.0
SWEEP_EVERY_S = 2.0  # the mirror forgets what it has not been told for 5 s
SESSIONS = (
    "relay",
    "bury",
    "partitions",
    "housekeeping",
    "settings",
    "shards",
    "levels",
    "expiry",
    "expired_events",
    "stock_events",
    "product_events",
    "sweep",
    "metrics",
)
DAY_S = 86400
AWAY_PAUSE_S = 1.0  # at least, after a dependency was away

log = structlog.get_logger("steward")


class Steward:
    """Its jobs, each with a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        timeout_s = settings.postgres.command_timeout_ms / 1000
        self._sessions = {name: Session(settings.postgres.url, f"fg-steward-{name}", timeout_s) for name in SESSIONS}
        self._stream = Stream(settings.nats.url, "floodgate-steward", settings.nats.ack_timeout_ms / 1000)
        self._stream_watch = StreamWatch(self._stream, settings.nats)
        self._relay = Relay(
            self._sessions["relay"],
            self._stream,
            f"/floodgate/{settings.installation.name}",
            settings.nats.ack_timeout_ms / 1000,
        )
        self._live = Live(settings)
        self._shards = Shards(self._sessions["shards"], self._live)
        self._levels = Levels(
            self._sessions["levels"],
            self._sessions["stock_events"],
            self._stream,
            f"/floodgate/{settings.installation.name}",
            self._live,
        )
        self._product_events = ProductEvents(
            self._sessions["product_events"], self._stream, f"/floodgate/{settings.installation.name}"
        )
        self._mirror = Mirror(settings.redis.url) if settings.redis.url else None
        self._expiry = Expiry(
            self._sessions["expiry"],
            self._sessions["expired_events"],
            self._stream,
            self._mirror,
            f"/floodgate/{settings.installation.name}",
        )
        self._owner_timeout_s = settings.owner.timeout_ms / 1000
        self._unbroken_since: float | None = None
        self.metrics = StewardMetrics()

    async def run(self, stop: asyncio.Event) -> None:
        """Do every job at its interval until `stop`, as soon as the ledger has the schema that this release needs."""
        tasks = Tasks()
        tasks.loop("jobs", lambda: self._start_jobs(tasks))
        if self._settings.steward.metrics_port:
            tasks.loop("metrics_page", self._show_metrics)
        await stop.wait()
        await tasks.close(wait_s=1.0)
        await self._stream.close()
        if self._mirror is not None:
            await self._mirror.close()
        for session in self._sessions.values():
            await session.close()

    async def _wait_for_schema(self) -> None:
        while True:
            try:
                await self._sessions["partitions"].run(schema.ensure_new_enough)
            except LedgerUnavailableError as error:
                log.warning("ledger_away", error=str(error))
                await asyncio.sleep(AWAY_PAUSE_S)
            else:
                return

    async def _start_jobs(self, tasks: Tasks) -> None:
        await self._wait_for_schema()
        for name, job, every_s in (
            ("streams", self._ensure_streams, PARTITIONS_EVERY_S),
            ("relay", self._relay.drain, RELAY_EVERY_S),
            ("bury", self._bury, self._owner_timeout_s / 4),
            ("partitions", self._make_partitions, PARTITIONS_EVERY_S),
            ("housekeeping", self._keep_house, HOUSEKEEPING_EVERY_S),
            ("settings", self._follow_settings, SETTINGS_EVERY_S),
            ("shards", self._shards.run_pass, SHARDS_EVERY_S),
            ("expiry", self._expiry.run_pass, EXPIRE_EVERY_S),
            ("levels", self._levels.decide, LEVELS_EVERY_S),
            ("stock_events", self._levels.publish, LEVELS_EVERY_S),
            ("product_events", self._product_events.publish, LEVELS_EVERY_S),
            ("sweep", self._sweep, SWEEP_EVERY_S),
            ("metrics", self._look, METRICS_EVERY_S),
        ):
            tasks.loop(name, lambda name=name, job=job, every_s=every_s: self._every(name, job, every_s))  # type: ignore[misc]
        tasks.loop("expired_events", self._expiry.tell)

    async def _show_metrics(self) -> None:
        """Until cancelled. A port that is taken is tried again."""
        settings = self._settings.steward
        while True:
            try:
                async with shown(self.metrics, settings.metrics_host, settings.metrics_port):
                    await asyncio.Event().wait()
            except OSError as error:
                log.warning("metrics_not_shown", error=str(error))
                await asyncio.sleep(METRICS_EVERY_S)

    async def _look(self) -> None:
        if self._settings.steward.metrics_port:
            await self._sessions["metrics"].run(self.metrics.look)
            self.metrics.counts[RELAYED] = self._relay.sent
            self.metrics.counts[EXPIRED] = self._expiry.ended
            self.metrics.values[UNKNOWN] = self._relay.unknown

    async def _ensure_streams(self) -> None:
        await self._stream.ensure_streams(stream_settings(self._settings.nats))
        await self._stream_watch.look()

    async def _bury(self) -> None:
        """Close what the dead hold, once PostgreSQL has been there for longer than their time-out: after an outage
        everybody has been silent.
        """
        try:
            await self._sessions["bury"].run(lambda connection: connection.fetchval("select 1"))
            self._unbroken_since = self._unbroken_since or time.monotonic()
            if time.monotonic() - self._unbroken_since > self._owner_timeout_s:
                owners = await control.bury(self._sessions["bury"], self._owner_timeout_s)
                if owners:
                    log.warning("dead_owners_closed", owners=owners)
                    self.metrics.counts[OWNERS] += len(owners)
        except LedgerUnavailableError:
            self._unbroken_since = None
            raise

    async def _sweep(self) -> None:
        if self._mirror is not None:
            await Sweep(self._sessions["sweep"], self._mirror).run_pass()

    async def _follow_settings(self) -> None:
        await self._sessions["settings"].run(self._live.load)

    async def _make_partitions(self) -> None:
        bounds = self._settings.partitions
        made = await self._sessions["partitions"].run(
            lambda connection: partitions.ensure_ahead(connection, bounds.days, bounds.ahead)
        )
        if made:
            log.info("partitions_made", names=made)

    async def _keep_house(self) -> None:
        session, retention = self._sessions["housekeeping"], self._settings.retention
        consumed_days = max(housekeeping.CONSUMED_DAYS, self._settings.nats.max_age_s // DAY_S + 2)
        removed = await session.run(lambda c: housekeeping.clean(c, retention.key_days, consumed_days))
        if any(removed.values()):
            log.info("removed", **removed)
        batch_days = max(retention.batch_days, retention.key_days)
        dropped = await session.run(lambda connection: housekeeping.drop_batches(connection, batch_days))
        if dropped:
            log.info("partitions_dropped", names=dropped)
        batches, age_s = await session.run(housekeeping.old_in_outbox)
        if batches:
            log.error("outbox_is_old", batches=batches, age_s=round(age_s))

    async def _every(self, name: str, job: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Run a job for ever. A dependency that is away is tried again at the next turn."""
        while True:
            try:
                with self.metrics.job(name):
                    await job()
            except Unavailable as error:
                log.warning("job_waits", job=name, error=str(error))
                await asyncio.sleep(max(AWAY_PAUSE_S - every_s, 0))
            await asyncio.sleep(every_s)
