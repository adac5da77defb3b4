"""Expiry: ends the orders that nobody has paid in time, within a fraction of a second, so that their units are for sale
again, and tells the stream.

Any number of stewards may. The ledger's clock alone says what is due; that it was put forward ends no order early. What
the stream does not hear from here it hears from the relay.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import asyncpg
import structlog

from core_ext import ids
from core_ext.shapes import Change
from gateway.clock_steps import ClockSteps
from gateway.orders import event_of, restore
from persistence.errors import MirrorUnavailableError, Unavailable
from persistence.nats.stream import BATCH_MESSAGES_MAX, Event, Stream
from persistence.postgres import expiry, orders, outbox, stock
from persistence.postgres.expiry import Expired
from persistence.postgres.session import Session
from persistence.redis.mirror import Mirror, Ring, Shard

ORDERS_MAX = 500  # ended by one statement
PASS_OVER_S = 60.0  # until those that could not be ended are tried again
UNTOLD_MAX = 8  # statements whose orders the stream is still to be told of, before the next ones wait
ACTOR = "floodgate"
REASON = "payment_timeout"

# What the ledger says of an order that does not agree with its books.
DAMAGED = (asyncpg.RaiseError, asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)

log = structlog.get_logger("expiry")


class Untold(NamedTuple):
    batch_id: bytes
    expired: Expired


class Expiry:
    """Two jobs: `run_pass` ends orders, `tell` speaks to the stream. `ended` counts orders since the start."""

    def __init__(
        self,
        ending: Session,
        telling: Session,
        stream: Stream,
        mirror: Mirror | None,
        source: str,
        boot: str | None = None,
    ) -> None:
        """`boot` names the boot of this host; by default the system is asked for it."""
        self._ending = ending
        self._telling = telling
        self._stream = stream
        self._mirror = mirror
        self._source = source
        self._home = 0
        self._passed_over, self._passed_over_at = 0, 0.0
        self._steps = ClockSteps(boot)
        self._untold: deque[Untold] = deque()
        self._told = asyncio.Event()
        self._waiting = asyncio.Event()
        self.ended = 0

    async def run_pass(self) -> None:
        """End all that are due. One that the ledger cannot end is passed over for a while, and said in the log. Raises
        LedgerUnavailableError.
        """
        if time.monotonic() - self._passed_over_at > PASS_OVER_S:
            self._passed_over = 0
        most = ORDERS_MAX
        while True:
            try:
                ended = await self._ending.run(partial(self._end_some, most=most))
            except DAMAGED as error:
                if most > 1:
                    most = 1
                    continue
                self._passed_over, self._passed_over_at = self._passed_over + 1, time.monotonic()
                log.exception("order_cannot_expire", passed_over=self._passed_over, error=str(error))
                most = ORDERS_MAX
                continue
            if ended < most:
                return

    async def tell(self) -> None:
        """Tell the stream until cancelled. What it does not take now is left to the relay."""
        while True:
            if not self._untold:
                self._waiting.clear()
                await self._waiting.wait()
            some = self._next_untold()
            try:
                await self._tell(some)
            except Unavailable as error:
                log.warning("left_to_relay", orders=_orders_of(some), error=str(error))
            finally:
                self._told.set()

    def _next_untold(self) -> list[Untold]:
        """As many as the stream takes at once."""
        some = [self._untold.popleft()]
        while self._untold and _orders_of([*some, self._untold[0]]) <= BATCH_MESSAGES_MAX:
            some.append(self._untold.popleft())
        return some

    async def _end_some(self, connection: asyncpg.Connection, most: int) -> int:
        until_s = await self._steps.surely(connection)
        self._home += 1  # Units that come back go to another shard each time.
        batch_id = ids.new_id(int(until_s * 1000))
        expired = await expiry.expire(connection, until_s, most, self._passed_over, self._home, batch_id, ACTOR)
        if expired is None:
            return 0
        self.ended += len(expired.orders)
        log.info("orders_expired", orders=len(expired.orders))
        await self._ring(await stock.shards(connection, expired.skus), expired.skus)
        await self._leave_to_teller(Untold(batch_id, expired))
        return len(expired.orders)

    async def _ring(self, shards: Sequence[stock.Shard], skus: Sequence[str]) -> None:
        """Wake those who wait for these units. Without a mirror they look for themselves, within a second."""
        if self._mirror is None or not skus:
            return
        try:
            await self._mirror.push([Shard(*shard) for shard in shards])
            await self._mirror.ring([Ring("freed", sku) for sku in skus])
        except MirrorUnavailableError as error:
            log.warning("mirror_not_told", skus=len(skus), error=str(error))

    async def _leave_to_teller(self, untold: Untold) -> None:
        """Wait while he has much to tell: what is told too late the relay tells as well."""
        while len(self._untold) >= UNTOLD_MAX:
            self._told.clear()
            await self._told.wait()
        self._untold.append(untold)
        self._waiting.set()

    async def _tell(self, some: Sequence[Untold]) -> None:
        events = await self._telling.run(lambda connection: self._events(connection, some))
        await self._stream.publish(events)
        await self._telling.run(lambda connection: outbox.remove(connection, [one.batch_id for one in some]))

    async def _events(self, connection: asyncpg.Connection, some: Sequence[Untold]) -> list[Event]:
        order_ids = [order_id for one in some for order_id, _ in one.expired.orders]
        stored = await orders.fetch(connection, order_ids, personal=False)
        return [
            event_of(restore(stored[order_id], None), _change(version, one.expired.at_ms), self._source)
            for one in some
            for order_id, version in one.expired.orders
        ]


def _change(version: int, at_ms: int) -> Change:
    """As order_expire has written it."""
    return Change(version, at_ms, "expired", "expired", ACTOR, "pending_payment", REASON, ("status",))


def _orders_of(some: Sequence[Untold]) -> int:
    return sum(len(one.expired.orders) for one in some)
