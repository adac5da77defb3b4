"""A total that changes by so many units: once per key, whatever happens at the same time; no unit is made or lost."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from persistence.postgres import housekeeping, movements, stock
from persistence.postgres.connect import open_pool
from persistence.postgres.movements import Key, Movement
from tests.ledger_world import World, draft, key_of, new_id, open_world

OTHERS = 20_000  # movements that lie about
READS = (
    "select coalesce(sum(seq_scan), 0)::bigint, coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint "
    "from pg_stat_user_tables where relname = 'stock_movement'"
)


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def adjust(
    world: World, delta: int, key: int = 1, sku: str = "TEA", if_version: int | None = None
) -> tuple[str, Movement | None]:
    return await movements.adjust(world.pool, Key(key_of(key), bytes(16)), sku, delta, "ann", "count", if_version)


async def test_adjust_asked_again_moves_units_once(world: World) -> None:
    await world.stock("TEA", 10)
    first, movement = await adjust(world, 5)
    assert (first, await adjust(world, 5)) == ("adjusted", ("replayed", movement))
    assert await world.free("TEA") == 15
    assert await world.count("stock_movement") == 2


async def test_adjust_asked_by_many_at_once_moves_units_once(world: World) -> None:
    await world.stock("TEA", 10)
    outcomes = [outcome for outcome, _ in await asyncio.gather(*(adjust(world, -6) for _ in range(8)))]
    assert sorted(outcomes) == ["adjusted", *["replayed"] * 7]
    assert await world.free("TEA") == 4


async def test_adjust_under_keys_of_their_own_adds_up(world: World) -> None:
    await world.stock("TEA", 100)
    deltas = [number if number % 2 else -number for number in range(1, 21)]
    await asyncio.gather(*(adjust(world, delta, key) for key, delta in enumerate(deltas)))
    assert await world.free("TEA") == 100 + sum(deltas)
    assert await world.value("select sum(delta) from stock_movement") == await world.value(
        "select total from stock_sku"
    )


async def test_adjust_of_many_skus_under_one_key_at_once_moves_one(world: World) -> None:
    skus = [f"SKU-{number}" for number in range(6)]
    for sku in skus:
        await world.stock(sku, 10)
    outcomes = await asyncio.gather(
        *(
            movements.adjust(world.pool, Key(key_of(1), key_of(2 + at)), sku, 1, "ann", "count", None)
            for at, sku in enumerate(skus)
        )
    )
    assert sorted(outcome for outcome, _ in outcomes) == ["adjusted", *["key_reused"] * 5]
    assert await world.value("select sum(total) from stock_sku") == 61
    assert await world.count("stock_movement") == 7


async def test_adjust_beside_orders_and_totals_makes_and_loses_no_unit(world: World) -> None:
    await world.stock("TEA", 1000, shards=4)
    owner = await world.owner()

    async def sell() -> None:
        hand = await world.take(owner, "TEA", 10)
        await world.ledger(owner).commit(new_id(), [draft((hand, 3))])
        await world.close_lease(hand)

    work = [sell() for _ in range(4)]
    moves = [adjust(world, delta, key) for key, delta in enumerate([40, -30, 7, -5])]
    await asyncio.gather(*work, *moves, stock.set_total(world.pool, "TEA", 900, 4, "bob", None, None))
    assert await world.value("select sum(delta) from stock_movement") == await world.value(
        "select total from stock_sku"
    )


async def test_adjust_up_settles_what_is_owed_first(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 10))])
    await world.pool.execute("update stock_sku set total = 4, owed = 6")
    await adjust(world, 8)
    assert (await world.value("select owed from stock_sku"), await world.free("TEA")) == (0, 2)


async def test_adjust_below_what_is_held_changes_nothing_and_keeps_no_key(world: World) -> None:
    await world.hand(units=10)
    assert await adjust(world, -1) == ("below_held", None)
    assert (await adjust(world, 1))[0] == "adjusted"


@pytest.mark.parametrize(
    ("delta", "if_version", "outcome"),
    [(5, 2, "version_mismatch"), (-11, None, "below_held"), (2**53 - 10, None, "out_of_range")],
)
async def test_adjust_that_is_refused_says_why(world: World, delta: int, if_version: int | None, outcome: str) -> None:
    await world.stock("TEA", 10)
    assert await adjust(world, delta, if_version=if_version) == (outcome, None)
    assert await world.count("stock_movement") == 1


async def test_adjust_of_a_sku_without_stock_is_not_found(world: World) -> None:
    assert await adjust(world, 5) == ("not_found", None)
    assert await world.count("stock_sku") == 0


async def test_housekeeping_forgets_the_keys_of_old_movements_and_keeps_the_movements(world: World) -> None:
    await world.stock("TEA", 10)
    await adjust(world, 1, key=1)
    await adjust(world, 1, key=2)
    await world.pool.execute(
        "update stock_movement set at = at - interval '169 hours' where key_hash = $1", key_of(1).hex()
    )
    async with world.pool.acquire() as connection:
        assert (await housekeeping.clean(connection, key_days=7))["movement_keys"] == 1
    assert await world.count("stock_movement") == 3
    assert [(await adjust(world, 1, key=key))[0] for key in (1, 2)] == ["adjusted", "replayed"]


async def test_movements_of_a_sku_that_was_busy_long_ago_are_found_without_reading_the_others(world: World) -> None:
    await world.stock("TEA", 10)
    await world.pool.execute(
        "insert into stock_movement (sku, delta, total, actor) "
        "select case when g <= $1 / 3 then 'TEA' else 'OTHER-' || g end, 1, 1, 'bob' from generate_series(1, $1) g",
        OTHERS,
    )
    await world.pool.execute("analyze stock_movement")
    pool = await open_pool(world.url, "fg-test", 1, 5.0)
    _, rows_before = await world.pool.fetchrow(READS)
    found = await movements.page(pool, "TEA", None, 3) or []
    assert [movement.sku for movement in found] == ["TEA"] * 3
    older = await movements.page(pool, "TEA", found[-1].movement_id, 3) or []
    assert [movement.movement_id for movement in older] == [found[-1].movement_id - back for back in (1, 2, 3)]
    await pool.execute("select pg_stat_force_next_flush()")
    await pool.execute("select 1")
    _, rows = await world.pool.fetchrow(READS)
    await pool.close()
    assert rows - rows_before < 20


@pytest.mark.parametrize("analyze", [False, True], ids=["stale_statistics", "fresh_statistics"])
async def test_adjust_and_list_read_only_their_own_movements(world: World, *, analyze: bool) -> None:
    await world.stock("TEA", 10)
    pool = await open_pool(world.url, "fg-test", 1, 5.0)

    async def everything(key: int) -> None:
        for _ in range(2):
            await movements.adjust(pool, Key(key_of(key), bytes(16)), "TEA", 1, "ann", "count", None)
        assert len(await movements.page(pool, "TEA", None, 3) or ()) == min(3, key + 2)

    for key in range(7):  # Until the server is content with generic plans.
        await everything(key)
    await world.pool.execute(
        "insert into stock_movement (sku, delta, total, actor, key_hash, fingerprint) "
        "select 'OTHER-' || g, 1, 1, 'bob', gen_random_uuid(), gen_random_uuid() from generate_series(1, $1) g",
        OTHERS,
    )
    if analyze:
        await world.pool.execute("analyze stock_movement")
    await pool.execute("select pg_stat_force_next_flush()")
    scans_before, rows_before = await world.pool.fetchrow(READS)
    await everything(7)
    await pool.execute("select pg_stat_force_next_flush()")
    scans, rows = await world.pool.fetchrow(READS)
    await pool.close()
    assert (scans, rows - rows_before < 20) == (scans_before, True)
