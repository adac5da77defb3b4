"""The other statements of `persistence.postgres`, by what is telling in their text: who is alive, what became of a
batch, what waits to be told, what is known of a key. The first mark that a text has names its function.
"""

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from core_ext.shapes import Order
from tests.simulation import commit_functions, expiry_functions, stock_functions
from tests.simulation.books import EPOCH_S, Books, Owner, Transaction
from tests.simulation.guards import GUARDS

if TYPE_CHECKING:
    from tests.simulation.postgres import Postgres

Row = dict[str, Any]
START_S = EPOCH_S


class Moment(NamedTuple):
    """A time of the server's."""

    at_s: float

    def timestamp(self) -> float:
        return self.at_s


class Statement(NamedTuple):
    """`step` is its column in the coverage. With `needs_server` it is given the server, else the books."""

    step: str
    function: Callable[..., Any]
    needs_server: bool = False


def register(
    books: Books, transaction: Transaction, owner: str, _host: str, _pid: int, _lane: int, journal: str | None = None
) -> None:
    books.lock(transaction, "owner", owner)
    if owner not in books.owners:
        books.owners[owner] = Owner(books.clock_s, journal=journal)


def name_journal(books: Books, transaction: Transaction, owner: str, journal: str | None) -> None:
    books.lock(transaction, "owner", owner)
    known = books.owners.get(owner)
    if known is not None and known.state == "alive":
        known.journal, known.records = journal, 0


def clock(books: Books, _: Transaction) -> Moment:
    return Moment(START_S + books.clock_s)


def beat(
    books: Books,
    transaction: Transaction,
    owner: str,
    _pinch: object,
    _every_s: float,
    records: int,
    since: dt.datetime,
    held_s: float,
) -> bool | None:
    books.lock(transaction, "owner", owner)
    known = books.owners.get(owner)
    if known is None or known.state != "alive":
        return None
    known.seen_at_s = books.clock_s
    known.records = records
    since_s = since.timestamp() - START_S
    return any(
        other.journal is not None
        and other.state == "alive"
        and name != owner
        and (other.records > 0 or other.seen_at_s < since_s)
        and other.seen_at_s > books.clock_s - held_s
        for name, other in books.owners.items()
    )


def still_active(books: Books, _: Transaction, leases: Sequence[UUID]) -> list[Row]:
    found = (books.leases.get(lease.bytes) for lease in leases)
    return [{"lease_id": UUID(lease.lease_id)} for lease in found if lease is not None and lease.is_active]


def active_after(books: Books, _: Transaction, owner: str, after: UUID, most: int) -> list[Row]:
    found = sorted(
        lease.lease_id
        for of_sku in books.active.values()
        for lease in of_sku.values()
        if lease.owner == owner and lease.lease_id > after.bytes
    )
    return [{"lease_id": UUID(lease_id)} for lease_id in found[:most]]


def leave(books: Books, transaction: Transaction, owner: str) -> None:
    books.lock(transaction, "owner", owner)
    transaction.do(lambda: _end_owner(books, owner, "left"))


def declare_dead(books: Books, transaction: Transaction, owner: str) -> None:
    books.lock(transaction, "owner", owner)
    transaction.do(lambda: _end_owner(books, owner, "dead"))


def forget_journal(books: Books, transaction: Transaction, owner: str) -> None:
    books.lock(transaction, "owner", owner)

    def effect() -> None:
        if owner in books.owners:
            books.owners[owner].journal = None

    transaction.do(effect)


def _end_owner(books: Books, owner: str, state: str) -> None:
    known = books.owners.get(owner)
    if known is not None and known.state == "alive":
        known.state, known.journal = state, None


def silent(books: Books, transaction: Transaction, timeout_s: float) -> list[Row]:
    found = [
        owner
        for owner, known in books.owners.items()
        if known.state == "alive"
        and known.seen_at_s < books.clock_s - timeout_s
        and (known.journal is None or not GUARDS.journal_pins_leases)
    ]
    for owner in found:
        books.lock(transaction, "owner", owner)
    for owner in found:
        books.owners[owner].state = "dead"
    return [{"owner": owner} for owner in found]


def stranded(books: Books, _: Transaction) -> list[Row]:
    holders = dict.fromkeys(lease.owner for of_sku in books.active.values() for lease in of_sku.values())
    return [{"owner": owner} for owner in holders if _is_stranded(books.owners.get(owner))]


def _is_stranded(owner: Owner | None) -> bool:
    if owner is None:
        return True
    return owner.state != "alive" and (owner.journal is None or not GUARDS.journal_pins_leases)


def close(books: Books, transaction: Transaction, home: int, owner: str, leases: Sequence[UUID] | None = None) -> int:
    units = stock_functions.close(books, transaction, home, owner, leases)
    if leases is None:  # Whoever closes all of an owner's leases has seen to it that it gets no more.
        transaction.do(lambda: books.closed.add(owner))
    return units


def fence(books: Books, transaction: Transaction, batch_id: UUID, *_: object) -> None:
    books.lock(transaction, "batch", batch_id.bytes)
    books.batches.setdefault(batch_id.bytes, "fenced")


def outcome(books: Books, _: Transaction, batch_id: UUID) -> str | None:
    return books.batches.get(batch_id.bytes)


def ring(books: Books, _: Transaction, skus: Sequence[str]) -> None:
    books.revision += 1
    books.rung.update(dict.fromkeys(skus, books.revision))


def revisions(books: Books, _: Transaction) -> list[Row]:
    return [{"topic": "bell", "value": books.revision}]


def revision(books: Books, _: Transaction, _topic: str) -> int:
    return books.revision


def rung(books: Books, _: Transaction, after: int) -> list[Row]:
    return [{"sku": sku, "revision": at} for sku, at in books.rung.items() if at > after]


def watched(books: Books, _: Transaction, after: str, most: int) -> list[Row]:
    return [{"sku": sku} for sku in sorted(books.total) if sku > after][:most]


def keys(books: Books, _: Transaction, hashes: Sequence[UUID]) -> list[Row]:
    found = (books.keys.get(one.bytes) for one in hashes)
    return [
        {"key_hash": UUID(s.key_hash), "order_id": UUID(s.order_id), "fingerprint": UUID(s.fingerprint)}
        for s in found
        if s is not None
    ]


def orders(books: Books, _: Transaction, order_ids: Sequence[bytes]) -> dict[bytes, Order]:
    """As the order book restores them; what an order looks like is no part of the simulation."""
    return {
        one: Order(one, 1, "app", "CNY", "pending_payment", 1, 0, [], 0) for one in order_ids if one in books.orders
    }


def claim(books: Books, transaction: Transaction, age_s: float, most: int, _formats: object) -> list[Row]:
    old = sorted(one for one, told in books.outbox.items() if told.created_at_s < books.clock_s - age_s)
    found = [one for one in old if ("outbox", one) not in books.locks][:most]
    for one in found:
        books.lock(transaction, "outbox", one)
    return [
        {
            "batch_id": UUID(one),
            "order_ids": [UUID(order_id) for order_id, _ in books.outbox[one].changes],
            "versions": [version for _, version in books.outbox[one].changes],
        }
        for one in found
    ]


def remove(books: Books, transaction: Transaction, batch_ids: Sequence[UUID]) -> str:
    named = [one.bytes for one in batch_ids]
    free = [one for one in named if books.locks.get(("outbox", one)) in (None, transaction)]

    def effect() -> None:
        for one in free:
            books.outbox.pop(one, None)

    transaction.do(effect)
    return f"DELETE {len(free)}"


def alias(books: Books, _: Transaction, order_ids: Sequence[UUID], of: Sequence[UUID], _same: object) -> None:
    for one, other in zip(order_ids, of, strict=True):
        books.aliases.setdefault(one.bytes, other.bytes)


def may_hold(books: Books, _: Transaction, but: str, seen_since: Moment) -> bool:
    return any(
        known.journal is not None
        and known.state == "alive"
        and owner != but
        and (known.records > 0 or START_S + known.seen_at_s < seen_since.timestamp())
        for owner, known in books.owners.items()
    )


def named_journals(books: Books, _: Transaction) -> list[Row]:
    return [
        {
            "owner": owner,
            "host": "host",
            "journal": known.journal,
            "state": known.state,
            "seen_at": Moment(START_S + known.seen_at_s),
            "journal_records": known.records,
            "silent_s": books.clock_s - known.seen_at_s,
            "leases": 0,
            "units": 0,
        }
        for owner, known in books.owners.items()
        if known.journal is not None
    ]


def end_by_pid(server: "Postgres", _: Transaction, pid: int, name: str) -> None:
    server.terminate([one for one in server.backends.values() if one.pid == pid and one.name == name])


def end_by_name(server: "Postgres", _: Transaction, name: str) -> list[Row]:
    server.terminate([one for one in server.backends.values() if one.name == name])
    return []


def reap(server: "Postgres", _: Transaction, prefix: str, age_s: float) -> list[Row]:
    before_s = server.books.clock_s - age_s
    hung = [
        one
        for one in server.backends.values()
        if one.name.startswith(prefix) and one.transaction.is_open and one.transaction.began_at_s < before_s
    ]
    server.terminate(hung)
    return [{"ended": True} for _ in hung]


MARKS: tuple[tuple[str, Statement], ...] = (
    ("stock_take(", Statement("take", stock_functions.take)),
    ("order_expire(", Statement("expire", expiry_functions.expire)),
    ("clock_stepped(", Statement("note_step", expiry_functions.stepped)),
    ("from clock_step)", Statement("look", expiry_functions.look)),
    ("from clock_look", Statement("look", expiry_functions.last_look)),
    ("insert into clock_look", Statement("look", expiry_functions.keep_look)),
    ("stock_give(", Statement("give", stock_functions.give)),
    ("stock_close(", Statement("close", close)),
    ("stock_ring(", Statement("ring", ring)),
    ("from stock_shard", Statement("shards", stock_functions.shards)),
    ("from stock_watch", Statement("sweep", watched)),
    ("from stock_wanted", Statement("rung", rung)),
    ("select value from revision", Statement("rung", revision)),
    ("from revision", Statement("rung", revisions)),
    ("insert into worker", Statement("register", register)),
    ("update worker set journal = $2", Statement("register", name_journal)),
    ("journal = null, journal_records = 0 where owner = $1 and journal", Statement("bury", forget_journal)),
    ("set state = 'left'", Statement("leave", leave)),
    ("set state = 'dead', journal = null", Statement("bury", declare_dead)),
    ("set state = 'dead'", Statement("bury", silent)),
    ("left join worker w", Statement("bury", stranded)),
    ("set seen_at", Statement("heartbeat", beat)),
    ("select clock_timestamp()", Statement("heartbeat", clock)),
    ("(owner, lease_id) >", Statement("compare", active_after)),
    ("select lease_id from stock_lease where lease_id", Statement("compare", still_active)),
    ("xact_start <", Statement("reap", reap, needs_server=True)),
    ("where pid = $1", Statement("resolve", end_by_pid, needs_server=True)),
    ("where application_name = $1", Statement("bury", end_by_name, needs_server=True)),
    ("insert into batch", Statement("resolve", fence)),
    ("select outcome from batch", Statement("resolve", outcome)),
    ("insert into order_alias", Statement("drain", alias)),
    ("from idempotency_key", Statement("lookup", keys)),
    ("select exists (select from worker", Statement("lookup", may_hold)),
    ("select orders", Statement("order_read", orders)),
    ("select count(*) from outbox", Statement("relay", lambda *_: 0)),
    ("from outbox\nwhere created_at", Statement("relay", claim)),
    ("delete from outbox", Statement("remove", remove)),
    ("commit_lost(", Statement("commit_lost", commit_functions.commit_lost)),
    ("commit_batch(", Statement("commit_batch", commit_functions.commit_batch)),
    ("select 1", Statement("bury", lambda *_: 1)),
    ("w.host", Statement("bury", named_journals)),
)
_known: dict[str, Statement] = {}


def statement_of(text: str) -> Statement:
    """What a text stands for."""
    known = _known.get(text)
    if known is None:
        known = _known[text] = next(statement for mark, statement in MARKS if mark in text)
    return known
