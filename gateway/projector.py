"""The projector: feeds the read models from the event stream, as any downstream team would, in a process of its own.

Any number may run. An event counts once however often it comes. NATS or PostgreSQL may be missing, at the start or
later: it waits for them, and nothing is given up meanwhile. An event that is bad in itself stops nobody: it is set
aside after ATTEMPTS_MAX deliveries, and named by its id, never by its content.
"""

import asyncio
import contextlib
import datetime as dt
import itertools
import operator
import time
from collections.abc import Sequence
from typing import Annotated

import asyncpg
import msgspec
import structlog

from gateway.settings import Settings
from persistence.errors import LedgerUnavailableError, Unavailable
from persistence.nats.consume import Consumer
from persistence.nats.pull import Delivery
from persistence.postgres import order_feed
from persistence.postgres.order_feed import Created
from persistence.postgres.session import Session

SUBJECT = "orders.created.>"
BATCH_EVENTS = 1000
# What comes in little pieces is gathered so long: nobody waits for a read model, and each batch is a statement. Who
# gets nothing waits as long before it asks again: the answer is at once when other projectors' requests stand first.
GATHER_S = 0.1
FETCH_WAIT_S = 1.0  # also the longest that a stop waits for an idle projector
ATTEMPTS_MAX = 10
PAUSE_S = 1.0  # before a dependency is tried again
RETRY_S = 5.0  # before a bad event comes again
FORGET_EVERY_S = 60.0
DAY_S = 86400
# Classes of SQLSTATE that speak of the row itself: data exceptions and violated constraints.
ROW_FAULTS = ("22", "23")

EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)
MINUTE = dt.timedelta(minutes=1)
# Minutes since EPOCH that a reader of the feed can show: an offset takes a time out of the years 1 to 9999.
MINUTES = range(
    (dt.datetime.min.replace(tzinfo=dt.UTC) - EPOCH) // MINUTE,
    (dt.datetime.max.replace(tzinfo=dt.UTC) - EPOCH) // MINUTE + 1,
)

log = structlog.get_logger("projector")


class Item(msgspec.Struct, gc=False):
    quantity: int


class Data(msgspec.Struct, gc=False):
    channel: str
    created_at: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    items: list[Item]


class Event(msgspec.Struct, gc=False):
    """What the projector reads of `order.created`; it ignores the rest, which may grow."""

    id: str
    data: Data


_decode = msgspec.json.Decoder(Event).decode


class Projector:
    """One process's loop. `consumer` and `session` are its own."""

    def __init__(self, consumer: Consumer, session: Session, keep_ids_s: float) -> None:
        self._consumer = consumer
        self._session = session
        self._keep_ids_s = keep_ids_s
        self._forget_at = 0.0
        self._away = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`."""
        while not stop.is_set():
            try:
                taken = await self.step()
                self._back()
                if taken < BATCH_EVENTS:
                    await _pause(stop, GATHER_S)
            except Unavailable as error:
                self._log_away(error)
                await _pause(stop, PAUSE_S)

    async def step(self) -> int:
        """Take one batch, count it, and return its size. Raises Unavailable; what was taken then comes again."""
        await self._forget()
        deliveries = await self._consumer.fetch(BATCH_EVENTS, FETCH_WAIT_S)
        if not deliveries:
            return 0
        try:
            await self._feed(deliveries)
        except LedgerUnavailableError:
            await self._consumer.give_back(deliveries, PAUSE_S)
            raise
        return len(deliveries)

    async def _feed(self, deliveries: Sequence[Delivery]) -> None:
        """Count a batch; where a row of it is bad, its members singly, so that they do not fail together."""
        events = [_read(delivery) for delivery in deliveries]
        readable = [event for event in events if event is not None]
        good = [event is not None for event in events]
        if readable and not await self._count(readable):
            good = [event is not None and await self._count([event]) for event in events]
        await self._consumer.ack(list(itertools.compress(deliveries, good)))
        for delivery in itertools.compress(deliveries, map(operator.not_, good)):
            await self._set_aside(delivery)

    async def _count(self, events: list[Created]) -> bool:
        """False when PostgreSQL refuses a row for what is in it; then nothing was stored."""
        try:
            await order_feed.apply(self._session, events, self._keep_ids_s)
        except asyncpg.PostgresError as error:
            if (error.sqlstate or "").startswith(ROW_FAULTS):
                return False
            # A schema that is not there yet, a server that shuts down: a bad day, not a bad event.
            raise LedgerUnavailableError(f"PostgreSQL refuses: {error!r}") from error
        except (ValueError, OverflowError):
            return False
        return True

    async def _set_aside(self, delivery: Delivery) -> None:
        if delivery.attempts < ATTEMPTS_MAX:
            await self._consumer.give_back([delivery], RETRY_S)
            return
        log.error("event_set_aside", event_id=delivery.id, attempts=delivery.attempts)
        await self._consumer.terminate(delivery)

    async def _forget(self) -> None:
        if time.monotonic() < self._forget_at:
            return
        try:
            forgotten = await order_feed.forget(self._session, self._keep_ids_s)
        except asyncpg.PostgresError as error:
            raise LedgerUnavailableError(f"PostgreSQL refuses: {error!r}") from error
        if forgotten < order_feed.FORGET_ROWS:
            self._forget_at = time.monotonic() + FORGET_EVERY_S

    def _log_away(self, error: Unavailable) -> None:
        # Next time the ledger is asked before an event is taken: an outage must not use up an event's attempts.
        self._forget_at = 0.0
        if not self._away:
            self._away = True
            log.warning("waiting", reason=str(error))

    def _back(self) -> None:
        if self._away:
            self._away = False
            log.info("going_on")


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Feed the read models until `stop`."""
    consumer = Consumer(settings.nats.url, order_feed.CONSUMER, SUBJECT)
    session = Session(settings.postgres.url, "fg-projector", settings.postgres.command_timeout_ms / 1000)
    log.info("projector_started", stream_way=consumer.way)
    try:
        await Projector(consumer, session, settings.nats.max_age_s + DAY_S).run(stop)
    finally:
        await consumer.close()
        await session.close()


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _read(delivery: Delivery) -> Created | None:
    try:
        event = _decode(delivery.payload)
    except msgspec.DecodeError:
        return None
    data = event.data
    minute = (data.created_at - EPOCH) // MINUTE
    if minute not in MINUTES:
        return None
    return Created(event.id, minute, data.channel, sum([item.quantity for item in data.items]), delivery.is_resent)
