"""An order is paid: once, only while it waits for that, and what it was before still comes out as it was."""

import datetime as dt
from collections.abc import AsyncIterator

import pytest

from gateway.domain.lifecycle import STATUSES
from gateway.orders import event_of, restore, restore_change
from persistence.nats.stream import Event
from persistence.postgres import order_changes, orders
from persistence.postgres.ledger import Entry
from persistence.postgres.order_changes import Paid
from tests.ledger_world import World, draft, force, new_id, open_world

AT = dt.datetime(2026, 11, 11, 0, 5, tzinfo=dt.UTC)


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def placed(world: World) -> Entry:
    entry = draft((await world.hand(), 3), customer="u-1", limit=5)
    await world.ledger().commit(new_id(), [entry])
    return entry


async def pay(world: World, entry: Entry, version: int = 1, client_id: int | None = None) -> Paid:
    return await order_changes.pay(
        world.pool, entry.order_id, version, client_id, "P-1", AT, "client:1", None, new_id()
    )


async def events(world: World, entry: Entry) -> list[Event]:
    """Those of all versions, as anybody encodes them from the tables."""
    stored = (await orders.fetch(world.pool, [entry.order_id], history=True))[entry.order_id]
    return [event_of(restore(stored, None), restore_change(row), "/floodgate/test") for row in stored.history]


async def test_pay_makes_a_waiting_order_paid_and_moves_no_unit(world: World) -> None:
    entry = await placed(world)
    assert await pay(world, entry) == Paid("paid", "paid")
    stored = (await orders.fetch(world.pool, [entry.order_id], history=True))[entry.order_id]
    order, change = restore(stored, None), restore_change(stored.history[1])
    assert (order.status, order.version, order.paid_reference) == ("paid", 2, "P-1")
    assert order.paid_at == int(AT.timestamp() * 1000)
    assert (change.event, change.previous_status, change.changed) == ("paid", "pending_payment", ("status", "paid"))
    assert (await world.free("TEA"), await world.taken()) == (0, {("TEA", "u-1"): 3})


async def test_pay_again_is_a_version_mismatch(world: World) -> None:
    entry = await placed(world)
    await pay(world, entry)
    assert await pay(world, entry) == Paid("version_mismatch", "paid")
    assert await world.count("order_history") == 2


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "pending_payment"])
async def test_pay_of_an_order_that_does_not_wait_for_it_changes_nothing(world: World, status: str) -> None:
    entry = await placed(world)
    await force(world.pool, "update orders set status = $1", status)
    before = await world.tables()
    assert await pay(world, entry) == Paid("not_payable", status)
    assert await world.tables() == before
    await force(world.pool, "update orders set status = 'pending_payment'")


async def test_pay_of_another_client_s_order_is_not_found(world: World) -> None:
    entry = await placed(world)
    assert await pay(world, entry, client_id=2) == Paid("not_found", None)
    assert (await pay(world, entry, client_id=1)).outcome == "paid"
    assert await pay(world, draft()) == Paid("not_found", None)


async def test_events_of_an_order_say_of_each_version_what_it_was(world: World) -> None:
    entry = await placed(world)
    (before,) = await events(world, entry)
    await pay(world, entry)
    first, second = await events(world, entry)
    assert first == before
    assert b'"paid":{"reference":"P-1","at":"2026-11-11T00:05:00.000Z"}' in second.payload
    assert second.subject.startswith("orders.paid.app.")


async def test_paid_order_can_be_cancelled_and_gives_its_units_back(world: World) -> None:
    entry = await placed(world)
    await pay(world, entry)
    assert (await world.cancel(entry, version=2)).outcome == "cancelled"
    assert await world.free("TEA") == 3
    assert b'"paid":{"reference":"P-1"' in (await events(world, entry))[2].payload
