"""The functions of sql/0014_lifecycle.sql: orders that nobody has paid end, and the ledger's clock has been put
forward. Beside them what pays for an order, at once and without fail.
"""

import datetime as dt
import struct
from collections import Counter
from typing import Any

from asyncpg.pgproto.pgproto import UUID

from core_ext import documents
from persistence.postgres import copied
from persistence.postgres.orders import ORDER
from tests.simulation.books import EPOCH_S, Books, Stored, Told, Transaction
from tests.simulation.guards import GUARDS
from tests.simulation.stock_functions import put_back

EXPIRES_AT = ORDER.split(", ").index("expires_at")
POSTGRES_EPOCH_S = 946_684_800  # 2000-01-01, from which PostgreSQL counts microseconds
EARLY_S_MAX = 0.05  # of which a clock may have been put forward without anybody's noticing it


def due_of(order_row: bytes) -> float:
    """When the order of an encoded row has to be paid, in seconds of the server's clock."""
    value = copied.split(order_row)[EXPIRES_AT]
    assert value is not None
    microseconds: int = struct.unpack(">q", value)[0]
    return microseconds / 1e6 + POSTGRES_EPOCH_S - EPOCH_S


def expire(
    books: Books,
    transaction: Transaction,
    until: dt.datetime,
    most: int,
    skip: int,
    home: int,
    batch_id: UUID,
    _actor: str,
) -> dict[str, Any] | None:
    until_s = min(until.timestamp() - EPOCH_S, books.clock_s)
    books.is_seen = True
    due = [stored for stored in books.waiting.values() if _due_s(books, stored) <= until_s]
    ending = sorted(due, key=lambda stored: stored.due_s)[skip : skip + most]
    if not ending:
        return None
    ending.sort(key=lambda stored: stored.order_id)
    units, taken = _held_by(ending)
    for limit in sorted(taken):
        books.lock(transaction, "limit", *limit)
    for sku in sorted(units):
        books.lock(transaction, "shards", sku)
    for stored in ending:
        _end(books, stored)
    for sku, count in units.items():
        books.held[sku] -= count
        books.returned.append((books.now_s(), sku, count))
        put_back(books, home, sku, count)
    for limit, count in taken.items():
        books.taken[limit] -= count
    books.batches[batch_id.bytes] = "committed"
    books.outbox[batch_id.bytes] = Told([(stored.order_id, stored.versions) for stored in ending], books.clock_s)
    books.check(sorted(units))
    return {
        "order_ids": [UUID(stored.order_id) for stored in ending],
        "versions": [stored.versions for stored in ending],
        "at": _time(books.clock_s),
        "skus": sorted(units),
    }


def look(books: Books, _: Transaction) -> dict[str, Any]:
    return {"now": _time(books.clock_s), "steps": len(books.steps)}


def last_look(books: Books, _: Transaction, boot: str) -> dict[str, Any] | None:
    return books.looks.get(boot)


def keep_look(
    books: Books, _: Transaction, boot: str, ledger_time: dt.datetime, asked: float, answered: float, steps: int
) -> None:
    known = books.looks.get(boot)
    if known is None or known["asked"] < asked:
        books.looks[boot] = {"ledger_time": ledger_time, "asked": asked, "answered": answered, "steps": steps}


def stepped(books: Books, _: Transaction, known: int, at: dt.datetime, ahead: dt.timedelta) -> dict[str, Any]:
    news_s = ahead.total_seconds() - sum(ahead_s for _, ahead_s in books.steps[known:])
    if news_s <= 0.1:
        news_s = 0.0
    else:
        books.steps.append((at.timestamp() - EPOCH_S, news_s))
    return {"news": dt.timedelta(seconds=news_s), "step": len(books.steps)}


def pay(books: Books, order_id: bytes) -> bool:
    """Whether it waited for that."""
    stored = books.waiting.pop(order_id, None)
    if stored is not None:
        stored.status = "paid"
        if not GUARDS.expiry_state:
            books.waiting[order_id] = stored
    return stored is not None


def _due_s(books: Books, stored: Stored) -> float:
    """Orders from before a step of the clock have as much longer."""
    return stored.due_s + sum(ahead_s for at_s, ahead_s in books.steps if at_s > stored.created_s)


def _held_by(ending: list[Stored]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    units, taken = Counter[str](), Counter[tuple[str, str]]()
    for stored in ending:
        units.update(dict(stored.asked.demand))
        for sku, limited in stored.asked.limited:
            taken[sku, stored.asked.customer] += limited
    return units, taken


def _end(books: Books, stored: Stored) -> None:
    if stored.status != "pending_payment":
        books.fail(f"I6: an order that is {stored.status} expires")
    asked_s, asked_by_server_s = books.asked_at_s[stored.key_hash]
    # A worker whose heartbeats are answered slowly is late by as much, and says so in `expires_at`.
    late_s = max(asked_by_server_s - stored.created_s, 0.0)
    promised_s = asked_s + books.payment_s - late_s
    # What no steward has looked at is taken for time that has passed.
    if books.now_s() < promised_s - EARLY_S_MAX and not books.is_blind:
        books.fail(f"I6: an order expires {promised_s - books.now_s():.3f} s early")
    stored.status, stored.versions = "expired", stored.versions + 1
    del books.waiting[stored.order_id]
    books.due.add(documents.event_id(stored.order_id, stored.versions))


def _time(at_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(EPOCH_S + at_s, dt.UTC)
