"""Cancelling an order: its units and its buyer's limit go back exactly once, whoever else moves units meanwhile, and
the change stands in history and outbox. Every test ends with books that balance.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from core_ext import ids
from gateway.orders import event_of, restore, restore_change
from persistence.nats.stream import Event
from persistence.postgres import order_changes, orders, stock
from persistence.postgres.ledger import Entry
from tests.ledger_world import Hand, World, draft, force, new_id, open_world

DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
STATUS = "select status from orders"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def placed(world: World, limit: int | None = None) -> Entry:
    """An order of 3 of 10 units, of which a customer may hold `limit`."""
    hand = await world.hand()
    entry = draft((hand, 3), customer="u-1", limit=limit)
    assert await world.ledger().commit(new_id(), [entry]) == []
    return entry


async def test_cancel_gives_the_units_back(world: World) -> None:
    cancelled = await world.cancel(await placed(world))
    assert cancelled == order_changes.Cancelled("cancelled", "cancelled", ["TEA"])
    assert await world.free("TEA") == 3


async def test_cancel_lowers_what_the_buyer_has_taken(world: World) -> None:
    await world.cancel(await placed(world, limit=5))
    assert await world.taken() == {("TEA", "u-1"): 0}


async def test_cancel_of_lines_of_several_skus_gives_each_back(world: World) -> None:
    one, other = await world.hand("A"), await world.hand("B")
    entry = draft((other, 2), (one, 3), (other, 4), customer="u-1", limit=9)
    await world.ledger().commit(new_id(), [entry])
    await world.cancel(entry)
    assert [await world.free(sku) for sku in ("A", "B")] == [3, 6]
    assert set((await world.taken()).values()) == {0}


async def test_cancel_of_an_order_of_a_sale_gives_the_sale_s_units_back(world: World) -> None:
    await world.pool.execute("insert into stock_sku (sku, total, shards) values ($1, 3, 1)", "spring\x1fTEA")
    await world.pool.execute("insert into stock_shard (sku, shard, free) values ($1, 0, 0)", "spring\x1fTEA")
    entry = await placed(world, limit=5)
    await force(world.pool, "update orders set sale_id = 'spring'")
    await world.pool.execute("update buyer_taken set sku = $1", "spring\x1fTEA")
    await world.pool.execute("update stock_sku set total = 7 where sku = 'TEA'")
    assert (await world.cancel(entry)).skus == ["spring\x1fTEA"]
    assert [await world.free(sku) for sku in ("TEA", "spring\x1fTEA")] == [0, 3]


async def test_cancel_of_an_order_without_stock_gives_nothing_back(world: World) -> None:
    entry = draft()
    await world.ledger().commit(new_id(), [entry])
    assert await world.cancel(entry) == order_changes.Cancelled("cancelled", "cancelled", [])


async def test_cancel_stands_in_the_history(world: World) -> None:
    entry = await placed(world)
    await world.cancel(entry)
    stored = (await orders.fetch(world.pool, [entry.order_id], history=True))[entry.order_id]
    change = restore_change(stored.history[1])
    assert (stored.order["status"], stored.order["version"]) == ("cancelled", 2)
    assert (change.version, change.event, change.status, change.previous_status, change.changed) == (
        2,
        "cancelled",
        "cancelled",
        "pending_payment",
        ("status",),
    )
    assert (change.actor, change.reason) == ("client:1", "ordered twice")
    assert change.at >= ids.time_of(entry.order_id)


async def test_cancel_waits_in_the_outbox_under_its_batch(world: World) -> None:
    entry, batch_id = await placed(world), new_id()
    await order_changes.cancel(world.pool, entry.order_id, 1, None, 0, "client:1", "r", None, batch_id)
    rows = await world.pool.fetch("select batch_id, order_ids, versions from outbox order by versions")
    assert [(row["order_ids"][0].bytes, row["versions"]) for row in rows] == [
        (entry.order_id, [1]),
        (entry.order_id, [2]),
    ]
    assert rows[1]["batch_id"].bytes == batch_id


async def test_event_of_the_first_version_is_the_same_after_the_cancellation(world: World) -> None:
    entry = await placed(world)

    async def event() -> Event:
        stored = (await orders.fetch(world.pool, [entry.order_id], history=True))[entry.order_id]
        return event_of(restore(stored, None), restore_change(stored.history[0]), "/floodgate/test")

    before = await event()
    await world.cancel(entry)
    assert await event() == before


async def test_cancel_of_a_paid_order_cancels_it(world: World) -> None:
    entry = await placed(world)
    await force(world.pool, "update orders set status = 'paid'")
    assert (await world.cancel(entry)).outcome == "cancelled"


@pytest.mark.parametrize("status", ["preparing", "shipped", "completed", "cancelled", "expired", "refunded"])
async def test_cancel_of_an_order_that_has_gone_further_changes_nothing(world: World, status: str) -> None:
    entry = await placed(world)
    before = await world.tables()
    await force(world.pool, "update orders set status = $1", status)
    assert await world.cancel(entry) == order_changes.Cancelled("not_cancellable", status, [])
    assert (await world.tables(), await world.free("TEA")) == (before, 0)
    await force(world.pool, "update orders set status = 'pending_payment'")


async def test_cancel_of_another_version_changes_nothing(world: World) -> None:
    entry = await placed(world)
    before = await world.tables()
    assert (await world.cancel(entry, version=2)).outcome == "version_mismatch"
    assert (await world.tables(), await world.value(STATUS)) == (before, "pending_payment")


async def test_cancel_again_is_a_version_mismatch(world: World) -> None:
    entry = await placed(world)
    await world.cancel(entry)
    assert (await world.cancel(entry)).outcome == "version_mismatch"
    assert (await world.cancel(entry, version=2)).outcome == "not_cancellable"


async def test_cancel_of_an_order_that_does_not_exist_is_not_found(world: World) -> None:
    assert await world.cancel(draft()) == order_changes.Cancelled("not_found", None, [])


async def test_cancel_of_another_client_s_order_is_not_found(world: World) -> None:
    entry = await placed(world)
    for client_id, outcome in ((2, "not_found"), (1, "cancelled")):
        found = await order_changes.cancel(world.pool, entry.order_id, 1, client_id, 0, "x", "r", None, new_id())
        assert found.outcome == outcome


async def test_cancels_of_one_order_at_once_give_its_units_back_once(world: World) -> None:
    entry = await placed(world, limit=5)
    found = await asyncio.gather(*(world.cancel(entry) for _ in range(8)))
    assert sorted(each.outcome for each in found) == ["cancelled", *["version_mismatch"] * 7]
    assert await world.free("TEA") == 3


async def test_cancels_beside_commits_takes_and_reshards_balance(world: World) -> None:
    """Buyers order and cancel while others take what comes back and the shards are spread anew."""
    for sku in ("A", "B"):
        await world.stock(sku, 400, 3)
    owner = await world.owner()
    working = 3

    async def trade(name: str) -> None:
        nonlocal working
        lane, control = world.ledger(), world.session("fg-race")
        for _ in range(20):
            taken = await stock.take(control, owner, 1, [stock.Want(new_id(), sku, 2, 2) for sku in ("A", "B")])
            hands = [Hand(each.lease, each.sku, each.units) for each in taken]
            entry = draft(*((hand, 2) for hand in hands), customer=name, limit=2)
            assert await lane.commit(new_id(), [entry]) == []
            assert (await world.cancel(entry)).outcome == "cancelled"
        await control.close()
        working -= 1

    async def reshard() -> None:
        while working:
            for shards in (1, 5, 2):
                await stock.reshard(world.pool, "A", shards)
                await stock.reshard(world.pool, "B", 6 - shards)

    await asyncio.gather(*(trade(f"u-{number}") for number in range(3)), reshard())
    assert [await world.free(sku) for sku in ("A", "B")] == [400, 400]
    assert await world.value(DEADLOCKS) == 0
