"""The functions of sql/*.sql that move units, statement by statement as they stand there. Each is called with the
server's books and the transaction that it runs in; a part of the name in `guards` is what a mutation removes.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres.stock import OWNER_NOT_ALIVE
from tests.simulation.books import Books, Lease, Transaction
from tests.simulation.guards import GUARDS

PLENTY_MIN = 16
NO_SHARDS = (None, None, None)

Row = dict[str, Any]


def take(
    books: Books,
    transaction: Transaction,
    owner: str,
    home: int,
    leases: Sequence[UUID],
    skus: Sequence[str],
    least: Sequence[int],
    most: Sequence[int],
    groups: Sequence[int],
) -> list[Row]:
    books.lock(transaction, "owner", owner)
    known = books.owners.get(owner)
    if (known is None or known.state != "alive") and GUARDS.take_owner_alive:
        error = asyncpg.RaiseError("the owner is not alive")
        error.sqlstate = OWNER_NOT_ALIVE
        raise error
    for sku in skus:
        books.lock(transaction, "shards", sku)
    answers, decided, short = [], [], set()
    for want in zip((lease.bytes for lease in leases), skus, least, most, groups, strict=True):
        answer = _take_at_once(books, owner, home, want, alone=groups.count(want[4]) == 1)
        if answer is not None:
            answers.append(answer)
            continue
        _, sku, need, convenient, group = want
        free, outstanding = books.free(sku), books.outstanding(sku)
        units = min(convenient, free // 4)
        if units < max(need, PLENTY_MIN):
            units = _of_the_last(free, need, convenient)
        if units < need:
            short.add(group)
        decided.append((want, units, free, outstanding))
    for (lease, sku, need, _, group), meant, free, outstanding in decided:
        units = 0 if group in short else meant
        if units:
            _draw(books, sku, units)
            _grant(books, lease, owner, sku, units)
        plenty = units > need or need == 0 or not GUARDS.exact_tail
        left, unsold = (None, None) if plenty else (free - units, outstanding + units)
        answers.append(_answer(lease, units, left, unsold, *_states(books, sku)))
    books.check(skus)
    return answers


def give(
    books: Books,
    transaction: Transaction,
    home: int,
    leases: Sequence[UUID],
    before: Sequence[int],
    units: Sequence[int],
) -> list[Row]:
    named = [lease.bytes for lease in leases]
    for lease_id in sorted(named):
        books.lock(transaction, "lease", lease_id)
    for lease_id, had, given in zip(named, before, units, strict=True):
        lease = books.leases.get(lease_id)
        if lease is None or not lease.is_active or lease.units - given < lease.used:
            continue
        if lease.units == had or not GUARDS.give_names_old_value:
            if (lease_id, had) in books.given:
                books.fail(f"I2: a give of {lease.sku} that was asked again has moved units twice")
            books.given.add((lease_id, had))
            lease.units -= given
            _close_when_used_up(books, lease)
            put_back(books, home, lease.sku, given)
    books.check(sorted({books.leases[one].sku for one in named if one in books.leases}))
    return [{"lease_id": UUID(one), "units": books.leases[one].units} for one in sorted(named) if one in books.leases]


def close(books: Books, transaction: Transaction, home: int, owner: str, leases: Sequence[UUID] | None = None) -> int:
    """Within a transaction of its caller, it takes effect when that is committed."""
    only = None if leases is None else {lease.bytes for lease in leases}
    closing = sorted(
        (
            lease
            for of_sku in books.active.values()
            for lease in of_sku.values()
            if lease.owner == owner and (only is None or lease.lease_id in only)
        ),
        key=lambda lease: lease.lease_id,
    )
    for lease in closing:
        books.lock(transaction, "lease", lease.lease_id)
    for sku in sorted({lease.sku for lease in closing}):
        books.lock(transaction, "shards", sku)

    def effect() -> None:
        for lease in closing:
            unsold = lease.units - lease.used
            lease.units = lease.used
            _close_when_used_up(books, lease)
            put_back(books, home, lease.sku, unsold)
        books.check(sorted({lease.sku for lease in closing}))

    units = sum(lease.units - lease.used for lease in closing)
    transaction.do(effect)
    return units


def shards(books: Books, _: Transaction, skus: Sequence[str]) -> list[tuple[str, int, int, int]]:
    return [(sku, at, *state) for sku in skus for at, state in enumerate(books.shards[sku])]  # type: ignore[misc]


def put_back(books: Books, home: int, sku: str, units: int) -> None:
    states = books.shards[sku]
    state = states[home % len(states)]
    state[0] += units
    state[1] += 1


def use(books: Books, lease: Lease, units: int) -> None:
    """Units of a lease are sold."""
    lease.used += units
    _close_when_used_up(books, lease)


def _take_at_once(books: Books, owner: str, home: int, want: tuple[bytes, str, int, int, int], *, alone: bool) -> Any:
    """The answer that needs no look at all shards: a take that is asked again, or plenty in the home shard."""
    lease_id, sku, need, convenient, _ = want
    known = books.leases.get(lease_id)
    if known is not None and GUARDS.take_once_per_lease:
        return _answer(lease_id, known.units, None, None, *NO_SHARDS)
    if not alone:
        return None
    states = books.shards[sku]
    at = home % len(states)
    units = min(convenient, states[at][0] // 4)
    if units >= max(need, PLENTY_MIN):
        states[at][0] -= units
        states[at][1] += 1
        _grant(books, lease_id, owner, sku, units)
        return _answer(lease_id, units, None, None, [at], [states[at][0]], [states[at][1]])
    if need == 0 and books.free(sku) // 4 < PLENTY_MIN:
        return _answer(lease_id, 0, None, None, *NO_SHARDS)
    return None


def _of_the_last(free: int, need: int, convenient: int) -> int:
    """Exactly what is needed, or nothing."""
    if not GUARDS.exact_tail:
        return min(free, convenient)
    return need if free >= need else 0


def _states(books: Books, sku: str) -> tuple[list[int], list[int], list[int]]:
    """Of all shards: which, free units, versions."""
    states = books.shards[sku]
    return list(range(len(states))), [free for free, _ in states], [version for _, version in states]


def _answer(lease: bytes, units: int, free: Any, outstanding: Any, at: Any, frees: Any, versions: Any) -> Row:
    return {
        "lease_id": UUID(lease),
        "granted": units,
        "free_left": free,
        "outstanding": outstanding,
        "shards": at,
        "frees": frees,
        "versions": versions,
    }


def _grant(books: Books, lease_id: bytes, owner: str, sku: str, units: int) -> None:
    lease = books.leases[lease_id] = Lease(lease_id, owner, sku, units)
    books.active[sku][lease_id] = lease
    if owner in books.closed:
        books.fail(f"a lease is granted to owner {owner[:8]}, which is closed for good")


def _draw(books: Books, sku: str, units: int) -> None:
    for state in books.shards[sku]:
        drawn = min(state[0], units)
        if drawn:
            state[0] -= drawn
            state[1] += 1
            units -= drawn


def _close_when_used_up(books: Books, lease: Lease) -> None:
    if lease.units == lease.used:
        lease.is_active = False
        books.active[lease.sku].pop(lease.lease_id, None)
