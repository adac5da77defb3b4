"""Recovery: after PostgreSQL was restored from a backup, takes from the streams what the ledger does not know: orders,
their changes, units, limits, keys, and how far levels of stock and products had come.

It is run while nobody sells, may be stopped and run again, and never changes what the ledger knows. What the streams do
not carry it cannot bring back; the report says so in numbers.
"""

import datetime as dt
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
from msgspec import Struct, field
from nats.aio.msg import Msg

from gateway.recovery.decoding import UnreadableError, read_level, read_order, read_product
from gateway.settings import Settings
from persistence.nats.read import Reader
from persistence.nats.rewind import rewind
from persistence.nats.stream import STOCK
from persistence.postgres import partitions, recovery, schema
from persistence.postgres.audit import Finding, audit
from persistence.postgres.connect import connect
from persistence.postgres.order_feed import CONSUMER
from persistence.postgres.recovery import Done, StillRunningError, Version

PAGE_EVENTS = 1000  # of one transaction
PAGE_BYTES = 8 << 20
# Versions whose predecessor has not been read yet. An event comes seconds late, not hours: more means that the stream
# begins in the middle.
WAITING_MAX = 100_000
OVERLAP = dt.timedelta(minutes=10)  # read again before the newest order: what had not been sent when it was placed
STATEMENT_S = 600.0

Progress = Callable[[int], None]  # told after each page how many events have been read


class Report(Struct):
    """What was done, or with `dry_run` would be. `inexact` events will not be encoded to the same bytes again;
    `incomplete` orders lack a version that the stream does not have, and were left as they are; `begins_late`: when the
    stream begins, if that is after the ledger's newest order; `empty`: it has not even the event of that order.
    """

    dry_run: bool
    since: dt.datetime | None
    done: Done
    events: int = 0
    unreadable: int = 0
    inexact: int = 0
    units_unleased: int = 0
    keys_of_nothing: int = 0
    incomplete: list[str] = field(default_factory=list)
    begins_late: dt.datetime | None = None
    empty: bool = False
    levels: int = 0
    products: int = 0
    sales_missing: list[str] = field(default_factory=list)
    off: list[Finding] | None = None  # checks of the audit; None: not run

    @property
    def whole(self) -> bool:
        """Whether all that the streams know is in the ledger, and its books balance."""
        return not (self.incomplete or self.unreadable or self.off or self.begins_late or self.empty)


async def recover(
    settings: Settings, since: dt.datetime | None, progress: Progress, *, dry_run: bool = False
) -> Report:
    """Bring the ledger up to the streams, from `since` on, or from a little before its newest order. Raises
    StillRunningError, LedgerUnavailableError, StreamUnavailableError.
    """
    url = settings.postgres.url
    async with _restored(url, settings.owner.timeout_ms / 1000, dry_run=dry_run) as connection:
        newest = recovery.instant(await recovery.newest_ms(connection))
        if since is None and newest is not None:
            since = newest - OVERLAP
        report = Report(dry_run, since, Done())
        report.units_unleased = await recovery.close_leases(connection)
        report.keys_of_nothing = await recovery.drop_keys_of_nothing(connection)
        await partitions.ensure_ahead(connection, settings.partitions.days, settings.partitions.ahead)
        await _take_orders(connection, settings, report, newest, progress)
        await _take_stock(connection, settings.nats.url, report)
        report.sales_missing = await recovery.missing_sales(connection)
    if not dry_run:
        await rewind(settings.nats.url, CONSUMER)  # The read models are as old as the backup.
        report.off = [finding for finding in (await audit(url)).findings if finding.count]
    return report


@asynccontextmanager
async def _restored(url: str, owner_timeout_s: float, *, dry_run: bool) -> AsyncIterator[asyncpg.Connection]:
    """The ledger, on which nobody works. In a dry run everything is one transaction, which is rolled back."""
    async with AsyncExitStack() as stack:
        connection = await connect(url, "fg-recover", STATEMENT_S, {"idle_in_transaction_session_timeout": "0"})
        stack.push_async_callback(connection.close)
        await schema.ensure_new_enough(connection)
        if not await recovery.is_alone(connection):
            raise StillRunningError("another recovery")
        if running := await recovery.running(connection, owner_timeout_s):
            raise StillRunningError("; ".join(running))
        if dry_run:
            trial = connection.transaction()
            await trial.start()
            stack.push_async_callback(trial.rollback)
        yield connection


async def _take_orders(
    connection: asyncpg.Connection, settings: Settings, report: Report, newest: dt.datetime | None, progress: Progress
) -> None:
    waiting: list[Version] = []
    room_ms = max((await partitions.starts(connection)).values())
    async for page in _pages(settings.nats.url, report, newest):
        oldest_ms = min((recovery.placed_ms(one.order_id) for one in page if one.number == 1), default=room_ms)
        if oldest_ms < room_ms:  # The ledger is newer than the stream: there was no backup.
            await partitions.ensure_back(connection, settings.partitions.days, oldest_ms)
            room_ms = oldest_ms
        waiting = await recovery.apply(connection, [*waiting, *page], report.done)
        if len(waiting) > WAITING_MAX:
            break
        progress(report.events)
    report.empty = not report.events and newest is not None and (report.since is None or report.since <= newest)
    report.incomplete = sorted({str(version.order["order_id"]) for version in waiting})


async def _pages(nats_url: str, report: Report, newest: dt.datetime | None) -> AsyncIterator[list[Version]]:
    """The versions of orders in the stream, some at a time."""
    page: list[Version] = []
    size = 0
    async with Reader(nats_url, report.since) as reader:
        async for message in reader.messages(follow=False):
            if report.events == 0:
                report.begins_late = _begins_late(message, newest)
            report.events += 1
            version = _read(message, report)
            if version is None:
                continue
            page.append(version)
            size += len(message.data)
            if len(page) == PAGE_EVENTS or size >= PAGE_BYTES:
                yield page
                page, size = [], 0
    if page:
        yield page


def _begins_late(message: Msg, newest: dt.datetime | None) -> dt.datetime | None:
    """The time of the first event that was read, if there were others before it which nobody has any more: the newest
    order of the ledger has an event of its own.
    """
    at = message.metadata.timestamp
    late = message.metadata.sequence.stream > 1 if newest is None else at > newest + OVERLAP
    return at if late else None


def _read(message: Msg, report: Report) -> Version | None:
    try:
        version, exact = read_order(message.data, message.headers or {})
    except UnreadableError:
        report.unreadable += 1
        return None
    report.inexact += not exact
    return version


async def _take_stock(connection: asyncpg.Connection, nats_url: str, report: Report) -> None:
    """The last word on each level and each product."""
    levels: dict[str, tuple[str, int, str]] = {}
    products: dict[str, tuple[Any, ...]] = {}
    async with Reader(nats_url, report.since, STOCK) as reader:
        async for message in reader.messages(follow=False):
            report.events += 1
            try:
                level = read_level(message.data)
                row: tuple[Any, ...] = level or read_product(message.data)
            except UnreadableError:
                report.unreadable += 1
                continue
            rows: dict[str, Any] = products if level is None else levels
            rows[row[0]] = max(row, rows.get(row[0], row), key=lambda found: found[1])
    for piece in _pieces(list(levels.values())):
        report.levels += await recovery.apply_levels(connection, piece)
    for piece in _pieces(list(products.values())):
        report.products += await recovery.apply_products(connection, piece)


def _pieces(rows: list[Any]) -> list[list[Any]]:
    return [rows[at : at + PAGE_EVENTS] for at in range(0, len(rows), PAGE_EVENTS)]
