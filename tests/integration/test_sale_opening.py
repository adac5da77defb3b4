"""The opening of a sale over three workers, by PostgreSQL's clock: everybody is refused before the start, no order has
a time before it, the units are in the workers' hands when it comes, and exactly the units are sold.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from core_ext import ids
from core_ext.times import ms_of, text_of
from gateway.edge.answers import Answer
from tests.sale_world import KEY, followed, of_sale, problem_of, put_sale
from tests.worker_world import Shop, World, code_of, eventually, open_world

UNITS = 200
BUYERS = 60
WORKERS = 3


@pytest.fixture
async def world(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url, redis_url) as world:
        await world.product(units=5)
        yield world
        await eventually("the outbox is empty", world.outbox_is_empty)
        await world.assert_clean()


class Rush:
    """Buyers who press *buy* again and again, each time as a new attempt, from before the start until all is sold."""

    def __init__(self, world: World, shops: list[Shop]) -> None:
        self.world, self.shops = world, shops
        self.early: list[Answer] = []
        self.bought = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._press(number) for number in range(BUYERS)))

    async def _press(self, number: int) -> None:
        shop = self.shops[number % WORKERS]
        attempt = 0
        while True:
            attempt += 1
            answer = await shop.buy(f"b-{number}-{attempt}", of_sale(customer_id=f"u-{number}"))
            if answer.status == 201:
                self.bought += 1
            elif code_of(answer) == "sale_not_open":
                self.early.append(answer)
                await asyncio.sleep(0.005)
            else:
                assert code_of(answer) == "sold_out"
                return


async def test_sale_opens_for_all_workers_at_its_start_and_sells_exactly_its_units(world: World) -> None:
    shops = [await world.shop() for _ in range(WORKERS)]
    starts_at, ends_at = await put_sale(world, UNITS, opens_in_s=2)
    await followed(world, *shops)
    rush = Rush(world, shops)
    await rush.run()

    assert len(rush.early) >= BUYERS
    assert {problem_of(answer)["opens_at"] for answer in rush.early} == {text_of(ms_of(starts_at))}
    assert all(dict(answer.headers)[b"retry-after"] in {b"1", b"2"} for answer in rush.early)
    assert rush.bought == UNITS == await world.value("select sum(quantity) from order_lines")
    first, last = await world.pool.fetchrow("select min(created_at), max(created_at) from orders")
    assert starts_at <= first <= last < ends_at
    orders = await world.pool.fetch("select order_id from orders")
    assert min(ids.time_of(row["order_id"].bytes) for row in orders) == ms_of(first)


async def test_sale_s_units_are_in_the_workers_hands_before_its_start(world: World) -> None:
    shops = [await world.shop() for _ in range(WORKERS)]
    await put_sale(world, 10_000, opens_in_s=3600)
    await followed(world, *shops)
    assert await world.active_leases() == 0
    starts_at, _ = await put_sale(world, 10_000, opens_in_s=3)

    async def all_have_some() -> bool:
        return all(shop.services.leases.till.free(KEY) for shop in shops)

    await eventually("every worker has units in its hand", all_have_some)
    # Whatever the machine does meanwhile, the leases themselves tell when they were made: before the start.
    leases = await world.pool.fetch("select lease_id from stock_lease where sku = $1", KEY)
    assert len(leases) >= WORKERS
    assert all(ids.time_of(row["lease_id"].bytes) < ms_of(starts_at) for row in leases)
    assert await world.count("orders") == 0
