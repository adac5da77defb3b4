"""The functions of sql/*.sql that store orders: commit_whole, commit_batch, commit_lost. What they would change is done
when their transaction is committed; until then their rows are locked.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from core_ext import documents, ids
from persistence.postgres.ledger import REFUSED, Entry
from tests.simulation import expiry_functions
from tests.simulation.books import EPOCH_S, Asked, Books, Lease, Stored, Told, Transaction
from tests.simulation.guards import GUARDS
from tests.simulation.stock_functions import use

Row = dict[str, Any]


def commit_whole(books: Books, transaction: Transaction, batch_id: bytes, entries: Sequence[Entry]) -> None:
    """All of them or none: raises what says that one does not live."""
    _insert_batch(books, transaction, batch_id)
    for entry in entries:
        books.lock(transaction, "key", entry.key_hash)
        if entry.key_hash in books.keys and GUARDS.key_once:
            raise _exists("idempotency_key")
    if _over_limits(books, transaction, entries) or _bad_leases(books, transaction, entries):
        error = asyncpg.RaiseError("an order of the batch is refused")
        error.sqlstate = REFUSED
        raise error
    _store(books, transaction, batch_id, entries)


def commit_batch(books: Books, transaction: Transaction, batch_id: bytes, entries: Sequence[Entry]) -> list[Row]:
    """Those that do not live."""
    _insert_batch(books, transaction, batch_id)
    for entry in entries:
        books.lock(transaction, "key", entry.key_hash)
    rows = [
        _row(at, "duplicate", books.keys[entry.key_hash])
        for at, entry in enumerate(entries, 1)
        if entry.key_hash in books.keys and GUARDS.key_once
    ]
    dead = {row["at"] for row in rows}
    over = _over_limits(books, transaction, [entry for at, entry in enumerate(entries, 1) if at not in dead])
    for at, entry in enumerate(entries, 1):
        if at not in dead and entry.key_hash in over:
            rows.append(_row(at, "limit", None, over[entry.key_hash]))
            dead.add(at)
    bad = _bad_leases(books, transaction, [entry for at, entry in enumerate(entries, 1) if at not in dead])
    for at, entry in enumerate(entries, 1):
        if at not in dead and any(lease in bad for lease, _ in entry.parts):
            rows.append(_row(at, "fenced", None))
            dead.add(at)
    _store(books, transaction, batch_id, [entry for at, entry in enumerate(entries, 1) if at not in dead])
    return rows


def commit_lost(books: Books, transaction: Transaction, batch_id: bytes, entries: Sequence[Entry]) -> list[Row]:
    """Orders that were acknowledged and whose units are gone. Answers those whose key is known."""
    _insert_batch(books, transaction, batch_id)
    for entry in entries:
        books.lock(transaction, "key", entry.key_hash)
    rows = [
        _row(at, "duplicate", books.keys[entry.key_hash])
        for at, entry in enumerate(entries, 1)
        if entry.key_hash in books.keys
    ]
    known = {row["at"] for row in rows}
    _store(books, transaction, batch_id, [e for at, e in enumerate(entries, 1) if at not in known], are_lost=True)
    return rows


def _insert_batch(books: Books, transaction: Transaction, batch_id: bytes) -> None:
    books.lock(transaction, "batch", batch_id)
    if batch_id in books.batches and GUARDS.batch_once:
        raise _exists("batch")


def _exists(table: str) -> asyncpg.PostgresError:
    error = asyncpg.UniqueViolationError(f"{table} has it already")
    error.table_name = table
    return error


def _over_limits(
    books: Books, transaction: Transaction, entries: Iterable[Entry]
) -> dict[bytes, list[tuple[str, int]]]:
    """By key: the stock keys of which the buyer would have too much, with what he has."""
    over: dict[bytes, list[tuple[str, int]]] = {}
    limited = sorted((limit.sku, limit.customer, limit, entry.key_hash) for entry in entries for limit in entry.limits)
    for sku, customer, limit, key_hash in limited:
        books.lock(transaction, "limit", sku, customer)
        taken = books.taken[sku, customer]
        if taken + limit.units > limit.units_max and GUARDS.buyer_limit:
            over.setdefault(key_hash, []).append((sku, taken))
    return over


def _bad_leases(books: Books, transaction: Transaction, entries: Iterable[Entry]) -> set[bytes]:
    """The leases that cannot serve all that is wanted of them."""
    wanted: defaultdict[bytes, int] = defaultdict(int)
    for entry in entries:
        for lease_id, units in entry.parts:
            wanted[lease_id] += units
    bad = set()
    for lease_id in sorted(wanted):
        books.lock(transaction, "lease", lease_id)
        lease = books.leases.get(lease_id)
        if lease is None or _is_bad(lease, wanted[lease_id]):
            bad.add(lease_id)
    return bad


def _is_bad(lease: Lease, wanted: int) -> bool:
    if not lease.is_active and GUARDS.lease_state:
        return True
    return lease.used + wanted > lease.units and GUARDS.lease_bound


def _row(at: int, verdict: str, stored: Stored | None, over: Sequence[tuple[str, int]] = ()) -> Row:
    return {
        "at": at,
        "verdict": verdict,
        "stored_order": UUID(stored.order_id) if stored else None,
        "stored_fingerprint": UUID(stored.fingerprint) if stored else None,
        "over_sku": [sku for sku, _ in over] or None,
        "over_taken": [taken for _, taken in over] or None,
    }


def _store(
    books: Books, transaction: Transaction, batch_id: bytes, living: Sequence[Entry], *, are_lost: bool = False
) -> None:
    versions = 2 if are_lost else 1

    def effect() -> None:
        if books.batches.setdefault(batch_id, "committed") != "committed" and living:
            books.fail("a batch that was fenced has been committed")
        for entry in living:
            _store_one(books, entry, versions)
        if living and GUARDS.outbox_row:
            changes = [(entry.order_id, version) for entry in living for version in range(1, versions + 1)]
            books.outbox[batch_id] = Told(changes, books.clock_s)
        skus = sorted({sku for entry in living for sku, _ in books.orders[entry.order_id].asked.demand})
        books.check(skus)

    transaction.do(effect)


def _store_one(books: Books, entry: Entry, versions: int) -> None:
    stored = _new(books, entry, versions)
    if entry.key_hash in books.keys:
        books.fail("I4: a key has two orders")
    if entry.order_id in books.orders:
        books.fail("I4: an order is stored twice")
    books.keys[entry.key_hash] = books.orders[entry.order_id] = stored
    books.due.update(documents.event_id(entry.order_id, version) for version in range(1, versions + 1))
    if stored.is_live:
        books.waiting[entry.order_id] = stored
        _hold(books, entry, stored.asked)


def _new(books: Books, entry: Entry, versions: int) -> Stored:
    asked, due_s = books.asked[entry.fingerprint], expiry_functions.due_of(entry.order_row)
    created_s = ids.time_of(entry.order_id) / 1000 - EPOCH_S
    stored = Stored(entry.order_id, entry.key_hash, entry.fingerprint, asked, created_s, due_s, versions)
    if versions > 1:
        stored.status = "cancelled"
        books.fail("I3: an order with a receipt is cancelled, because its units are gone")
    return stored


def _hold(books: Books, entry: Entry, asked: Asked) -> None:
    given: defaultdict[str, int] = defaultdict(int)
    for lease_id, units in entry.parts:
        lease: Lease = books.leases[lease_id]
        given[lease.sku] += units
        use(books, lease, units)
    if dict(given) != dict(asked.demand):
        books.fail(f"an order of {dict(asked.demand)} was given {dict(given)}")
    for sku, units in asked.demand:
        books.held[sku] += units
    for limit in entry.limits:
        books.taken[limit.sku, limit.customer] += limit.units
        if books.taken[limit.sku, limit.customer] > limit.units_max:
            books.fail(f"I7: a buyer holds {books.taken[limit.sku, limit.customer]} of {limit.sku}")
