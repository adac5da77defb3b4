"""The steward: the work beside the road. Partitions ahead of time, leases of the dead, events that no worker got
acknowledged, what is old.

Any number may run. There is no leader: every job is safe when it runs twice at once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from gateway.settings import Settings
from gateway.steward.relay import Relay
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError, Unavailable
from persistence.nats.stream import Stream, StreamSettings
from persistence.postgres import control, housekeeping, partitions
from persistence.postgres.session import Session

RELAY_EVERY_S = 1.0
PARTITIONS_EVERY_S = 60.0
HOUSEKEEPING_EVERY_S = 600.0

log = structlog.get_logger("steward")


class Steward:
    """Its jobs, each with a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        timeout_s = settings.postgres.command_timeout_ms / 1000
        self._sessions = {
            name: Session(settings.postgres.url, f"fg-steward-{name}", timeout_s)
            for name in ("relay", "bury", "partitions", "housekeeping")
        }
        self._stream = Stream(settings.nats.url, "floodgate-steward", settings.nats.ack_timeout_ms / 1000)
        self._relay = Relay(
            self._sessions["relay"],
            self._stream,
            f"/floodgate/{settings.installation.name}",
            settings.nats.ack_timeout_ms / 1000,
        )
        self._owner_timeout_s = settings.owner.timeout_ms / 1000
        self._unbroken_since: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Do every job at its interval until `stop`."""
        tasks = Tasks()
        for name, job, every_s in (
            ("streams", self._ensure_stream, PARTITIONS_EVERY_S),
            ("relay", self._relay.drain, RELAY_EVERY_S),
            ("bury", self._bury, self._owner_timeout_s / 4),
            ("partitions", self._make_partitions, PARTITIONS_EVERY_S),
            ("housekeeping", self._keep_house, HOUSEKEEPING_EVERY_S),
        ):
            tasks.loop(name, lambda name=name, job=job, every_s=every_s: _every(name, job, every_s))  # type: ignore[misc]
        await stop.wait()
        await tasks.close(wait_s=1.0)
        await self._stream.close()
        for session in self._sessions.values():
            await session.close()

    async def _ensure_stream(self) -> None:
        nats = self._settings.nats
        await self._stream.ensure_stream(StreamSettings(nats.replicas, nats.max_age_s, nats.duplicate_window_s))

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
        except LedgerUnavailableError:
            self._unbroken_since = None
            raise

    async def _make_partitions(self) -> None:
        bounds = self._settings.partitions
        made = await self._sessions["partitions"].run(
            lambda connection: partitions.ensure_ahead(connection, bounds.days, bounds.ahead)
        )
        if made:
            log.info("partitions_made", names=made)

    async def _keep_house(self) -> None:
        removed = await self._sessions["housekeeping"].run(
            lambda connection: housekeeping.clean(connection, self._settings.retention.key_days)
        )
        if any(removed.values()):
            log.info("removed", **removed)


async def _every(name: str, job: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Run a job for ever. A dependency that is away is tried again at the next turn."""
    while True:
        try:
            await job()
        except Unavailable as error:
            log.warning("job_waits", job=name, error=str(error))
        await asyncio.sleep(every_s)
