"""Sales in the ledger: all of a change or nothing, units of their own beside the everyday stock, and no unit lost
whatever puts, takes, commits and closes meet.
"""

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from core_ext import ids, rows
from core_ext.shapes import Change, Line, Order
from persistence.postgres import catalogue, sales, stock
from persistence.postgres.ledger import Entry
from tests.ledger_world import Hand, World, force, new_id, open_world

SALE = "double-11"
LONG_AGO, AT, FAR_AHEAD, LATER_STILL = (dt.datetime(year, 11, 11, tzinfo=dt.UTC) for year in (2000, 2001, 3000, 3001))
TERMS = sales.Terms("Double 11", AT, FAR_AHEAD, None)
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        products = [catalogue.ProductRow(sku, sku, 250, "CNY", stocked=True, active=True) for sku in ("A", "B", "C")]
        await catalogue.put(world.pool, [*products, products[0]._replace(sku="SERVICE", stocked=False)])
        yield world
        await world.assert_clean()


def key_of(sku: str) -> str:
    return f"{SALE}\x1f{sku}"


def items(**units: int) -> list[sales.Item]:
    return [sales.Item(sku, 99, count, None, 2) for sku, count in units.items()]


async def put(world: World, if_version: int | None = None, **units: int) -> asyncpg.Record | sales.Refused:
    return await sales.put(world.pool, SALE, TERMS, items(**units), "ann", if_version)


async def total(world: World, sku: str) -> int | None:
    found: int | None = await world.value("select total from stock_sku where sku = $1", key_of(sku))
    return found


def sold(hand: Hand, units: int) -> Entry:
    """An order of the sale for units in a hand."""
    order_id = new_id()
    at, sku = ids.time_of(order_id), hand.sku.rpartition("\x1f")[2]
    lines = [Line(1, sku, sku, units, 99, 99 * units, stocked=True)]
    order = Order(order_id, 1, "app", "CNY", "pending_payment", 1, 99 * units, lines, at, "u-1", sale_id=SALE)
    change = Change(1, at, "created", "pending_payment", "client:1")
    return Entry(
        order_id, new_id(), bytes(16), [(hand.lease, units)], rows.order_row(order, None), [rows.line_rows(order)],
        rows.history_row(order_id, change), b"",
    )  # fmt: skip


async def test_put_makes_a_sale_with_units_of_its_own(world: World) -> None:
    await world.stock("A", 7)
    row = await put(world, A=10, B=0)
    assert isinstance(row, asyncpg.Record)
    assert (row["version"], row["skus"], row["prices"], row["units"]) == (1, ["A", "B"], [99, 99], [10, 0])
    assert (row["currencies"], row["limits"], row["starts_at"]) == (["CNY", "CNY"], [None, None], AT)
    assert (await world.free(key_of("A")), await world.free("A")) == (10, 7)
    movements = await world.pool.fetch("select sku, delta, actor from stock_movement where actor = 'ann'")
    assert [tuple(row) for row in movements] == [(key_of("A"), 10, "ann")]


async def test_put_again_replaces_items_and_units(world: World) -> None:
    await put(world, A=10, B=5)
    row = await put(world, B=6, C=1)
    assert isinstance(row, asyncpg.Record)
    assert (row["version"], row["skus"], row["units"]) == (2, ["B", "C"], [6, 1])
    assert await total(world, "A") == 0


async def test_put_of_the_same_units_leaves_the_stock_alone(world: World) -> None:
    await put(world, A=10)
    before = await world.pool.fetch("select * from stock_sku")
    await put(world, A=10)
    assert await world.pool.fetch("select * from stock_sku") == before


@pytest.mark.parametrize("if_version", [0, 2, 9])
async def test_put_of_another_version_changes_nothing(world: World, if_version: int) -> None:
    await put(world, A=10)
    assert list(await put(world, if_version, A=11)) == ["version_mismatch"]
    assert await total(world, "A") == 10


async def test_put_of_a_version_that_there_is_not_makes_nothing(world: World) -> None:
    assert list(await put(world, 1, A=1)) == ["version_mismatch"]
    assert await world.count("sale") == 0


async def test_put_only_when_there_is_none_makes_one_sale(world: World) -> None:
    found = await asyncio.gather(*(put(world, 0, A=units) for units in range(1, 6)))
    assert sum(isinstance(one, asyncpg.Record) for one in found) == 1
    assert await world.value("select version from sale") == 1


@pytest.mark.parametrize(
    ("starts_at", "ends_at"),
    [
        (dt.datetime(1999, 12, 31, 23, 59, 59, tzinfo=dt.UTC), FAR_AHEAD),
        (dt.datetime.min.replace(tzinfo=dt.UTC), FAR_AHEAD),
        (AT, dt.datetime(9999, 1, 1, tzinfo=dt.UTC)),
        (AT, dt.datetime.max.replace(tzinfo=dt.UTC)),
    ],
)
async def test_put_of_times_that_no_sale_has_is_refused_by_the_table(
    world: World, starts_at: dt.datetime, ends_at: dt.datetime
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await sales.put(world.pool, SALE, TERMS._replace(starts_at=starts_at, ends_at=ends_at), items(A=1), "ann")


async def test_put_of_products_that_cannot_be_sold_names_all_and_makes_nothing(world: World) -> None:
    refused = await put(world, A=1, NO=1, NEITHER=1, SERVICE=1)
    assert refused == {"unknown_sku": ["NEITHER", "NO"], "not_stocked": ["SERVICE"]}
    assert [await world.count(table) for table in ("sale", "sale_item", "stock_sku")] == [0, 0, 0]


@pytest.mark.parametrize("removed", [False, True], ids=["lowered", "removed"])
@pytest.mark.parametrize("is_sold", [False, True], ids=["in_the_hand", "sold"])
async def test_put_below_what_is_held_names_the_items_and_changes_nothing(
    world: World, *, removed: bool, is_sold: bool
) -> None:
    await put(world, A=10, B=10, C=10)
    owner = await world.owner()
    for sku in ("A", "C"):
        hand = await world.take(owner, key_of(sku), 3)
        if is_sold:
            await world.ledger().commit(new_id(), [sold(hand, 3)])
    wanted = {"B": 5} if removed else {"A": 2, "B": 5, "C": 2}
    revision = await world.value("select value from revision where topic = 'sales'")
    assert await put(world, **wanted) == {"below_held": ["A", "C"]}
    assert [await total(world, sku) for sku in "ABC"] == [10, 10, 10]
    assert await world.value("select version from sale") == 1
    assert await world.count("sale_item") == 3
    assert await world.value("select value from revision where topic = 'sales'") == revision


async def test_put_down_to_what_is_sold_leaves_nothing_free(world: World) -> None:
    await put(world, A=10)
    hand = await world.take(await world.owner(), key_of("A"), 3)
    await world.ledger().commit(new_id(), [sold(hand, 3)])
    assert isinstance(await put(world, A=3), asyncpg.Record)
    assert await world.free(key_of("A")) == 0


async def test_changes_since_names_each_changed_sale_once(world: World) -> None:
    async with world.pool.acquire() as connection:
        start, _ = await sales.changes_since(connection, -1)
        await put(world, A=1)
        await sales.put(world.pool, "other", TERMS, items(B=1), "ann")
        await put(world, A=2)
        revision, changed = await sales.changes_since(connection, start)
        assert sorted(row["sale_id"] for row in changed) == [SALE, "other"]
        assert await sales.changes_since(connection, revision) == (revision, [])


async def test_open_now_starts_at_the_ledger_s_time_and_again_changes_nothing(world: World) -> None:
    await sales.put(world.pool, SALE, TERMS._replace(starts_at=FAR_AHEAD, ends_at=LATER_STILL), items(A=1), "a")
    before = await world.value("select date_trunc('milliseconds', clock_timestamp())")
    row = await sales.open_now(world.pool, SALE)
    assert isinstance(row, asyncpg.Record)
    assert before <= row["starts_at"] <= await world.value("select clock_timestamp()")
    assert row["starts_at"].microsecond % 1000 == 0
    again = await sales.open_now(world.pool, SALE)
    assert isinstance(again, asyncpg.Record)
    assert (again["version"], again["starts_at"]) == (2, row["starts_at"])


async def test_open_now_of_a_sale_that_is_over_changes_nothing(world: World) -> None:
    over = TERMS._replace(starts_at=LONG_AGO, ends_at=AT)
    await sales.put(world.pool, SALE, over, items(A=1), "ann")
    row = await sales.open_now(world.pool, SALE)
    assert isinstance(row, asyncpg.Record)
    assert (row["version"], row["ends_at"]) == (1, over.ends_at)


@pytest.mark.parametrize("starts_at", [LONG_AGO, FAR_AHEAD], ids=["open", "not_open"])
async def test_close_now_ends_at_the_ledger_s_time_and_again_changes_nothing(
    world: World, starts_at: dt.datetime
) -> None:
    await sales.put(world.pool, SALE, TERMS._replace(starts_at=starts_at, ends_at=LATER_STILL), items(A=1), "a")
    row = await sales.close_now(world.pool, SALE)
    assert isinstance(row, asyncpg.Record)
    assert row["starts_at"] == min(starts_at, row["ends_at"])
    assert row["ends_at"] <= await world.value("select clock_timestamp()")
    again = await sales.close_now(world.pool, SALE)
    assert isinstance(again, asyncpg.Record)
    assert again["version"] == 2


@pytest.mark.parametrize("if_version", [None, 1])
async def test_open_and_close_of_no_sale_find_none(world: World, if_version: int | None) -> None:
    assert await sales.open_now(world.pool, SALE, if_version) is None
    assert await sales.close_now(world.pool, SALE, if_version) is None


async def test_open_and_close_of_another_version_change_nothing(world: World) -> None:
    terms = TERMS._replace(starts_at=FAR_AHEAD, ends_at=LATER_STILL)
    await sales.put(world.pool, SALE, terms, items(A=1), "ann")
    before = await sales.get(world.pool, SALE)
    for change in (sales.open_now, sales.close_now):
        assert await change(world.pool, SALE, 2) == {"version_mismatch": [SALE]}
    assert await sales.get(world.pool, SALE) == before


async def test_open_by_several_at_once_of_one_version_is_one_change(world: World) -> None:
    terms = TERMS._replace(starts_at=FAR_AHEAD, ends_at=LATER_STILL)
    await sales.put(world.pool, SALE, terms, items(A=1), "ann")
    found = await asyncio.gather(*(sales.open_now(world.pool, SALE, 1) for _ in range(5)))
    assert sum(isinstance(one, asyncpg.Record) for one in found) == 1
    assert await world.value("select version from sale") == 2


async def test_add_refusals_by_several_at_once_adds_them_all(world: World) -> None:
    await put(world, A=1)
    counts = {(SALE, code): 2 for code in ("sold_out", "sale_closed", "invalid")}
    sessions = [world.session("fg-test") for _ in range(4)]
    await asyncio.gather(*(sales.add_refusals(session, counts) for session in sessions for _ in range(5)))
    for session in sessions:
        await session.close()
    _, refused = await sales.report(world.pool, SALE)
    assert refused == {"invalid": 40, "sale_closed": 40, "sold_out": 40}


async def test_report_counts_what_the_sale_sold_and_nothing_else(world: World) -> None:
    await world.stock("A", 50)
    await put(world, A=10, B=5)
    owner = await world.owner()
    hand, everyday = await world.take(owner, key_of("A"), 6), await world.take(owner, "A", 9)
    other = sold(everyday, 9)
    await world.ledger(owner).commit(new_id(), [sold(hand, 1), sold(hand, 3)])
    await force(world.pool, "update orders set customer_id = 'u-2' where total = 99")
    report, _ = await sales.report(world.pool, SALE)
    assert (report["orders"], report["units"], report["buyers"]) == (2, 4, 2)
    assert (report["total_units"], report["unsold_units"], report["returned_units"]) == (15, 11, 0)
    assert report["first_unit_at"] <= report["last_unit_at"]
    assert 3 <= report["peak_units_per_second"] <= 4
    assert other.order_id


async def test_report_of_a_sale_that_sold_nothing_is_empty(world: World) -> None:
    await put(world, A=10)
    report, refused = await sales.report(world.pool, SALE)
    assert (report["orders"], report["units"], report["unsold_units"], report["first_unit_at"]) == (0, 0, 10, None)
    assert (report["peak_units_per_second"], refused) == (0, {})


async def test_report_counts_units_that_came_back_as_unsold_again(world: World) -> None:
    await put(world, A=10)
    hand = await world.take(await world.owner(), key_of("A"), 6)
    first, second = sold(hand, 2), sold(hand, 4)
    await world.ledger().commit(new_id(), [first, second])
    assert (await world.cancel(first)).outcome == "cancelled"
    report, _ = await sales.report(world.pool, SALE)
    assert (report["orders"], report["units"], report["returned_units"], report["unsold_units"]) == (2, 6, 2, 6)
    assert await world.free(key_of("A")) == 6


async def test_put_beside_takes_and_commits_never_deadlocks_and_loses_nothing(world: World) -> None:
    choose = random.Random(7)
    stop = asyncio.Event()
    await put(world, A=200, B=200, C=200)

    async def sell(home: int) -> None:
        owner, session = await world.owner(), world.session("fg-taker")
        lane = world.ledger(owner)
        while not stop.is_set():
            wants = [stock.Want(new_id(), key_of(sku), 1, 30) for sku in sorted(choose.sample("ABC", 2))]
            hands = [Hand(t.lease, t.sku, t.units) for t in await stock.take(session, owner, home, wants) if t.units]
            if hands:
                assert await lane.commit(new_id(), [sold(hand, 1) for hand in hands]) == []
            await stock.close(session, home, owner, [hand.lease for hand in hands])
        await session.close()

    async def change() -> None:
        outcomes = set()
        for _ in range(120):
            units = {sku: choose.choice((0, 20, 200, 400)) for sku in choose.sample("ABC", 2)}
            found = await put(world, **units)
            outcomes |= set(found) if isinstance(found, dict) else {"put"}
        stop.set()
        assert outcomes == {"put", "below_held"}

    await asyncio.gather(change(), *(sell(home) for home in range(3)))
    assert await world.value(DEADLOCKS) == 0
    for sku in "ABC":
        held = await world.value("select coalesce(sum(quantity), 0)::bigint from order_lines where sku = $1", sku)
        assert (await total(world, sku) or 0) == held + await world.free(key_of(sku))


async def test_put_by_two_at_once_of_one_version_is_one_change(world: World) -> None:
    await put(world, A=1)
    found = await asyncio.gather(*(put(world, 1, A=units) for units in range(2, 8)))
    assert sum(isinstance(one, asyncpg.Record) for one in found) == 1
    assert await world.value("select version from sale") == 2


async def test_commit_of_a_sale_s_lease_leaves_the_everyday_stock_alone(world: World) -> None:
    await world.stock("A", 4)
    await put(world, A=4)
    hand = await world.take(await world.owner(), key_of("A"), 4)
    await world.ledger().commit(new_id(), [sold(hand, 4)])
    assert (await world.lease(hand), await world.free("A")) == ((4, 4, "closed"), 4)
    assert await world.value("select sku from stock_lease where lease_id = $1", UUID(hand.lease)) == key_of("A")
