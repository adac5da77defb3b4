"""Calls of the functions that move units (sql/*_stock.sql). Each is one autocommit statement; one that was not answered
is asked again with the same lease id or the same old value, and moves units once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from persistence.errors import OwnerNotAliveError
from persistence.postgres.session import Session

OWNER_NOT_ALIVE = "FG001"
BELL = "bell"  # the topic of `revision` that `ring` raises


class Want(NamedTuple):
    """A take that is asked for: the lease id is the caller's; `units_min` are needed, `units_max` convenient. Wants of
    one call with the same `order` above 0 are granted all or none.
    """

    lease: bytes
    sku: str
    units_min: int
    units_max: int
    order: int = 0


class Shard(NamedTuple):
    """A shard as a statement has left it; a higher version is a later state."""

    sku: str
    shard: int
    free: int
    version: int


class Taken(NamedTuple):
    """`units` 0: nothing was granted. `free` and `outstanding` (unsold in active leases) are known in the tail only,
    where they were read under locks. `shards`: those that were touched, or all in the tail.
    """

    lease: bytes
    sku: str
    units: int
    free: int | None
    outstanding: int | None
    shards: Sequence[Shard] = ()


class Give(NamedTuple):
    """Units of a lease that go back; `before` is what the lease has now."""

    lease: bytes
    before: int
    units: int


async def take(session: Session, owner: str, home: int, wants: Sequence[Want]) -> list[Taken]:
    """Take units for several SKUs, each SKU once. Raises OwnerNotAliveError, LedgerUnavailableError."""
    wants = sorted(wants, key=lambda want: want.sku)
    # A want that stands alone has a number of its own.
    orders = [want.order or -number for number, want in enumerate(wants, 1)]
    arguments = (
        [UUID(w.lease) for w in wants],
        [w.sku for w in wants],
        [w.units_min for w in wants],
        [w.units_max for w in wants],
        orders,
    )
    try:
        rows = await session.run(
            lambda c: c.fetch(
                "select lease_id, granted, free_left, outstanding, shards, frees, versions"
                " from stock_take($1, $2, $3, $4, $5, $6, $7)",
                owner,
                home,
                *arguments,
            )
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate == OWNER_NOT_ALIVE:
            raise OwnerNotAliveError(owner) from error
        raise
    answers = {row["lease_id"].bytes: row for row in rows}
    assert len(answers) == len(wants)
    return [_taken(want, answers[want.lease]) for want in wants]


def _taken(want: Want, row: asyncpg.Record) -> Taken:
    states = zip(row["shards"] or (), row["frees"] or (), row["versions"] or (), strict=True)
    shards = [Shard(want.sku, *state) for state in states]
    return Taken(want.lease, want.sku, row["granted"], row["free_left"], row["outstanding"], shards)


async def give(session: Session, home: int, gives: Sequence[Give]) -> set[bytes]:
    """Give unsold units back. Returns the leases whose units did go back; the others were closed or are not as the
    caller believed.
    """
    arguments = ([UUID(g.lease) for g in gives], [g.before for g in gives], [g.units for g in gives])
    rows = await session.run(
        lambda c: c.fetch("select lease_id, units from stock_give($1, $2, $3, $4)", home, *arguments)
    )
    now = {row["lease_id"].bytes: row["units"] for row in rows}
    return {g.lease for g in gives if now.get(g.lease) == g.before - g.units}


async def close(session: Session, home: int, owner: str, leases: Sequence[bytes]) -> int:
    """Close some leases of an owner. Returns the units that went back."""
    ids = [UUID(lease) for lease in leases]
    return int(await session.run(lambda c: c.fetchval("select stock_close($1, $2, $3)", home, owner, ids)))


_WATCHED = "select sku from stock_watch where sku > $1 order by sku limit $2"


async def shards(connection: asyncpg.Connection, skus: Sequence[str]) -> list[Shard]:
    """The shards of some SKUs as they stand."""
    rows = await connection.fetch("select sku, shard, free, version from stock_shard where sku = any($1::text[])", skus)
    return [Shard(*row) for row in rows]


async def watched_shards(connection: asyncpg.Connection, after: str, limit: int) -> tuple[list[Shard], str | None]:
    """The shards of the next `limit` SKUs on watch that follow `after`, and the last of these SKUs, None when no more
    follow.
    """
    skus = [row["sku"] for row in await connection.fetch(_WATCHED, after, limit)]
    return await shards(connection, skus), skus[-1] if len(skus) == limit else None


async def ring(session: Session, skus: Sequence[str]) -> None:
    """Ask every worker for the units of some SKUs that it has not promised. Raises LedgerUnavailableError."""
    await session.run(lambda c: c.execute("select stock_ring($1)", skus))


async def rung(connection: asyncpg.Connection, revision: int) -> tuple[int, list[str]]:
    """The topic's present value, and the SKUs that were asked for after `revision`."""
    value = int(await connection.fetchval("select value from revision where topic = $1", BELL))
    rows = await connection.fetch("select sku, revision from stock_wanted where revision > $1", revision)
    return max([value, *(row["revision"] for row in rows)]), [row["sku"] for row in rows]


async def set_total(
    pool: asyncpg.Pool, sku: str, total: int, shards: int, actor: str, reason: str | None, if_version: int | None
) -> tuple[str, int, int]:
    """Set a SKU's total. Returns (outcome, total, version); outcome is `set`, `below_held` or `version_mismatch`, and
    only `set` has changed anything. `if_version` 0: the SKU must have no stock yet.
    """
    row = await pool.fetchrow(
        "select outcome, total, version from stock_set($1, $2, $3, $4, $5, $6)",
        sku,
        total,
        shards,
        actor,
        reason,
        if_version,
    )
    return row["outcome"], row["total"], row["version"]


_FIX = (
    "update stock_sku set shards_fixed = true where sku = $1 and version = coalesce($2::bigint, version) returning sku"
)


async def fix_shards(pool: asyncpg.Pool, sku: str) -> None:
    """The number of shards was given by command: from now on rules leave it alone."""
    await pool.execute(_FIX, sku, None)


async def reshard(pool: asyncpg.Pool, sku: str, shards: int, if_version: int | None = None) -> bool:
    """Spread a SKU's free units over `shards` shards, by command. False when the SKU has no stock, or its stock not the
    version `if_version`; then nothing was changed.
    """
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(_FIX, sku, if_version) is None:
            return False
        return bool(await connection.fetchval("select stock_reshard($1, $2)", sku, shards))


async def unfixed_shards(session: Session, after: str, limit: int) -> list[tuple[str, int]]:
    """SKU and shards of those that rules decide, in SKU order, from the one that follows `after` on."""
    rows = await session.run(
        lambda c: c.fetch(
            "select sku, shards from stock_sku where sku > $1 and not shards_fixed order by sku limit $2", after, limit
        )
    )
    return [(row["sku"], row["shards"]) for row in rows]


async def reshard_by_rule(session: Session, sku: str, shards: int) -> bool:
    """Spread a SKU's free units as a rule says. False when it is so already, or its shards are fixed by now."""
    return bool(await session.run(lambda c: c.fetchval("select stock_reshard_by_rule($1, $2)", sku, shards)))


_SHOW = """
select k.sku, k.total, k.owed, k.shards, k.version,
    (select array_agg(s.free order by s.shard) from stock_shard s
     where s.sku = k.sku and (s.shard < k.shards or s.free > 0)) as free,
    (select coalesce(sum(l.units - l.used), 0)::bigint from stock_lease l
     where l.sku = k.sku and l.state = 'active') as leased
from stock_sku k where k.sku = any($1::text[]) order by k.sku
"""


async def show(pool: asyncpg.Pool, skus: Sequence[str]) -> list[asyncpg.Record]:
    """sku, total, owed, shards, version, free (units per shard), leased (unsold units in active leases)."""
    return list(await pool.fetch(_SHOW, list(skus)))
