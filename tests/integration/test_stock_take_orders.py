"""Taking stock for whole orders: each gets all its units or none, asked twice it gets them once, and the answers say
exactly what is left and where.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
from asyncpg.pgproto.pgproto import UUID

from persistence.errors import OwnerNotAliveError
from persistence.postgres import stock
from tests.ledger_world import World, new_id, open_world

NOTHING = 0
PLENTY = 40_000
WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


def want(sku: str, units: int, order: int = 1, convenient: int = 0) -> stock.Want:
    return stock.Want(new_id(), sku, units, max(units, convenient), order)


async def take(world: World, *wants: stock.Want, home: int = 0) -> dict[str, stock.Taken]:
    """The answers by SKU, to a new owner."""
    answers = await stock.take(world.control, await world.owner(), home, wants)
    assert [answer.lease for answer in answers] == [w.lease for w in sorted(wants, key=lambda w: w.sku)]
    return {answer.sku: answer for answer in answers}


async def shelves(world: World, *skus: str) -> dict[str, int]:
    return {sku: await world.free(sku) for sku in skus}


async def state(world: World, *skus: str) -> list[stock.Shard]:
    """The shards of some SKUs as the tables have them."""
    async with world.pool.acquire() as connection:
        return sorted(await stock.shards(connection, skus))


async def leased(world: World) -> dict[str, int]:
    """Units in leases, by SKU."""
    rows = await world.pool.fetch("select sku, sum(units)::bigint units from stock_lease group by sku")
    return {row["sku"]: row["units"] for row in rows}


async def test_take_of_an_order_in_the_tail_grants_all_of_it(world: World) -> None:
    for sku in ("A", "B", "茶"):
        await world.stock(sku, 10, shards=4)
    taken = await take(world, want("茶", 3), want("B", 10), want("A", 1))
    assert {sku: (t.units, t.free, t.outstanding) for sku, t in taken.items()} == {
        "A": (1, 9, 1),
        "B": (10, 0, 10),
        "茶": (3, 7, 3),
    }
    assert await leased(world) == {"A": 1, "B": 10, "茶": 3}


@pytest.mark.parametrize("short", ["A", "B", "C"])
async def test_take_of_an_order_with_one_sku_short_moves_nothing(world: World, short: str) -> None:
    for sku in "ABC":
        await world.stock(sku, 2 if sku == short else 10, shards=3)
    before = await state(world, "A", "B", "C")
    taken = await take(world, *(want(sku, 3) for sku in "ABC"))
    assert [t.units for t in taken.values()] == [NOTHING] * 3
    assert await state(world, "A", "B", "C") == before
    assert await world.count("stock_lease") == 0


async def test_take_of_an_order_with_one_sku_short_says_exactly_what_exists_of_all(world: World) -> None:
    for sku, units in (("A", 50), ("B", 10), ("C", 8)):
        await world.stock(sku, units, shards=3)
    other = await world.owner()
    await world.take(other, "A", 20)
    await world.take(other, "B", 9)
    taken = await take(world, want("A", 5), want("B", 2), want("C", 8))
    said = {sku: (t.units, t.free, t.outstanding) for sku, t in taken.items()}
    assert said == {"A": (NOTHING, 30, 20), "B": (NOTHING, 1, 9), "C": (NOTHING, 8, 0)}


async def test_take_of_a_refused_order_counts_sold_units_as_gone(world: World) -> None:
    await world.stock("A", 10)
    await world.hand("B", 10)
    await world.pool.execute("update stock_lease set used = 4")
    taken = await take(world, want("A", 1), want("B", 1))
    assert (taken["B"].free, taken["B"].outstanding) == (0, 6)
    await world.pool.execute("update stock_lease set used = 0")


@pytest.mark.parametrize(("plenty", "short"), [("A", "B"), ("B", "A")], ids=["plenty first", "plenty last"])
async def test_take_of_an_order_that_lacks_one_sku_draws_no_plenty_of_another(
    world: World, plenty: str, short: str
) -> None:
    await world.stock(plenty, PLENTY, shards=4)
    await world.stock(short, 1)
    taken = await take(world, want(plenty, 5, convenient=500), want(short, 2))
    assert (taken[plenty].units, taken[plenty].free, taken[plenty].outstanding) == (NOTHING, PLENTY, 0)
    assert await shelves(world, plenty, short) == {plenty: PLENTY, short: 1}
    assert await world.count("stock_lease") == 0


async def test_take_of_an_order_of_an_unknown_sku_moves_nothing(world: World) -> None:
    await world.stock("A", 10)
    taken = await take(world, want("A", 1), want("NONE", 1))
    assert (taken["NONE"].free, taken["NONE"].outstanding, taken["NONE"].shards) == (0, 0, [])
    assert (taken["A"].units, await world.free("A")) == (NOTHING, 10)


async def test_take_of_two_orders_grants_the_one_and_refuses_the_other(world: World) -> None:
    for sku, units in (("A", 10), ("B", 1), ("C", 10), ("D", 10)):
        await world.stock(sku, units)
    taken = await take(world, want("A", 2, 1), want("B", 2, 1), want("C", 3, 2), want("D", 4, 2))
    assert {sku: t.units for sku, t in taken.items()} == {"A": NOTHING, "B": NOTHING, "C": 3, "D": 4}
    assert await leased(world) == {"C": 3, "D": 4}


async def test_take_of_two_orders_with_interleaved_skus_decides_each_by_its_own(world: World) -> None:
    for sku, units in (("A", 10), ("B", 10), ("C", 10), ("D", 1)):
        await world.stock(sku, units)
    taken = await take(world, want("A", 2, 7), want("B", 3, 4), want("C", 2, 7), want("D", 3, 4))
    assert {sku: t.units for sku, t in taken.items()} == {"A": 2, "B": NOTHING, "C": 2, "D": NOTHING}


async def test_take_of_single_wants_beside_an_order_are_granted_whatever_becomes_of_it(world: World) -> None:
    for sku, units in (("A", 10), ("B", 10), ("C", 1), ("D", 1)):
        await world.stock(sku, units)
    taken = await take(world, want("A", 3, 0), want("B", 2), want("C", 2), want("D", 2, 0))
    assert {sku: t.units for sku, t in taken.items()} == {"A": 3, "B": NOTHING, "C": NOTHING, "D": NOTHING}
    assert await leased(world) == {"A": 3}


@pytest.mark.parametrize("order", [0, 5], ids=["no order", "an order of one SKU"])
async def test_take_of_a_single_want_beside_an_order_touches_the_home_shard_alone(world: World, order: int) -> None:
    for sku in "ABC":
        await world.stock(sku, PLENTY, shards=4)
    before = {s.shard: s for s in await state(world, "B")}
    taken = await take(world, want("A", 1, 1), want("B", 1, order, convenient=500), want("C", 1, 1), home=6)
    after = {s.shard: s for s in await state(world, "B")}
    assert [number for number in after if after[number] != before[number]] == [2]
    assert (taken["B"].units, taken["B"].free) == (500, None)
    assert taken["B"].shards == [after[2]]


async def test_take_of_an_order_with_plenty_grants_what_is_convenient(world: World) -> None:
    await world.stock("A", PLENTY, shards=4)
    await world.stock("B", 400)
    taken = await take(world, want("A", 1, convenient=500), want("B", 1, convenient=500))
    assert {sku: (t.units, t.free, t.outstanding) for sku, t in taken.items()} == {
        "A": (500, None, None),
        "B": (100, None, None),
    }
    assert await shelves(world, "A", "B") == {"A": PLENTY - 500, "B": 300}


async def test_take_of_an_order_with_plenty_of_one_sku_takes_exactly_its_need_of_the_other(world: World) -> None:
    await world.stock("A", PLENTY, shards=4)
    await world.stock("B", 30, shards=4)
    taken = await take(world, want("A", 2, convenient=500), want("B", 2, convenient=500))
    assert {sku: t.units for sku, t in taken.items()} == {"A": 500, "B": 2}
    assert (taken["B"].free, taken["B"].outstanding) == (28, 2)


async def test_take_of_an_order_answers_all_shards_as_they_stand(world: World) -> None:
    for sku in "AB":
        await world.stock(sku, 10, shards=4)
    before = await state(world, "A", "B")
    taken = await take(world, want("A", 4), want("B", 2))
    assert [*taken["A"].shards, *taken["B"].shards] == await state(world, "A", "B")
    raised = [new.shard for old, new in zip(before, await state(world, "A", "B"), strict=True) if new != old]
    assert raised == [0, 1, 0]


async def test_take_of_a_refused_order_answers_all_shards_as_they_stand(world: World) -> None:
    for sku, units in (("A", 10), ("B", 1)):
        await world.stock(sku, units, shards=4)
    taken = await take(world, want("A", 4), want("B", 2))
    assert [*taken["A"].shards, *taken["B"].shards] == await state(world, "A", "B")


@pytest.mark.parametrize("units", [7, 50], ids=["granted", "refused"])
async def test_take_of_one_sku_in_the_tail_answers_all_shards_as_they_stand(world: World, units: int) -> None:
    await world.stock("A", 30, shards=4)
    taken = await take(world, want("A", units, 0))
    assert list(taken["A"].shards) == await state(world, "A")


async def test_take_of_one_sku_with_plenty_answers_the_home_shard_with_its_new_version(world: World) -> None:
    await world.stock("A", PLENTY, shards=4)
    first = await take(world, want("A", 1, 0, convenient=500), home=1)
    second = await take(world, want("A", 1, 0, convenient=500), home=1)
    assert [shard for (shard,) in (first["A"].shards, second["A"].shards)] == [
        stock.Shard("A", 1, 9500, 3),
        stock.Shard("A", 1, 9000, 4),
    ]


async def test_take_of_an_order_asked_again_answers_what_was_granted_and_moves_nothing(world: World) -> None:
    await world.stock("A", 10)
    await world.stock("B", PLENTY, shards=2)
    owner, wants = await world.owner(), [want("A", 3), want("B", 2, convenient=500)]
    first = await stock.take(world.control, owner, 0, wants)
    before = await state(world, "A", "B")
    again = await stock.take(world.control, owner, 0, wants)
    assert [t.units for t in first] == [t.units for t in again] == [3, 500]
    assert await state(world, "A", "B") == before
    assert await leased(world) == {"A": 3, "B": 500}


async def test_take_of_an_order_asked_again_after_the_rest_was_sold_answers_what_was_granted(world: World) -> None:
    for sku in "AB":
        await world.stock(sku, 10)
    owner, wants = await world.owner(), [want("A", 6), want("B", 6)]
    await stock.take(world.control, owner, 0, wants)
    await world.take(await world.owner(), "B", 4)
    assert [t.units for t in await stock.take(world.control, owner, 0, wants)] == [6, 6]
    assert await shelves(world, "A", "B") == {"A": 4, "B": 0}


async def test_take_of_a_refused_order_asked_again_is_decided_anew(world: World) -> None:
    await world.stock("A", 10)
    other = await world.hand("B", 5)
    owner, wants = await world.owner(), [want("A", 3), want("B", 2)]
    first = await stock.take(world.control, owner, 0, wants)
    await world.close_lease(other)
    again = await stock.take(world.control, owner, 0, wants)
    assert [t.units for t in (*first, *again)] == [NOTHING, NOTHING, 3, 2]


async def test_take_of_an_order_asked_again_while_the_first_one_still_runs_takes_once(world: World) -> None:
    for sku in "AB":
        await world.stock(sku, 30, shards=3)
    owner, wants = await world.owner(), [want("A", 7), want("B", 9)]
    sessions = [world.session("fg-control") for _ in range(4)]
    async with world.pool.acquire() as blocker, blocker.transaction():
        await blocker.execute("select from stock_shard where sku = 'A' for update")
        takes = [asyncio.create_task(stock.take(session, owner, 0, wants)) for session in sessions]
        await asyncio.wait_for(world.until(WAITING, len(takes)), 30)
    answers = await asyncio.gather(*takes)
    for session in sessions:
        await session.close()
    assert [[t.units for t in taken] for taken in answers] == [[7, 9]] * 4
    assert await shelves(world, "A", "B") == {"A": 23, "B": 21}


@pytest.mark.parametrize("condition", ["dead", "left"])
async def test_take_of_an_order_by_an_owner_that_is_not_alive_raises_and_moves_nothing(
    world: World, condition: str
) -> None:
    for sku in "AB":
        await world.stock(sku, 10)
    owner = await world.owner()
    await world.pool.execute("update worker set state = $1", condition)
    with pytest.raises(OwnerNotAliveError):
        await stock.take(world.control, owner, 0, [want("A", 1), want("B", 1)])
    assert await shelves(world, "A", "B") == {"A": 10, "B": 10}


async def test_take_of_the_former_version_is_still_answered(world: World) -> None:
    """Workers of the former release run on during an upgrade."""
    await world.stock("A", 10)
    owner = UUID(await world.owner())
    row = await world.pool.fetchrow("select * from stock_take($1, 0, $2, '{A}', '{3}', '{3}')", owner, [UUID(new_id())])
    assert (row["granted"], row["free_left"], row["outstanding"]) == (3, 7, 3)
