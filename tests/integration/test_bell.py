"""The bell between workers: units that one holds and has not promised are there for the buyers of another, at once by
way of the mirror and soon by way of the ledger.
"""

from collections.abc import AsyncIterator

import pytest

from tests.worker_world import SKU, Shop, World, eventually, open_world, order, order_id_of

UNITS = 200


@pytest.fixture(params=["mirror", "no mirror"])
async def world(
    request: pytest.FixtureRequest, postgres_url: str, nats_url: str, redis_url: str
) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url, redis_url if request.param == "mirror" else "") as world:
        await world.product(units=UNITS, shards=1)
        yield world
        await world.assert_clean()


async def hoard(world: World, shop: Shop) -> None:
    """Have a worker take units until nothing is left that is not in its hand."""
    leases = shop.services.leases
    while await world.value("select sum(free) from stock_shard") > 0:
        parked = leases.park([(SKU, leases.till.free(SKU) + 1)])
        assert parked is not None
        parts = await parked.result
        assert isinstance(parts, list)
        leases.till.restore(parts)


async def test_bell_calls_units_of_an_idle_worker_back_for_a_buyer_of_another(world: World) -> None:
    holder, seller = await world.shop(), await world.shop()
    await hoard(world, holder)
    assert holder.services.leases.till.free(SKU) == UNITS
    order_id_of(await seller.place("k-1", order(quantity=150)))


async def test_bell_that_recalls_takes_what_no_worker_has_promised(world: World) -> None:
    holder, other = await world.shop(), await world.shop()
    await hoard(world, holder)
    await other.services.leases.recall(SKU)
    await eventually("the units are free", lambda: _all_free(world))


async def test_bell_tells_others_of_a_restock(world: World) -> None:
    first, second = await world.shop(), await world.shop()
    for shop, key in ((first, "k-1"), (second, "k-2")):
        answer = await shop.place(key, order(quantity=UNITS + 1))
        assert answer.status == 409
    await world.product(units=2 * UNITS, shards=1)
    first.services.leases.restocked(SKU)
    await eventually("the other worker sells", lambda: _sells(second, UNITS + 1))


async def _all_free(world: World) -> bool:
    return bool(await world.value("select sum(free) = $1 from stock_shard", UNITS))


async def _sells(shop: Shop, quantity: int) -> bool:
    return (await shop.place("k-3", order(quantity=quantity))).status == 201
