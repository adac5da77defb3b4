"""The plans of the statements that hold locks: they walk primary keys, and in their order, whatever the tables held
when the connection made its plans.

A plan is judged by what it reads, as PostgreSQL counts it: a full walk of an index is no better than a sequential scan.
Leases of all ages lie about, and a committer's connection is older than most of them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres import control, stock
from persistence.postgres.ledger import Entry, Ledger
from tests.ledger_world import Hand, World, draft, key_of, new_id, open_world

OTHERS = 20_000  # leases that lie about
READS = """
select coalesce(sum(seq_scan), 0)::bigint, coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::bigint
from pg_stat_user_tables where relname in ('stock_lease', 'idempotency_key', 'stock_shard', 'stock_sku', 'buyer_taken')
"""
FLUSH = "select pg_stat_force_next_flush()"
ORDERS = 20
PIECE = 50  # leases of one comparison
HELD = 3  # of the hands, in the order of their leases
HOLD = "select from stock_lease where lease_id = $1 for no key update"
FREE = "select lease_id from stock_lease where lease_id = any($1) order by lease_id for no key update skip locked"
WAITING = "select count(*) from pg_stat_activity where application_name like 'fg-commit:%' and wait_event_type = 'Lock'"


@pytest.fixture(params=[True, False], ids=["pipelined", "stepwise"])
async def world(postgres_url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Once for each way that a batch can go."""
    async with open_world(postgres_url, pipelined=request.param) as world:
        yield world
        await world.assert_clean()


async def crowd(world: World, *, analyze: bool) -> None:
    """Leases, used up ones and active ones, and what others have taken, of other SKUs and of the same."""
    await world.pool.execute(
        "insert into stock_lease (lease_id, owner, sku, units, used, state) "
        "select gen_random_uuid(), gen_random_uuid(), 'OTHER-' || g, 5, 5, "
        "case g % 2 when 0 then 'active' else 'closed' end from generate_series(1, $1) g",
        OTHERS,
    )
    await world.pool.execute(
        "insert into buyer_taken select sku, 'u-' || g, 0 from unnest(array['SKU-0', 'OTHER']) sku, "
        "generate_series(1, $1 / 2) g",
        OTHERS,
    )
    if analyze:
        await world.pool.execute("analyze")


async def test_commit_planned_on_an_empty_table_reads_only_its_own_rows_of_a_full_one(world: World) -> None:
    hands = [await world.hand(f"SKU-{number}", 1000) for number in range(5)]
    lane = world.ledger()
    await lane.commit(new_id(), mixture(hands))  # Makes the plans, of every branch.
    await crowd(world, analyze=False)
    assert await rows_of_commit(world, lane, mixture(hands)) < 100 * ORDERS


async def test_commit_planned_on_a_full_table_reads_only_its_own_rows(world: World) -> None:
    hands = [await world.hand(f"SKU-{number}", 1000) for number in range(5)]
    await crowd(world, analyze=True)
    lane = world.ledger()
    await lane.commit(new_id(), mixture(hands))
    assert await rows_of_commit(world, lane, mixture(hands)) < 100 * ORDERS


@pytest.mark.parametrize("analyze", [False, True], ids=["stale_statistics", "fresh_statistics"])
async def test_commit_locks_its_leases_in_their_order(world: World, *, analyze: bool) -> None:
    """It waits for one of them: those before it are locked by then, and those behind it are not."""
    hands = sorted([await world.hand(f"SKU-{number}", 1000) for number in range(2 * HELD + 1)], key=lambda h: h.lease)
    leases = [UUID(hand.lease) for hand in hands]
    lane = world.ledger()
    orders = [draft((hand, 1)) for hand in reversed(hands)]
    await lane.commit(new_id(), orders)  # Makes the plans.
    await crowd(world, analyze=analyze)
    async with world.pool.acquire() as holder, asyncio.timeout(30):
        held = holder.transaction()
        await held.start()
        await holder.execute(HOLD, leases[HELD])
        committing = asyncio.create_task(lane.commit(new_id(), [draft((hand, 1)) for hand in reversed(hands)]))
        while not await world.value(WAITING):
            await asyncio.sleep(0.01)
        assert [row[0] for row in await world.pool.fetch(FREE, leases)] == leases[HELD + 1 :]
        await held.rollback()
        assert await committing == []


async def test_commit_without_limits_does_not_look_at_what_buyers_have_taken(world: World) -> None:
    hands = [await world.hand(f"SKU-{number}", 1000) for number in range(5)]
    lane = world.ledger()
    await lane.commit(new_id(), [draft((hand, 1)) for hand in hands])
    looked = "select seq_scan + idx_scan + n_tup_ins from pg_stat_user_tables where relname = 'buyer_taken'"
    await rows_of_commit(world, lane, [draft((hand, 1)) for hand in hands])
    assert await world.value(looked) == 0


@pytest.mark.parametrize("analyze", [False, True], ids=["stale_statistics", "fresh_statistics"])
async def test_cancel_reads_only_its_own_rows(world: World, *, analyze: bool) -> None:
    hand = await world.hand("SKU-0", 1000)
    orders = [draft((hand, 1), customer="new", limit=1000) for _ in range(8)]
    for order in orders:
        await world.ledger().commit(new_id(), [order])
    for order in orders[:-1]:  # Until the server is content with generic plans.
        await cancel_in_session(world, order)
    await crowd(world, analyze=analyze)
    assert await rows_of_session(world, lambda: cancel_in_session(world, orders[-1])) < 20


async def cancel_in_session(world: World, order: Entry) -> None:
    statement = "select outcome from order_cancel($1, 1, null, 0, 'client:1', 'r', null, $2)"
    arguments = (UUID(order.order_id), UUID(new_id()))
    assert await world.control.run(lambda c: c.fetchval(statement, *arguments)) == "cancelled"


def mixture(hands: list[Hand]) -> list[Entry]:
    """Orders that are new, duplicates (from the second time on), and fenced."""
    missing = Hand(bytes(16), "SKU-0", 1)
    new = [draft((hands[number % 5], 1), (hands[(number + 1) % 5], 1)) for number in range(ORDERS)]
    limited = [draft((hands[0], 1), (hands[1], 1), customer=f"new-{number}", limit=5) for number in range(ORDERS)]
    refused = [draft((hands[0], 6), customer="greedy", limit=5), draft((missing, 1), customer="unlucky", limit=5)]
    return [*new, *limited, *refused, draft(key=key_of(0)), draft((missing, 1))]


async def rows_of_commit(world: World, lane: Ledger, entries: list[Entry]) -> int:
    async def flush() -> None:
        assert lane._connection is not None
        await lane._connection.execute(FLUSH)

    return await rows_read(world, flush, lambda: lane.commit(new_id(), entries))


async def rows_of_session(world: World, call: Callable[[], Awaitable[object]]) -> int:
    return await rows_read(world, lambda: world.control.run(lambda c: c.execute(FLUSH)), call)


async def rows_read(world: World, flush: Callable[[], Awaitable[object]], call: Callable[[], Awaitable[object]]) -> int:
    """The rows of the stock and of the keys that a call reads; none of them by a sequential scan."""
    for prepared in [await world.pool.acquire() for _ in range(world.pool.get_size())]:
        await prepared.execute(FLUSH)  # Else what was read for the test itself is counted late.
        await world.pool.release(prepared)
    await flush()
    scans_before, rows_before = await world.pool.fetchrow(READS)
    await call()
    await flush()
    scans, rows = await world.pool.fetchrow(READS)
    assert scans == scans_before
    return int(rows - rows_before)


@pytest.mark.parametrize("analyze", [False, True], ids=["stale_statistics", "fresh_statistics"])
async def test_take_give_and_close_read_only_their_own_rows(world: World, *, analyze: bool) -> None:
    await world.stock("TEA", 100)
    owner = await world.owner()

    async def everything() -> None:
        one, other = await world.take(owner, "TEA", 7), await world.take(owner, "TEA", 20)
        await stock.give(world.control, 0, [stock.Give(one.lease, 7, 3)])
        await stock.close(world.control, 0, owner, [other.lease])
        await world.close_lease(one)

    for _ in range(7):  # Until the server is content with generic plans.
        await everything()
    await crowd(world, analyze=analyze)
    assert await rows_of_session(world, everything) < 100


@pytest.mark.parametrize("analyze", [False, True], ids=["stale_statistics", "fresh_statistics"])
async def test_comparison_of_leases_reads_a_piece_of_what_the_owner_has(world: World, *, analyze: bool) -> None:
    owner = await world.owner()

    async def everything() -> None:
        active = await control.active_after(world.control, owner, bytes(16), PIECE)
        await control.still_active(world.control, active or [new_id()])

    for _ in range(7):  # Until the server is content with generic plans.
        await everything()
    await crowd(world, analyze=False)
    # Behind many of others, and the closed ones between.
    await world.pool.execute("update stock_lease set owner = $1 where lease_id > $2", UUID(owner), UUID(b"\xc0" * 16))
    if analyze:
        await world.pool.execute("analyze")
    assert await rows_of_session(world, everything) <= 4 * PIECE
    assert len(await control.active_after(world.control, owner, bytes(16), PIECE)) == PIECE
