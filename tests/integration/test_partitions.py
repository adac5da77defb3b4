"""Partitions lie ahead of the clock, without gap or overlap, however often and by whomever they are made, and making
them never stops the sale.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest

from persistence.errors import LedgerUnavailableError
from persistence.postgres import partitions
from persistence.postgres.connect import connect
from tests.ledger_world import World, draft, new_id, now_ms, open_world

BOUNDS = """
select p.relname as table, pg_get_expr(c.relpartbound, c.oid) as bounds
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
where p.relkind = 'p' order by 1, 2
"""


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


@pytest.fixture
async def connection(world: World) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(world.url, "fg-partitions")
    yield connection
    await connection.close()


async def intervals(connection: asyncpg.Connection) -> dict[str, list[tuple[str, str]]]:
    """The bounds of each table's partitions, in order of time."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in await connection.fetch(BOUNDS):
        _, lower, _, upper, _ = row["bounds"].split("'")
        found.setdefault(row["table"], []).append((lower, upper))
    return {table: sorted(pairs) for table, pairs in found.items() if table in partitions.TABLES}


async def test_ensure_ahead_makes_what_is_missing_of_every_table(connection: asyncpg.Connection) -> None:
    made = await partitions.ensure_ahead(connection, 1, 5)
    assert {name.rpartition("_p")[0] for name in made} == set(partitions.TABLES)
    assert len(made) == 2 * len(partitions.TABLES)


async def test_ensure_ahead_asked_again_makes_nothing(connection: asyncpg.Connection) -> None:
    await partitions.ensure_ahead(connection, 1, 5)
    assert await partitions.ensure_ahead(connection, 1, 5) == []


async def test_ensure_ahead_by_several_at_once_makes_each_partition_once(
    world: World, connection: asyncpg.Connection
) -> None:
    others = [await connect(world.url, "fg-partitions") for _ in range(3)]
    made = await asyncio.gather(*(partitions.ensure_ahead(other, 1, 5) for other in (connection, *others)))
    for other in others:
        await other.close()
    names = [name for part in made for name in part]
    assert len(names) == len(set(names)) == 2 * len(partitions.TABLES)


async def test_ensure_ahead_with_another_width_leaves_neither_gap_nor_overlap(connection: asyncpg.Connection) -> None:
    await partitions.ensure_ahead(connection, 7, 2)
    await partitions.ensure_ahead(connection, 2, 12)
    for pairs in (await intervals(connection)).values():
        assert all(one[1] == other[0] for one, other in itertools.pairwise(pairs))


async def test_ensure_back_lays_partitions_of_orders_before_the_first_without_gap(
    connection: asyncpg.Connection,
) -> None:
    wanted_ms = now_ms() - 9 * partitions.DAY_MS
    await partitions.ensure_back(connection, 2, wanted_ms)
    assert await partitions.ensure_back(connection, 2, wanted_ms) == []
    assert max((await partitions.starts(connection)).values()) <= wanted_ms
    for pairs in (await intervals(connection)).values():
        assert all(one[1] == other[0] for one, other in itertools.pairwise(pairs))


async def test_ensure_ahead_covers_yesterday_and_today(connection: asyncpg.Connection) -> None:
    today = partitions.floor_of(now_ms() // partitions.DAY_MS * partitions.DAY_MS)
    for pairs in (await intervals(connection)).values():
        assert pairs[0][0] < today
        assert pairs[-1][1] > today


async def test_ensure_ahead_completes_a_partition_that_was_left_half_made(connection: asyncpg.Connection) -> None:
    end = (await partitions.ends(connection))["orders"]
    await partitions.ensure_ahead(connection, 1, 4)
    name = await connection.fetchval(
        "select max(inhrelid::regclass::text) from pg_inherits where inhparent = 'orders'::regclass"
    )
    await connection.execute(f"alter table orders detach partition {name}")
    await partitions.ensure_ahead(connection, 1, 4)
    assert (await partitions.ends(connection))["orders"] == end + partitions.DAY_MS


async def test_ensure_ahead_leaves_no_constraint_that_every_row_would_pay_for(connection: asyncpg.Connection) -> None:
    await partitions.ensure_ahead(connection, 1, 5)
    assert await connection.fetchval("select count(*) from pg_constraint where conname like '%bounds'") == 0


async def test_ensure_ahead_beside_a_long_reader_lets_commits_through(
    world: World, connection: asyncpg.Connection
) -> None:
    """A report that has read everything stays open; neither it nor the new partition makes a commit wait."""
    async with world.pool.acquire() as reader, reader.transaction():
        await reader.fetch("select count(*) from orders, order_lines, order_history, order_key, batch")
        making = asyncio.create_task(partitions.ensure_ahead(connection, 1, 6))
        lane = world.ledger(command_timeout_s=2.0)
        while not making.done():
            assert await lane.commit(new_id(), [draft()]) == []
        assert len(await making) == 3 * len(partitions.TABLES)


async def test_ensure_ahead_that_gets_no_lock_is_unavailable(
    world: World, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "ATTACH_LOCK_TIMEOUT_MS", 10)
    monkeypatch.setattr(partitions, "ATTACH_TRIES", 2)
    async with world.pool.acquire() as other, other.transaction():
        await other.execute("lock table batch in share update exclusive mode")
        with pytest.raises(LedgerUnavailableError):
            await partitions.ensure_ahead(connection, 1, 5)
    assert await partitions.ensure_ahead(connection, 1, 5) != []


async def test_commit_into_a_new_partition_stores_the_order(world: World, connection: asyncpg.Connection) -> None:
    await partitions.ensure_ahead(connection, 1, 5)
    later = now_ms() + 5 * partitions.DAY_MS
    order_id = later.to_bytes(6, "big") + new_id()[6:]
    assert await world.ledger().commit(new_id(), [draft(order_id=order_id)]) == []
    assert await world.order_ids() == {order_id}
