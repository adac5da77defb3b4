"""Keeps the books of a run: which of its orders are in the ledger, which of their events in the stream, and when the
last one came there.

The ledger and the stream are asked themselves; it never takes the gateway's word. The orders of a run are those of its
customer; nobody else may place any meanwhile, since events are only counted.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple, Self

import asyncpg
from nats.aio.client import Client

from bench.record import Verified
from persistence.nats.client import connect as connect_stream
from persistence.nats.stream import NAME
from persistence.postgres.connect import connect as connect_ledger

LOOK_AGAIN_S = 0.02
STILL_LOOKS = 10  # looks without another event before it is asked whether that was all
DRAIN_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
CREATED = "orders.created.>"
_ROWS = "select order_id from orders where customer_id = $1"
_COUNT = "select count(*) from orders where customer_id = $1"
# An order has one key, and a key one order: an order that no key leads to is there once too often. Not joined with the
# orders: on tables that have just been filled the plan may be one that never ends.
_KEYED = "select order_id from idempotency_key where order_id between $1 and $2"


class Drained(NamedTuple):
    """`at` is the moment of the last event; `waiting` are the orders whose events were not in the stream when the load
    stopped.
    """

    at: float
    waiting: int


class Books:
    """Connections of its own to the ledger and the stream of a system."""

    def __init__(self, ledger: asyncpg.Connection, stream: Client, created_before: int) -> None:
        self._ledger = ledger
        self._stream = stream
        self._jetstream = stream.jetstream(timeout=COMMAND_TIMEOUT_S)
        self._created_before = created_before

    @classmethod
    async def open(cls, postgres_url: str, nats_url: str) -> Self:
        """Open before the run: events that are there already are none of its own."""
        ledger = await connect_ledger(postgres_url, "fg-bench", COMMAND_TIMEOUT_S)
        books = cls(ledger, await connect_stream(nats_url, "fg-bench"), 0)
        books._created_before = await books.created()
        return books

    async def close(self) -> None:
        await self._stream.close()
        await self._ledger.close()

    async def created(self) -> int:
        """Orders whose event is in the stream, since `open`."""
        info = await self._jetstream.stream_info(NAME, subjects_filter=CREATED)
        return sum((info.state.subjects or {}).values()) - self._created_before

    async def drain(self, customer: str, stopped_at: float, rests: Callable[[], Awaitable[bool]]) -> Drained:
        """Wait until the event of every order of the run is in the stream, or for DRAIN_TIMEOUT_S: `verify` tells.
        `rests` says whether the gateway has no order under way any more: more may come while it does not.
        """
        at_stop = last = await self.created()
        last_at, still = stopped_at, 0
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                while still < STILL_LOOKS or not await rests() or last != await self._orders(customer):
                    still = still % STILL_LOOKS  # They are asked seldom: they may have to work still.
                    await asyncio.sleep(LOOK_AGAIN_S)
                    now, seen_at = await self.created(), time.monotonic()
                    still, last_at = (still + 1, last_at) if now == last else (0, seen_at)
                    last = now
        return Drained(last_at, last - at_stop)

    async def _orders(self, customer: str) -> int:
        return int(await self._ledger.fetchval(_COUNT, customer))

    async def verify(self, customer: str, acknowledged: Collection[str], orphans_max: int) -> Verified:
        """The books of a run whose events have come. `acknowledged` are the ids that were answered with 201."""
        rows = {row["order_id"] for row in await self._ledger.fetch(_ROWS, customer)}
        kept = len({str(order_id) for order_id in rows}.intersection(acknowledged))
        keyed = await self._ledger.fetch(_KEYED, min(rows), max(rows)) if rows else []
        return Verified(
            acknowledged=len(acknowledged),
            rows=len(rows),
            events=await self.created(),
            lost=len(acknowledged) - kept,  # Two answers with one id stand for one order: the other one is lost.
            doubled=len(rows - {row["order_id"] for row in keyed}),
            orphans=len(rows) - kept,
            orphans_max=orphans_max,
        )
