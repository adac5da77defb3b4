"""The control connection's statements: who is alive, what became of a batch in doubt, and which committers hang.

Nothing here moves units except through the functions in `stock`. Every statement is safe when two processes run it at
once.
"""

import datetime as dt
import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from persistence.errors import OwnerNotAliveError
from persistence.postgres.ledger import COMMIT_NAME
from persistence.postgres.session import Session

# A committer's transaction older than this is ended: no time-out of the server ends a backend stopped inside COPY.
HUNG_S = 10

_REAP = """
select pg_terminate_backend(pid) from pg_stat_activity
where application_name like $1 || '%' and xact_start < clock_timestamp() - make_interval(secs => $2)
"""
_BEAT = """
update worker set seen_at = clock_timestamp(), pinch = $2, journal_records = $4,
    pinch_s = greatest(extract(epoch from clock_timestamp() - seen_at), $3)
where owner = $1 and state = 'alive'
returning exists (select from worker o where o.journal is not null and o.state = 'alive' and o.owner <> $1
    and (o.journal_records > 0 or o.seen_at < $5) and o.seen_at > clock_timestamp() - make_interval(secs => $6))
"""
_STILL_ACTIVE = "select lease_id from stock_lease where lease_id = any($1::uuid[]) and state = 'active'"
# Compared as a row and ordered by both, so that only the index of the owners' leases answers it in order: with the
# owner alone a walk of the primary key would do, too, which is that of everybody's leases, closed ones among them.
_ACTIVE_AFTER = """
select lease_id from stock_lease
where (owner, lease_id) > ($1::uuid, $2::uuid) and owner <= $1::uuid and state = 'active'
order by owner, lease_id limit $3
"""
_LEFT = """
update worker set state = 'left', journal = null, journal_records = 0 where owner = $1 and state = 'alive'
"""
_SILENT = """
update worker set state = 'dead'
where state = 'alive' and seen_at < clock_timestamp() - make_interval(secs => $1) and journal is null
returning owner::text
"""
_STRANDED = """
select distinct l.owner::text from stock_lease l left join worker w on w.owner = l.owner
where l.state = 'active' and (w.owner is null or w.state <> 'alive') and (w.owner is null or w.journal is null)
"""


# How long an owner that has fallen silent, or has said that there are orders in its journal, keeps others from saying
# what only holds for keys that nobody knows. By then somebody has been called to look after it.
HELD_S = 600.0


class Reading(NamedTuple):
    """PostgreSQL's clock said `ledger_time_s` (since 1970) between two moments of this host's monotonic clock."""

    ledger_time_s: float
    asked_at: float
    answered_at: float


class Beat(NamedTuple):
    """What a heartbeat is answered. `others_may_hold`: another owner may have orders in its journal, so that a key
    which the ledger does not know may have an order all the same.
    """

    reading: Reading
    others_may_hold: bool


async def register(session: Session, owner: str, host: str, pid: int, lane: int, journal: str | None = None) -> None:
    """Make `owner` known before its first lease, with the journal that it may have orders in. Asked again, it changes
    nothing: an owner declared dead stays dead.
    """
    statement = """
    insert into worker (owner, host, pid, lane, journal) values ($1, $2, $3, $4, $5) on conflict (owner) do nothing
    """
    await session.run(lambda c: c.execute(statement, owner, host, pid, lane, journal))


async def name_journal(session: Session, owner: str, journal: str | None) -> None:
    """From now on the owner may have orders in this journal; None: in none, and it has none there."""
    statement = "update worker set journal = $2, journal_records = 0 where owner = $1 and state = 'alive'"
    await session.run(lambda c: c.execute(statement, owner, journal))


async def heartbeat(
    session: Session,
    owner: str,
    pinch: Mapping[str, tuple[int, int, int]] | None = None,
    every_s: float = 1.0,
    journal_records: int = 0,
    heard_since_s: float = 0.0,
) -> Beat:
    """Say that `owner` lives, how many orders its journal has, and where stock pinches: stock key -> refills and orders
    refused since the last heartbeat, one of which comes every `every_s`, and orders parked now. Who has a journal and
    has not been heard of since `heard_since_s` (seconds since 1970) may have orders there.

    Raises OwnerNotAliveError once the owner has been declared dead: it has to drop its till and go on under a new id.
    """
    told = msgspec.json.encode(pinch).decode() if pinch else None

    since = dt.datetime.fromtimestamp(heard_since_s, dt.UTC)

    async def call(connection: asyncpg.Connection) -> Beat:
        reading = await read_clock(connection)
        held = await connection.fetchval(_BEAT, owner, told, every_s, journal_records, since, HELD_S)
        if held is None:
            raise OwnerNotAliveError(owner)
        return Beat(reading, held)

    return await session.run(call)


async def still_active(session: Session, leases: Iterable[bytes]) -> set[bytes]:
    """Those of these leases that the ledger counts as active. It costs the leases named."""
    ids = [UUID(lease) for lease in leases]
    rows = await session.run(lambda c: c.fetch(_STILL_ACTIVE, ids))
    return {row["lease_id"].bytes for row in rows}


async def active_after(session: Session, owner: str, lease: bytes, leases_max: int) -> list[bytes]:
    """The owner's active leases with ids above `lease`, in order, `leases_max` at most. It costs those, however many
    the owner has.
    """
    rows = await session.run(lambda c: c.fetch(_ACTIVE_AFTER, owner, UUID(lease), leases_max))
    return [row["lease_id"].bytes for row in rows]


async def read_clock(connection: asyncpg.Connection) -> Reading:
    """PostgreSQL's clock, by a statement that waits for no lock and no disk: the narrower the reading, the better."""
    asked_at = time.monotonic()
    read = await connection.fetchval("select clock_timestamp()")
    return Reading(read.timestamp(), asked_at, time.monotonic())


async def leave(session: Session, owner: str, home: int) -> int:
    """Close the owner's leases and take it off the list. Returns the units that went back."""

    async def call(connection: asyncpg.Connection) -> int:
        async with connection.transaction():
            await connection.execute(_LEFT, owner)
            return int(await connection.fetchval("select stock_close($1, $2)", home, owner))

    return await session.run(call)


async def reap(session: Session) -> int:
    """End every committer whose transaction is older than HUNG_S. Returns how many."""
    return len(await session.run(lambda c: c.fetch(_REAP, COMMIT_NAME, HUNG_S)))


async def resolve(session: Session, batch_id: bytes, backend_pid: int, owner: str) -> bool:
    """What became of a batch whose COMMIT was not answered: True = committed, False = fenced, and it can never be
    committed any more.

    However often and by whomever this is asked, the answer is the same. The old backend is ended first; the INSERT
    waits for whatever it was doing.
    """

    async def call(connection: asyncpg.Connection) -> bool:
        await connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid = $1 and application_name = $2",
            backend_pid,
            COMMIT_NAME + owner,
        )
        await connection.execute(
            "insert into batch (batch_id, outcome) values ($1, 'fenced') on conflict do nothing", UUID(batch_id)
        )
        outcome = await connection.fetchval("select outcome from batch where batch_id = $1", UUID(batch_id))
        assert outcome in {"committed", "fenced"}, outcome
        return bool(outcome == "committed")

    return await session.run(call)


async def bury(session: Session, timeout_s: float) -> list[str]:
    """Declare silent owners dead, end their committers, close their leases. Returns the owners whose leases were
    closed.

    The caller answers for having seen PostgreSQL without a break for longer than `timeout_s`: after an outage everybody
    has been silent. Owners with a journal are left to whoever holds and has replayed it.
    """

    async def call(connection: asyncpg.Connection) -> list[str]:
        await connection.fetch(_SILENT, timeout_s)
        owners = [row["owner"] for row in await connection.fetch(_STRANDED)]
        for owner in owners:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = $1",
                COMMIT_NAME + owner,
            )
            await connection.fetchval("select stock_close($1, $2)", 0, owner)
        return owners

    return await session.run(call)
