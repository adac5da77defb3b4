"""Where stock pinches, as the workers tell with their heartbeats, and in whose hands the units of a SKU are. For people
who look; nothing is decided on it.
"""

from typing import NamedTuple

import asyncpg

SEEN_S = 5.0  # a worker that has been silent for longer tells nothing

_PINCHES = """
select p.key as sku,
    sum((p.value ->> 0)::float / w.pinch_s) as refills_per_s,
    sum((p.value ->> 1)::float / w.pinch_s) as refused_per_s,
    sum((p.value ->> 2)::bigint)::bigint as parked
from worker w cross join lateral jsonb_each(w.pinch) p join stock_sku k on k.sku = p.key
where w.state = 'alive' and w.seen_at > clock_timestamp() - make_interval(secs => $1)
    and ($3::text is null or p.key = $3)
group by p.key order by refused_per_s desc, parked desc, refills_per_s desc, p.key limit $2
"""
_HANDS = """
select l.owner::text as owner, w.host, w.pid, sum(l.units - l.used)::bigint as units
from stock_lease l join worker w on w.owner = l.owner
where l.sku = $1 and l.state <> 'closed'
group by l.owner, w.host, w.pid having sum(l.units - l.used) > 0 order by units desc, l.owner
"""


class Pinched(NamedTuple):
    """A stock key over all workers: refills and orders refused per second, and orders that wait for units."""

    sku: str
    refills_per_s: float = 0.0
    refused_per_s: float = 0.0
    parked: int = 0


class Hand(NamedTuple):
    """Unsold units that an owner holds."""

    owner: str
    host: str
    pid: int
    units: int


async def worst(pool: asyncpg.Pool, limit: int) -> list[Pinched]:
    """Where it pinches most: refused orders first, then parked ones, then refills. Only SKUs that have stock."""
    return [Pinched(*row) for row in await pool.fetch(_PINCHES, SEEN_S, limit, None)]


async def of(pool: asyncpg.Pool, sku: str) -> Pinched:
    """How it stands with one stock key."""
    rows = await pool.fetch(_PINCHES, SEEN_S, 1, sku)
    return Pinched(*rows[0]) if rows else Pinched(sku)


async def hands(pool: asyncpg.Pool, sku: str) -> list[Hand]:
    """In whose hands the unsold units of a stock key are, most first."""
    return [Hand(*row) for row in await pool.fetch(_HANDS, sku)]
