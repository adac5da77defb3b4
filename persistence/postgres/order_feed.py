"""The read model `order_feed`: orders and units created a minute, by channel, fed by the events alone.

The id of an event and its effect are stored by one statement, so an event counts once however often it comes and
however many projectors it comes to.
"""

from collections.abc import Sequence
from typing import NamedTuple

from persistence.postgres.session import Session

CONSUMER = "projector"
FORGET_ROWS = 10_000  # of one statement, so that it never holds locks for long
CLOCKS_S = 60.0

# Ids and minutes are sorted: two projectors that share rows take their locks in the same order. Minutes come as
# numbers, which cost the driver a fraction of what times do.
_APPLY = """
with event as (
    select event_id, to_timestamp(minute * 60) as minute, channel, units
    from unnest($2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::bool[])
        e(event_id, minute, channel, units, is_resent)
    where not (is_resent and to_timestamp(minute * 60) < clock_timestamp() - make_interval(secs => $7))
),
fresh as (
    insert into consumer_event (consumer, event_id) select $1, event_id from event order by event_id
    on conflict do nothing returning event_id
), fed as (
    insert into order_feed (minute, channel, orders, units)
    select minute, channel, count(*), sum(units)::bigint from event join fresh using (event_id)
    group by 1, 2 order by 1, 2
    on conflict (minute, channel) do update
    set orders = order_feed.orders + excluded.orders, units = order_feed.units + excluded.units
)
select count(*) from fresh
"""
_FORGET = """
delete from consumer_event where ctid = any(array(
    select ctid from consumer_event
    where consumer = $1 and seen_at < clock_timestamp() - make_interval(secs => $2)
    limit $3 for update skip locked))
"""


class Created(NamedTuple):
    """What the read model takes of the event of a new order: the minute since 1970 that it was created in; `is_resent`
    when it was sent again from the tables.
    """

    event_id: str
    minute: int
    channel: str
    units: int
    is_resent: bool = False


async def apply(session: Session, events: Sequence[Created], age_s: float) -> int:
    """Add the events that are new, all or none; returns how many were. `age_s` is how long ids are kept: an event that
    was sent again and is older may have been added and forgotten, and is left alone.

    Raises LedgerUnavailableError, and asyncpg.PostgresError when the server refuses.
    """
    columns = zip(*{event.event_id: event for event in events}.values(), strict=True)
    # An id was seen when its order had been placed, by clocks that differ by seconds.
    known_s = age_s - CLOCKS_S
    return int(await session.run(lambda c: c.fetchval(_APPLY, CONSUMER, *columns, known_s)))


async def forget(session: Session, age_s: float) -> int:
    """Drop the ids of events that the stream has forgotten. Returns how many: at FORGET_ROWS there may be more."""
    tag = await session.run(lambda c: c.execute(_FORGET, CONSUMER, age_s, FORGET_ROWS))
    return int(tag.rpartition(" ")[2])
