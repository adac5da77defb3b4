"""What the ledger knows of journals: who may have orders in one, which of their records became aliases, and the end of
an owner whose journal has been replayed, or is given up.

Every statement is safe when two processes run it at once.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres.ledger import COMMIT_NAME
from persistence.postgres.session import Session

_END = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1"
_DEAD = "update worker set state = 'dead', journal = null, journal_records = 0 where owner = $1 and state = 'alive'"
_GONE = "update worker set journal = null, journal_records = 0 where owner = $1 and journal is not null"
_ALIAS = """
insert into order_alias (order_id, of_order, same_body)
select t.o, t.a, t.s from unnest($1::uuid[], $2::uuid[], $3::boolean[]) t(o, a, s) order by t.o on conflict do nothing
"""
_MAY_HOLD = """
select exists (select from worker
    where journal is not null and state = 'alive' and owner <> $1 and (journal_records > 0 or seen_at < $2))
"""
_SILENT = """
select count(*) from worker where journal is not null and seen_at < clock_timestamp() - make_interval(secs => $1)
"""
_NAMED = """
select w.owner::text, w.host, w.journal, w.state, w.seen_at, w.journal_records,
    extract(epoch from clock_timestamp() - w.seen_at)::float as silent_s,
    count(l.lease_id) as leases, coalesce(sum(l.units - l.used), 0)::bigint as units
from worker w left join stock_lease l on l.owner = w.owner and l.state = 'active'
where w.journal is not null group by w.owner order by w.seen_at
"""
NOBODY = "00000000-0000-0000-0000-000000000000"


class Alias(NamedTuple):
    """A record whose key belongs to `of_order`, by a request with the same body or another one."""

    order_id: bytes
    of_order: bytes
    same_body: bool


class Named(NamedTuple):
    """An owner that may have orders in a journal on `host`; `records` as it last said. Its unsold `units` stay in its
    `leases` until the journal has been replayed, or is given up: no more than these can be in orders nobody knows of.
    """

    owner: str
    host: str
    journal: str
    state: str
    seen_at: datetime
    records: int
    silent_s: float
    leases: int
    units: int


async def store_aliases(session: Session, aliases: Sequence[Alias]) -> None:
    """Keep what became of these records. Raises LedgerUnavailableError."""
    columns = (
        [UUID(alias.order_id) for alias in aliases],
        [UUID(alias.of_order) for alias in aliases],
        [alias.same_body for alias in aliases],
    )
    await session.run(lambda c: c.execute(_ALIAS, *columns))


async def end_committer(session: Session, owner: str) -> None:
    """End what the owner's process may have left running in PostgreSQL; it must not live any more."""
    await session.run(lambda c: c.fetch(_END, COMMIT_NAME + owner))


async def bury(session: Session, owner: str, home: int) -> int:
    """The owner is dead and its journal replayed to the end, or given up: close its leases. Returns the units that went
    back. Only who holds the journal's lock may call this, or who answers for the journal's loss.
    """

    async def call(connection: asyncpg.Connection) -> int:
        async with connection.transaction():
            await connection.execute(_DEAD, owner)
            await connection.execute(_GONE, owner)
            return int(await connection.fetchval("select stock_close($1, $2)", home, owner))

    return await session.run(call)


async def may_hold_orders(pool: asyncpg.Pool, but: str, seen_since: datetime) -> bool:
    """Whether an owner other than `but` (empty: nobody) has orders in its journal, or may have, not having been heard
    of since then.
    """
    return bool(await pool.fetchval(_MAY_HOLD, but or NOBODY, seen_since))


async def silent(connection: asyncpg.Connection, silent_s: float) -> int:
    """How many owners that may have orders in a journal have been silent for so long."""
    return int(await connection.fetchval(_SILENT, silent_s))


async def named(connection: asyncpg.Connection) -> list[Named]:
    """The owners that may have orders in a journal, who was silent longest first."""
    return [Named(*row) for row in await connection.fetch(_NAMED)]
