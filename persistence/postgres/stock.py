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


class Want(NamedTuple):
    """A take that is asked for: the lease id is the caller's; `units_min` are needed, `units_max` convenient."""

    lease: bytes
    sku: str
    units_min: int
    units_max: int


class Taken(NamedTuple):
    """`units` 0: nothing was granted. `free` and `outstanding` (unsold in active leases) are known in the tail only,
    where they were read under locks.
    """

    lease: bytes
    sku: str
    units: int
    free: int | None
    outstanding: int | None


class Give(NamedTuple):
    """Units of a lease that go back; `before` is what the lease has now."""

    lease: bytes
    before: int
    units: int


async def take(session: Session, owner: str, home: int, wants: Sequence[Want]) -> list[Taken]:
    """Take units for several SKUs, each SKU once. Raises OwnerNotAliveError, LedgerUnavailableError."""
    wants = sorted(wants, key=lambda want: want.sku)
    arguments = (
        [UUID(w.lease) for w in wants],
        [w.sku for w in wants],
        [w.units_min for w in wants],
        [w.units_max for w in wants],
    )
    try:
        rows = await session.run(
            lambda c: c.fetch(
                "select lease_id, granted, free_left, outstanding from stock_take($1, $2, $3, $4, $5, $6)",
                owner,
                home,
                *arguments,
            )
        )
    except asyncpg.PostgresError as error:
        if error.sqlstate == OWNER_NOT_ALIVE:
            raise OwnerNotAliveError(owner) from error
        raise
    return [
        Taken(w.lease, w.sku, row["granted"], row["free_left"], row["outstanding"])
        for w, row in zip(wants, rows, strict=True)
    ]


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


async def set_total(
    pool: asyncpg.Pool, sku: str, total: int, shards: int, actor: str, reason: str | None, if_version: int | None
) -> tuple[str, int, int]:
    """Set a SKU's total. Returns (outcome, total, version); outcome is `set`, `below_held` or `version_mismatch`, and
    only `set` has changed anything.
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


async def reshard(pool: asyncpg.Pool, sku: str, shards: int) -> bool:
    """Spread a SKU's free units over `shards` shards. False when the SKU has no stock."""
    return bool(await pool.fetchval("select stock_reshard($1, $2)", sku, shards))


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
