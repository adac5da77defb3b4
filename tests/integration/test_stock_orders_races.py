"""Whole orders under contention: of several that share SKUs one always gets all its units, nobody deadlocks with gives,
closes, sets and reshards, and all is sold that can be.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest

from persistence.postgres import stock
from tests.ledger_world import Hand, World, draft, new_id, open_world

SKUS = ("A", "B", "C")
UNITS = 90  # at the border between plenty and tail: a take asks for up to 40, and plenty is four times 16
TAKERS = 6
CHANGES = 250
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
ACTIVE = "select count(*) from stock_lease where state = 'active'"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


class Taker:
    """A worker that takes random orders and sells, gives back or closes what it is granted. Once `settled` it only
    sells, until no two SKUs are left that an order of two could have.
    """

    def __init__(self, world: World, home: int, choose: random.Random, settled: asyncio.Event) -> None:
        self.world, self.home, self.choose, self.settled = world, home, choose, settled
        self.session = world.session(f"fg-taker-{home}")
        self.gone: set[str] = set()
        self.granted = 0

    async def run(self) -> None:
        self.owner = await self.world.owner()
        self.lane = self.world.ledger(self.owner)
        while len(SKUS) - len(self.gone) >= 2:
            await self.turn()
        await self.session.close()

    async def turn(self) -> None:
        is_settled = self.settled.is_set()
        units = 1 if is_settled else self.choose.randint(1, 3)
        taken = await self.take(units)
        if taken[0].units:
            self.granted += 1
            await self.use(taken, units, "sell" if is_settled else self.choose.choice(("sell", "give", "close")))
        elif is_settled:
            self.gone |= {t.sku for t in taken if (t.free or 0) + (t.outstanding or 0) < units}

    async def take(self, units: int) -> list[stock.Taken]:
        left = sorted(set(SKUS) - self.gone)
        skus = self.choose.sample(left, self.choose.randint(2, len(left)))
        wants = [stock.Want(new_id(), sku, units, self.choose.choice((units, 40)), 1) for sku in skus]
        taken = await stock.take(self.session, self.owner, self.home, wants)
        assert len({t.units > 0 for t in taken}) == 1, "an order was granted by halves"
        return taken

    async def use(self, taken: Sequence[stock.Taken], units: int, how: str) -> None:
        if how == "close":
            await stock.close(self.session, self.home, self.owner, [t.lease for t in taken])
            return
        sold = units if how == "sell" else 0
        if sold:
            order = draft(*((Hand(t.lease, t.sku, t.units), sold) for t in taken))
            assert await self.lane.commit(new_id(), [order]) == []
        gives = [stock.Give(t.lease, t.units, t.units - sold) for t in taken if t.units > sold]
        assert await stock.give(self.session, self.home, gives) == {give.lease for give in gives}


async def change(world: World, choose: random.Random) -> None:
    """Totals and shards, at random; totals rise on the whole, so that there is always something to sell."""
    for number in range(CHANGES):
        sku = choose.choice(SKUS)
        if choose.random() < 0.4:
            await stock.reshard(world.pool, sku, choose.randint(1, 8))
        else:
            total = UNITS + 3 * number + choose.choice((0, UNITS))
            await stock.set_total(world.pool, sku, total, 4, "test", None, None)


async def test_take_of_orders_beside_all_that_moves_units_sells_what_can_be_sold(world: World) -> None:
    for sku in SKUS:
        await world.stock(sku, UNITS, shards=4)
    choose, settled = random.Random(7), asyncio.Event()
    takers = [Taker(world, home, choose, settled) for home in range(TAKERS)]

    async def settle() -> None:
        await change(world, choose)
        settled.set()

    await asyncio.gather(settle(), *(taker.run() for taker in takers))
    assert await world.value(DEADLOCKS) == 0
    assert await world.value(ACTIVE) == 0
    assert [await world.free(sku) for sku in SKUS].count(0) >= 2
    assert all(taker.granted for taker in takers)


async def test_take_of_orders_that_want_the_same_last_units_grants_one_of_them(world: World) -> None:
    for sku in SKUS:
        await world.stock(sku, 1, shards=3)
    owners = [await world.owner() for _ in range(TAKERS)]
    sessions = [world.session("fg-taker") for _ in owners]
    for turn in range(20):
        orders = [(SKUS[(turn + home) % 3], SKUS[(turn + home + 1) % 3]) for home in range(TAKERS)]
        answers = await asyncio.gather(
            *(
                stock.take(session, owner, home, [stock.Want(new_id(), sku, 1, 1, 1) for sku in skus])
                for home, (session, owner, skus) in enumerate(zip(sessions, owners, orders, strict=True))
            )
        )
        assert sorted([t.units for t in taken] for taken in answers) == [[0, 0]] * (TAKERS - 1) + [[1, 1]]
        for home, (owner, taken) in enumerate(zip(owners, answers, strict=True)):
            await stock.close(world.control, home, owner, [t.lease for t in taken])
    for session in sessions:
        await session.close()
