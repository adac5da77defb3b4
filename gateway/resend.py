"""Encodes events again from the tables, however long ago the stream has forgotten them: the same ids, the same bytes,
and a header that says so.

Memory is bounded by a page, whatever is asked for. Of stock there is what was told since schema 0009; what waits to be
told is left to the steward.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

import asyncpg

from core_ext import ids
from gateway.domain.event_types import EVENT_TYPES
from gateway.orders import event_of, restore, restore_change
from gateway.stock_events import event_of as level_event_of
from gateway.stock_events import product_event_of
from persistence.nats.stream import BATCH_BYTES_MAX, BATCH_MESSAGES_MAX, NAME, RESENT, STOCK, Event
from persistence.postgres import event_history, levels, orders, product_events
from persistence.postgres.event_history import Told
from persistence.postgres.levels import LevelChange
from persistence.postgres.product_events import ProductChange

PAGE_CHANGES = 5000  # looked at in one statement
PAGE_ORDERS = 200  # read whole in one statement; each may have a thousand lines

Change = TypeVar("Change", LevelChange, ProductChange)


class Wanted(NamedTuple):
    """Which events: those of an order, or all; of these types; decided at `since_ms` or later."""

    types: frozenset[str] = frozenset(EVENT_TYPES)
    since_ms: int | None = None
    order_id: bytes | None = None

    def has(self, name: str, at_ms: int) -> bool:
        return name in self.types and (self.since_ms is None or at_ms >= self.since_ms)


class Page(NamedTuple):
    """Events for one stream, few enough to be stored together; `share` of the work is done with them, 0 to 1."""

    stream: str
    events: list[Event]
    share: float


async def pages(connection: asyncpg.Connection, wanted: Wanted, source: str) -> AsyncIterator[Page]:
    """What is wanted, orders first. Raises asyncpg's errors."""
    streams = {EVENT_TYPES[name].stream for name in wanted.types}
    if NAME in streams:
        async for told, share in _orders(connection, wanted):
            for events in pieces(await _encoded(connection, told, source)):
                yield _page(NAME, events, share)
    if STOCK in streams and wanted.order_id is None:
        async for events in _levels(connection, wanted, source):
            yield _page(STOCK, events, 1.0)
        async for events in _products(connection, wanted, source):
            yield _page(STOCK, events, 1.0)


def _page(stream: str, events: list[Event], share: float) -> Page:
    return Page(stream, [event._replace(headers={**event.headers, RESENT: "true"}) for event in events], share)


def pieces(events: Sequence[Event]) -> list[list[Event]]:
    """The events in atomic batches that the stream takes."""
    found: list[list[Event]] = []
    size = 0
    for event in events:
        if not found or len(found[-1]) == BATCH_MESSAGES_MAX or size + len(event.payload) > BATCH_BYTES_MAX:
            found.append([])
            size = 0
        found[-1].append(event)
        size += len(event.payload)
    return found


async def _orders(connection: asyncpg.Connection, wanted: Wanted) -> AsyncIterator[tuple[list[Told], float]]:
    """The changes of orders that are wanted, and how far into the orders that is."""
    if wanted.order_id is not None:
        yield _wanted(await event_history.of(connection, [wanted.order_id]), wanted), 1.0
        return
    span = await event_history.span(connection)
    if span is None:
        return
    order_id, version = _first(wanted, span[0]), 0
    first_ms, last_ms = ids.time_of(order_id), ids.time_of(span[1])
    while page := await event_history.after(connection, order_id, version, PAGE_CHANGES):
        order_id, version, *_ = page[-1]
        share = (ids.time_of(order_id) - first_ms) / max(last_ms - first_ms, 1)
        found = _wanted(page, wanted)
        for start in range(0, len(found), PAGE_ORDERS):
            yield found[start : start + PAGE_ORDERS], min(share, 1.0)


def _first(wanted: Wanted, oldest: bytes) -> bytes:
    """The order to begin with. A new one is told at the instant of its id; other changes come whenever they come."""
    kinds = {name for name in wanted.types if EVENT_TYPES[name].stream == NAME}
    if wanted.since_ms is None or kinds != {"order.created"}:
        return oldest
    return max(oldest, ids.floor_of(max(wanted.since_ms, 0)))


def _wanted(page: list[Told], wanted: Wanted) -> list[Told]:
    return [told for told in page if wanted.has(f"order.{told.event}", told.at_ms)]


async def _encoded(connection: asyncpg.Connection, changes: list[Told], source: str) -> list[Event]:
    order_ids = list({told.order_id for told in changes})
    stored = await orders.fetch(connection, order_ids, history=True)
    keys = await orders.keys_of(connection, order_ids)
    events = []
    for told in changes:
        rows = stored[told.order_id]
        change = next(row for row in rows.history if row["version"] == told.version)
        events.append(event_of(restore(rows, None), restore_change(change), source, keys.get(told.order_id)))
    return events


async def _levels(connection: asyncpg.Connection, wanted: Wanted, source: str) -> AsyncIterator[list[Event]]:
    async for page in _told(lambda sku, version: levels.told_after(connection, sku, version, BATCH_MESSAGES_MAX)):
        found = [change for change in page if wanted.has(f"stock.{change.event}", change.at_ms)]
        for piece in pieces([level_event_of(change, source) for change in found]):
            yield piece


async def _products(connection: asyncpg.Connection, wanted: Wanted, source: str) -> AsyncIterator[list[Event]]:
    async for page in _told(
        lambda sku, version: product_events.told_after(connection, sku, version, BATCH_MESSAGES_MAX)
    ):
        found = [change for change in page if wanted.has("stock.product_changed", change.at_ms)]
        for piece in pieces([product_event_of(change, source) for change in found]):
            yield piece


async def _told(after: Callable[[str, int], Awaitable[list[Change]]]) -> AsyncIterator[list[Change]]:
    """Every page of a history of stock."""
    sku, version = "", 0
    while page := await after(sku, version):
        sku, version = page[-1].sku, page[-1].version
        yield page
