"""The end of orders that nobody has paid in time, and the steps of the ledger's clock that must not bring it early
(sql/0014_lifecycle.sql).

Any number may do this at once: an order ends once, by whoever gets its row, or is paid by whoever gets it first.
"""

import datetime as dt
import time
from typing import NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres.control import Reading
from persistence.postgres.orders import to_ms

_EXPIRE = "select order_ids, versions, at, skus from order_expire($1, $2, $3, $4, $5, $6)"
_LOOK = "select clock_timestamp() as now, (select coalesce(max(step), 0) from clock_step) as steps"
_LOOKED = "select ledger_time, asked, answered, steps from clock_look where boot = $1"
_KEEP = """
insert into clock_look as l (boot, ledger_time, asked, answered, steps) values ($1, $2, $3, $4, $5)
on conflict (boot) do update
set ledger_time = excluded.ledger_time, asked = excluded.asked, answered = excluded.answered, steps = excluded.steps
where l.asked < excluded.asked
"""
_STEPPED = "select news, step from clock_stepped($1, $2, $3)"


class Expired(NamedTuple):
    """Orders that have ended at `at_ms`: (id, version that this made) in the order of their ids. `skus` are the stock
    keys whose units are free again.
    """

    orders: list[tuple[bytes, int]]
    at_ms: int
    skus: list[str]


class Look(NamedTuple):
    """At the ledger's clock. `steps` is the number of the last step that was noted by then."""

    reading: Reading
    steps: int


async def expire(
    connection: asyncpg.Connection, until_s: float, most: int, skip: int, home: int, batch_id: bytes, actor: str
) -> Expired | None:
    """End up to `most` orders that were due at `until_s` by the ledger's clock (seconds since 1970), those first that
    have been so for longest, but for the first `skip`; None when there are none. Their units go back to the home
    shards; their events wait in the outbox under `batch_id`. All of them end or none: raises what the driver does.
    """
    row = await connection.fetchrow(_EXPIRE, _moment(until_s), most, skip, home, UUID(batch_id), actor)
    if row is None:
        return None
    orders = [(order_id.bytes, version) for order_id, version in zip(row["order_ids"], row["versions"], strict=True)]
    return Expired(orders, to_ms(row["at"]) or 0, row["skus"])


async def look_at_clock(connection: asyncpg.Connection) -> Look:
    """By a statement that waits for no lock and no disk: the narrower the reading, the better."""
    asked_at = time.monotonic()
    row = await connection.fetchrow(_LOOK)
    return Look(Reading(row["now"].timestamp(), asked_at, time.monotonic()), row["steps"])


async def last_look(connection: asyncpg.Connection, boot: str) -> Look | None:
    """The last one that was kept since this host has been up."""
    row = await connection.fetchrow(_LOOKED, boot)
    if row is None:
        return None
    return Look(Reading(row["ledger_time"].timestamp(), row["asked"], row["answered"]), row["steps"])


async def keep_look(connection: asyncpg.Connection, boot: str, look: Look) -> None:
    """For whoever is started on this host, until it is booted again."""
    reading, steps = look
    moment = _moment(reading.ledger_time_s)
    await connection.execute(_KEEP, boot, moment, reading.asked_at, reading.answered_at, steps)


async def note_step(connection: asyncpg.Connection, known: int, at_s: float, ahead_s: float) -> tuple[float, int]:
    """The ledger's clock was put forward by `ahead_s`, as was noticed at `at_s` of it (seconds since 1970). Returns how
    much of that is news, since steps after number `known` are a part of it, and the number of the last step by now.
    """
    row = await connection.fetchrow(_STEPPED, known, _moment(at_s), dt.timedelta(seconds=ahead_s))
    return row["news"].total_seconds(), row["step"]


def _moment(at_s: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_s, dt.UTC)
