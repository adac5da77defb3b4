"""Levels of stock in the ledger: each change is decided once and in order, whatever moves units at the same time, and
SKUs at rest are not looked at.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres import levels, stock
from persistence.postgres.connect import connect
from tests.ledger_world import Hand, World, draft, new_id, open_world

LOW = 10
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
READ = "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = $1"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def decide(world: World, low: int = LOW, limit: int = 1000) -> int:
    """A whole pass of a steward that knows nothing of former ones. Returns how many events it made."""
    session, made = world.session("fg-steward"), 0
    after: str | None = ""
    while after is not None:
        after, events = await levels.decide(session, low, after, limit)
        made += events
    await session.close()
    return made


async def told(world: World, sku: str = "TEA") -> list[tuple[int, str, str, str, int]]:
    """The SKU's events: version, event, previous level, level, units."""
    rows = await world.pool.fetch(
        "select version, event, previous, level, available from stock_event where sku = $1 order by version", sku
    )
    return [tuple(row) for row in rows]


async def on_watch(world: World) -> set[str]:
    return {row["sku"] for row in await world.pool.fetch("select sku from stock_watch")}


async def sell(world: World, units: int, sku: str = "TEA") -> None:
    """Take exactly these units and commit an order for them: the lease is closed at once."""
    hand = await world.take(await world.owner(), sku, units)
    assert await world.ledger(await world.owner_of(hand)).commit(new_id(), [draft((hand, units))]) == []


async def test_decide_stock_that_is_plenty_says_nothing_and_lets_it_rest(world: World) -> None:
    await world.stock("TEA", 100)
    assert await on_watch(world) == {"TEA"}
    assert await decide(world) == 0
    assert await on_watch(world) == set()


async def test_decide_units_that_dwindle_are_low_then_sold_out(world: World) -> None:
    await world.stock("TEA", 12)
    for units in (1, 1, 2, 8):
        await sell(world, units)
        await decide(world)
    assert await told(world) == [(1, "low", "in_stock", "low", 10), (2, "sold_out", "low", "sold_out", 0)]


async def test_decide_sku_sold_out_in_one_go_between_two_passes_is_told(world: World) -> None:
    await world.stock("TEA", 40)
    await decide(world)
    assert await on_watch(world) == set()
    await sell(world, 40)
    assert await world.count("stock_lease where state = 'active'") == 0
    await decide(world)
    assert await told(world) == [(1, "sold_out", "in_stock", "sold_out", 0)]


async def test_decide_sku_sold_out_from_a_lease_that_a_former_steward_saw_is_told(world: World) -> None:
    await world.stock("TEA", 40)
    hand = await world.take(await world.owner(), "TEA", 40)
    assert await decide(world) == 0
    await world.ledger(await world.owner_of(hand)).commit(new_id(), [draft((hand, 40))])
    await decide(world)
    assert await told(world) == [(1, "sold_out", "in_stock", "sold_out", 0)]


async def test_decide_units_in_hands_are_unsold(world: World) -> None:
    hand = await world.hand(units=40)
    assert await world.free("TEA") == 0
    assert await decide(world) == 0
    await world.close_lease(hand)
    assert await decide(world) == 0


async def test_decide_new_stock_without_units_is_sold_out(world: World) -> None:
    await world.stock("TEA", 0)
    await decide(world)
    assert await told(world) == [(1, "sold_out", "in_stock", "sold_out", 0)]


@pytest.mark.parametrize(("units", "level"), [(1, "low"), (10, "low"), (11, "in_stock")])
async def test_decide_units_that_come_back_to_a_sold_out_sku_are_back_in_stock(
    world: World, units: int, level: str
) -> None:
    await world.stock("TEA", 0)
    await decide(world)
    await world.stock("TEA", units)
    await decide(world)
    assert (await told(world))[1:] == [(2, "back_in_stock", "sold_out", level, units)]


async def test_decide_sku_that_is_low_no_longer_says_nothing(world: World) -> None:
    await world.stock("TEA", 5)
    await decide(world)
    await world.stock("TEA", 50)
    assert await decide(world) == 0
    assert await world.value("select level from stock_level") == "in_stock"
    await world.stock("TEA", 4)
    await decide(world)
    assert await told(world) == [(1, "low", "in_stock", "low", 5), (2, "low", "in_stock", "low", 4)]


async def test_decide_low_at_no_units_is_never_said(world: World) -> None:
    await world.stock("TEA", 1)
    assert await decide(world, low=0) == 0


async def test_decide_without_a_change_says_nothing_again(world: World) -> None:
    await world.stock("TEA", 0)
    assert [await decide(world) for _ in range(3)] == [1, 0, 0]
    assert await on_watch(world) == set()


async def test_decide_in_pieces_reaches_every_sku(world: World) -> None:
    for number in range(7):
        await world.stock(f"TEA-{number}", 0)
    assert await decide(world, limit=3) == 7


async def test_decide_by_several_at_once_tells_each_change_once(world: World) -> None:
    skus = [f"TEA-{number}" for number in range(20)]
    for sku in skus:
        await world.stock(sku, 3)
    for units in (0, 50, 5, 0):
        for sku in skus:
            await world.stock(sku, units)
        made = await asyncio.gather(*(decide(world) for _ in range(6)))
        # Levels that one steward holds are passed over by the others.
        assert sum(made) + await decide(world) == len(skus)
    for sku in skus:
        assert [(version, event) for version, event, *_ in await told(world, sku)] == [
            (1, "sold_out"),
            (2, "back_in_stock"),
            (3, "low"),
            (4, "sold_out"),
        ]


async def test_decide_while_units_are_sold_and_come_back_ends_with_what_is_so(world: World) -> None:
    await world.stock("TEA", 40, shards=4)
    done = asyncio.Event()

    async def steward() -> None:
        while not done.is_set():
            await decide(world)

    async def trade(home: int) -> None:
        owner, session = await world.owner(), world.session(f"fg-trade-{home}")
        for _ in range(40):
            (taken,) = await stock.take(session, owner, home, [stock.Want(new_id(), "TEA", 10, 10)])
            if taken.units:
                await world.ledger(owner).commit(new_id(), [draft((Hand(taken.lease, "TEA", 10), 10))])
                await world.pool.execute("select stock_return($1, '{TEA}', '{10}')", home)
                # What came back was sold: it is new stock.
                await world.pool.execute("update stock_sku set total = total + 10 where sku = 'TEA'")
        await session.close()

    stewards = [asyncio.create_task(steward()) for _ in range(2)]
    await asyncio.gather(*(trade(home) for home in range(3)))
    done.set()
    await asyncio.gather(*stewards)
    await world.pool.execute("update stock_sku set total = total - 40 where sku = 'TEA'")
    await world.pool.execute("update stock_shard set free = 0, version = version + 1 where sku = 'TEA'")
    await decide(world)
    events = await told(world)
    assert [version for version, *_ in events] == list(range(1, len(events) + 1))
    assert events[-1][1:] == ("sold_out", events[-1][2], "sold_out", 0)
    for before, after in itertools.pairwise(events):
        assert after[2] == before[3] or (before[3], after[2]) == ("low", "in_stock")


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection whose transactions a test holds open."""
    connection = await connect(postgres_url, "test")
    yield connection
    await connection.close()


async def test_decide_beside_units_that_are_coming_back_is_put_right_afterwards(
    world: World, other: asyncpg.Connection
) -> None:
    await world.stock("TEA", 5)
    await sell(world, 5)
    async with other.transaction():
        await other.execute("select stock_return(0, '{TEA}', '{5}')")
        assert [await decide(world) for _ in range(3)] == [1, 0, 0]
        assert await on_watch(world) == {"TEA"}
        await other.execute("update stock_sku set total = total + 5 where sku = 'TEA'")
    await decide(world)
    assert [event for _, event, *_ in await told(world)] == ["sold_out", "back_in_stock"]


async def test_decide_beside_a_take_under_way_keeps_the_sku_on_watch(world: World, other: asyncpg.Connection) -> None:
    await world.stock("TEA", 5)
    owner, lease = await world.owner(), new_id()
    async with other.transaction():
        await other.fetch("select stock_take($1, 0, $2, '{TEA}', '{5}', '{5}')", owner, [UUID(lease)])
        await decide(world)
        await decide(world)
        assert await on_watch(world) == {"TEA"}
    await world.ledger(owner).commit(new_id(), [draft((Hand(lease, "TEA", 5), 5))])
    await decide(world)
    assert [event for _, event, *_ in await told(world)] == ["low", "sold_out"]


async def test_take_while_a_steward_lets_the_sku_rest_waits_and_is_on_watch(
    world: World, other: asyncpg.Connection
) -> None:
    await world.stock("TEA", 50)
    async with other.transaction():
        await other.fetch("select stock_decide($1, '', 10)", LOW)
        taking = asyncio.create_task(world.take(await world.owner(), "TEA", 50))
        await world.until(WAITING, 1)
    await taking
    assert await on_watch(world) == {"TEA"}


async def test_take_while_there_is_plenty_puts_nothing_on_watch(world: World) -> None:
    await world.stock("TEA", 3000)
    hand = await world.take(await world.owner(), "TEA", 100)
    await decide(world)
    assert await on_watch(world) == set()
    await world.take(await world.owner_of(hand), "TEA", 500)
    assert await on_watch(world) == set()


async def test_take_that_leaves_few_free_units_is_on_watch_while_it_is_sold_from(world: World) -> None:
    await world.stock("TEA", 100)
    await decide(world)
    await world.take(await world.owner(), "TEA", 90)
    assert await decide(world) == 0
    assert await on_watch(world) == {"TEA"}


async def test_decide_that_is_held_up_after_its_look_looks_again_before_it_lets_a_sku_rest(
    world: World, other: asyncpg.Connection
) -> None:
    await world.stock("TEA", 50)
    await world.stock("CUP", 0)
    async with other.transaction():
        await other.execute("insert into stock_level (sku, level, version) values ('CUP', 'in_stock', 0)")
        deciding = asyncio.create_task(decide(world))
        await world.until(WAITING, 1)
        await world.take(await world.owner(), "TEA", 50)
    assert await deciding == 1
    assert "TEA" in await on_watch(world)


@pytest.mark.parametrize("low", [500, 5000])
async def test_decide_by_a_high_mark_tells_units_that_dwindle_in_hands(world: World, low: int) -> None:
    await world.stock("TEA", low + 2000)
    hand = await world.take(await world.owner(), "TEA", 2100)
    assert await decide(world, low) == 0
    await world.ledger(await world.owner_of(hand)).commit(new_id(), [draft((hand, 2000))])
    await decide(world, low)
    assert await told(world) == [(1, "low", "in_stock", "low", low)]


async def test_decide_leaves_a_hundred_thousand_skus_at_rest_alone(world: World) -> None:
    async with world.pool.acquire() as connection, connection.transaction():
        await connection.execute("set local session_replication_role = replica")  # as if they had been looked at
        await connection.execute(
            "insert into stock_sku (sku, total, shards) select 'S-' || g, 0, 1 from generate_series(1, 100000) g"
        )
        await connection.execute("insert into stock_shard (sku, shard, free) select sku, 0, 0 from stock_sku")
        await connection.execute(
            "insert into stock_level (sku, level, version) select sku, 'sold_out', 1 from stock_sku"
        )
    await world.hand("TEA", 50)
    await decide(world)
    connection = await connect(world.url, "test")

    async def rows_read() -> int:
        await connection.execute("select pg_stat_force_next_flush()")
        tables = ("stock_sku", "stock_shard", "stock_level", "stock_lease", "stock_watch")
        return sum([await connection.fetchval(READ, table) for table in tables])

    before = await rows_read()
    for _ in range(10):
        await connection.fetch("select stock_decide($1, '', 1000)", LOW)
    read = await rows_read() - before
    await connection.close()
    assert 10 <= read < 1000


async def claimed(world: World, *, fails: bool) -> list[levels.LevelChange]:
    """What a steward claims. When it `fails` it has not removed it."""
    connection = await connect(world.url, "test")
    try:
        async with levels.claim(connection, 100) as changes:
            if not fails:
                await levels.remove(connection, changes)
    finally:
        await connection.close()
    return changes


async def test_claim_gives_what_was_not_removed_again(world: World) -> None:
    await world.stock("A", 0)
    await world.stock("B", 3)
    await decide(world)
    first = await claimed(world, fails=True)
    assert [(change.sku, change.version, change.event, change.available) for change in first] == [
        ("A", 1, "sold_out", 0),
        ("B", 1, "low", 3),
    ]
    assert await claimed(world, fails=False) == first
    assert await claimed(world, fails=False) == []


async def test_claim_of_two_at_once_gives_each_change_to_one(world: World, other: asyncpg.Connection) -> None:
    await world.stock("A", 0)
    await decide(world)
    async with levels.claim(other, 100) as changes:
        assert len(changes) == 1
        assert await claimed(world, fails=True) == []


async def test_available_counts_free_units_and_units_in_hands(world: World) -> None:
    await world.stock("TEA", 40, shards=4)
    await world.stock("CUP", 0)
    await sell(world, 3)
    await world.take(await world.owner(), "TEA", 7)
    assert await levels.available(world.pool, ["TEA", "CUP", "nothing"]) == {"TEA": 37, "CUP": 0}
