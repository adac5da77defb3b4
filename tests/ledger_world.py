"""A small world around the ledger for its tests: owners, stock in their hands, orders with their rows, and the audit.

It speaks to PostgreSQL through the rooms under test and closes every connection that it opened. It never repairs
anything: a test that ends with `assert_clean` has proved that the books balance.
"""

import asyncio
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Any, NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from core_ext import ids, rows
from core_ext.shapes import Change, Line, Order
from persistence.postgres import control, order_changes, stock
from persistence.postgres.audit import audit
from persistence.postgres.connect import open_pool
from persistence.postgres.ledger import Entry, Ledger, Limit
from persistence.postgres.session import Session

PRICE = 250  # of a unit of anything, in minor units


class Hand(NamedTuple):
    """Units of a SKU that an owner holds."""

    lease: bytes
    sku: str
    units: int


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def new_id() -> bytes:
    """A new id of this instant, for an order or a batch."""
    return ids.new_id(now_ms())


def key_of(number: int) -> bytes:
    """The hash of the idempotency key with this number."""
    return blake2b(str(number).encode(), digest_size=16).digest()


def draft(
    *parts: tuple[Hand, int],
    key: bytes | None = None,
    fingerprint: bytes = bytes(16),
    title: str = "壶 Teapot",
    personal: bytes | None = None,
    order_id: bytes | None = None,
    note: str | None = None,
    customer: str | None = None,
    limit: int | None = None,
) -> Entry:
    """An order that wants these units of these hands, a line for each; without any it has one line of something that is
    never out of stock. With a `limit` its customer may hold so many units of each SKU.
    """
    order_id = order_id or new_id()
    wanted = [(hand.sku, units, True) for hand, units in parts] or [("SERVICE", 1, False)]
    lines = [
        Line(at, sku, title, units, PRICE, units * PRICE, stocked, limit is not None)
        for at, (sku, units, stocked) in enumerate(wanted, 1)
    ]
    created_at = ids.time_of(order_id)
    total = sum(line.amount for line in lines)
    order = Order(order_id, 1, "app", "CNY", "pending_payment", 1, total, lines, created_at, customer, external_id=note)
    units_of = Counter[str]()
    for line in lines:
        units_of[line.sku] += line.quantity
    change = Change(1, created_at, "created", "pending_payment", "client:1")
    return Entry(
        order_id=order_id,
        key_hash=key or os.urandom(16),
        fingerprint=fingerprint,
        parts=[(hand.lease, units) for hand, units in parts],
        order_row=rows.order_row(order, personal),
        line_rows=[rows.line_rows(order)],
        history_row=rows.history_row(order_id, change),
        key_row=b"" if personal is None else rows.key_row(order_id, 1, b"wrapped"),
        limits=[Limit(sku, str(customer), units, limit) for sku, units in units_of.items() if limit is not None],
    )


async def force(pool: asyncpg.Pool, statement: str, *arguments: Any) -> None:
    """Change orders past the ledger's guard, to what no order can become by itself."""
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("set local floodgate.recovering = 'on'")
        await connection.execute(statement, *arguments)


class World:
    """One database and everything that a test opens on it."""

    def __init__(self, url: str, pool: asyncpg.Pool, *, pipelined: bool = True) -> None:
        self.url = url
        self.pool = pool
        self._pipelined = pipelined
        self.control = self.session("fg-control")
        self._ledgers: list[Ledger] = []

    def session(self, name: str) -> Session:
        return Session(self.url, name, 5.0)

    def ledger(self, owner: str | None = None, url: str | None = None, command_timeout_s: float = 5.0) -> Ledger:
        """A committer's connection, by way of `url` (a proxy's) if given."""
        ledger = Ledger(url or self.url, owner or str(uuid.uuid4()), command_timeout_s, pipelined=self._pipelined)
        self._ledgers.append(ledger)
        return ledger

    async def owner(self) -> str:
        """A new owner, alive."""
        owner = str(uuid.uuid4())
        await control.register(self.control, owner, "host", os.getpid(), 0)
        return owner

    async def stock(self, sku: str, units: int, shards: int = 1) -> None:
        outcome, _, _ = await stock.set_total(self.pool, sku, units, shards, "test", None, None)
        assert outcome == "set"

    async def take(self, owner: str, sku: str, units: int) -> Hand:
        """Exactly `units` in the hand of `owner`."""
        (taken,) = await stock.take(self.control, owner, 0, [stock.Want(new_id(), sku, units, units)])
        assert taken.units == units
        return Hand(taken.lease, sku, units)

    async def hand(self, sku: str = "TEA", units: int = 10) -> Hand:
        """The whole stock of a new SKU in the hand of a new owner."""
        await self.stock(sku, units)
        return await self.take(await self.owner(), sku, units)

    async def owner_of(self, hand: Hand) -> str:
        return str(await self.value("select owner from stock_lease where lease_id = $1", UUID(hand.lease)))

    async def close_lease(self, hand: Hand) -> None:
        await stock.close(self.control, 0, await self.owner_of(hand), [hand.lease])

    async def value(self, query: str, *arguments: Any) -> Any:
        return await self.pool.fetchval(query, *arguments)

    async def until(self, query: str, wanted: int) -> None:
        """Wait until the server says so; it tells nobody when it changes its mind."""
        while await self.value(query) != wanted:
            await asyncio.sleep(0.002)

    async def count(self, table: str) -> int:
        return int(await self.value(f"select count(*) from {table}"))

    async def free(self, sku: str) -> int:
        return int(await self.value("select sum(free) from stock_shard where sku = $1", sku))

    async def lease(self, hand: Hand) -> tuple[int, int, str]:
        """(units, used, state) of a lease."""
        row = await self.pool.fetchrow(
            "select units, used, state from stock_lease where lease_id = $1", UUID(hand.lease)
        )
        return row["units"], row["used"], row["state"]

    async def order_ids(self) -> set[bytes]:
        return {row["order_id"].bytes for row in await self.pool.fetch("select order_id from orders")}

    async def taken(self) -> dict[tuple[str, str], int]:
        """(stock key, customer) -> units that count against his limit."""
        rows = await self.pool.fetch("select sku, customer, taken from buyer_taken")
        return {(row["sku"], row["customer"]): row["taken"] for row in rows}

    async def cancel(self, entry: Entry, version: int = 1) -> order_changes.Cancelled:
        return await order_changes.cancel(
            self.pool, entry.order_id, version, None, 0, "client:1", "ordered twice", None, new_id()
        )

    async def tables(self) -> dict[str, int]:
        """How many rows the tables hold that a commit writes."""
        names = ("batch", "idempotency_key", "orders", "order_lines", "order_history", "order_key", "outbox")
        return {name: await self.count(name) for name in names}

    async def assert_clean(self) -> None:
        """Every invariant that the ledger can show holds."""
        report = await audit(self.url)
        assert report.clean, [finding for finding in report.findings if finding.count]

    async def close(self) -> None:
        for ledger in self._ledgers:
            ledger.close()
        await self.control.close()
        self.pool.terminate()


@asynccontextmanager
async def open_world(url: str, *, pipelined: bool = True) -> AsyncIterator[World]:
    """A world whose committers go this way."""
    world = World(url, await open_pool(url, "fg-test", 8, 10.0), pipelined=pipelined)
    try:
        yield world
    finally:
        await world.close()
