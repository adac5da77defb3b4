"""The end of an order that nobody has paid in time: once, with its units and limits back, unless it was paid, and never
early, whatever the clock does. Every test ends with books that balance.
"""

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from core_ext.shapes import Change
from gateway.orders import event_of, restore, restore_change
from persistence.postgres import expiry, order_changes, orders
from persistence.postgres.expiry import Expired, Look
from persistence.postgres.ledger import Entry
from tests.ledger_world import World, draft, new_id, open_world

ACTOR = "floodgate"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def placed(world: World, sku: str = "TEA", due_s: float = -1.0, limit: int | None = None) -> Entry:
    """An order of 3 of 10 units that is due in so many seconds."""
    entry = draft((await world.hand(sku), 3), customer="u-1", limit=limit)
    await world.ledger().commit(new_id(), [entry])
    await make_due(world, entry, due_s)
    return entry


async def make_due(world: World, entry: Entry, due_s: float) -> None:
    statement = "update orders set expires_at = clock_timestamp() + $2 where order_id = $1"
    await world.pool.execute(statement, UUID(entry.order_id), dt.timedelta(seconds=due_s))


async def expire(world: World, most: int = 100, skip: int = 0) -> Expired | None:
    async with world.pool.acquire() as connection:
        return await expiry.expire(connection, await now_s(connection), most, skip, 0, new_id(), ACTOR)


async def now_s(connection: asyncpg.Connection) -> float:
    return float((await connection.fetchval("select clock_timestamp()")).timestamp())


async def status_of(world: World, entry: Entry) -> tuple[str, int]:
    row = await world.pool.fetchrow("select status, version from orders where order_id = $1", UUID(entry.order_id))
    return row["status"], row["version"]


async def pay(world: World, entry: Entry) -> bool:
    """Whether the payment has won."""
    done = await order_changes.pay(world.pool, entry.order_id, 1, None, "P-1", None, "client:1", None, new_id())
    return done.outcome == "paid"


async def test_expiry_ends_an_order_that_is_due_and_gives_its_units_back(world: World) -> None:
    entry = await placed(world)
    before_ms = time.time_ns() // 1_000_000
    expired = await expire(world)
    assert expired is not None
    assert (expired.orders, expired.skus) == ([(entry.order_id, 2)], ["TEA"])
    assert expired.at_ms >= before_ms
    assert await status_of(world, entry) == ("expired", 2)
    assert await world.free("TEA") == 3
    assert await expire(world) is None


async def test_expiry_leaves_an_order_alone_that_is_not_due(world: World) -> None:
    entry = await placed(world, due_s=60)
    assert await expire(world) is None
    assert await status_of(world, entry) == ("pending_payment", 1)


async def test_expiry_leaves_an_order_alone_that_was_paid_or_cancelled(world: World) -> None:
    one, other = await placed(world, "A"), await placed(world, "B")
    assert await pay(world, one)
    assert (await world.cancel(other)).outcome == "cancelled"
    assert await expire(world) is None
    assert [(await status_of(world, entry))[0] for entry in (one, other)] == ["paid", "cancelled"]


async def test_expiry_lowers_what_buyers_have_taken(world: World) -> None:
    await placed(world, "A", limit=5)
    await placed(world, "B", limit=5)
    await expire(world)
    assert await world.taken() == {("A", "u-1"): 0, ("B", "u-1"): 0}


async def test_expiry_of_several_orders_of_one_buyer_lowers_his_limit_by_all_of_them(world: World) -> None:
    hand = await world.hand()
    for _ in range(3):
        entry = draft((hand, 2), customer="u-1", limit=9)
        await world.ledger().commit(new_id(), [entry])
        await make_due(world, entry, -1)
    await expire(world)
    assert (await world.taken(), await world.free("TEA")) == ({("TEA", "u-1"): 0}, 6)


async def test_expiry_of_an_order_without_stock_moves_nothing(world: World) -> None:
    entry = draft()
    await world.ledger().commit(new_id(), [entry])
    await make_due(world, entry, -1)
    expired = await expire(world)
    assert expired is not None
    assert expired.skus == []


async def test_expiry_takes_so_many_at_once_those_first_that_are_longest_due(world: World) -> None:
    entries = [await placed(world, sku, due_s) for sku, due_s in (("A", -1), ("B", -3), ("C", -2))]
    expired = await expire(world, most=2)
    assert expired is not None
    assert expired.skus == ["B", "C"]
    assert await status_of(world, entries[0]) == ("pending_payment", 1)


async def test_expiry_passes_over_those_that_are_longest_due(world: World) -> None:
    for sku, due_s in (("A", -1), ("B", -3), ("C", -2)):
        await placed(world, sku, due_s)
    expired = await expire(world, skip=1)
    assert expired is not None
    assert expired.skus == ["A", "C"]


async def test_expiry_stands_in_the_history_and_its_event_comes_out_the_same_from_there(world: World) -> None:
    entry = await placed(world)
    expired = await expire(world)
    assert expired is not None
    stored = (await orders.fetch(world.pool, [entry.order_id], history=True))[entry.order_id]
    change = restore_change(stored.history[1])
    assert change == Change(
        2, expired.at_ms, "expired", "expired", ACTOR, "pending_payment", "payment_timeout", ("status",)
    )
    first = event_of(restore(stored, None), restore_change(stored.history[0]), "/floodgate/test")
    assert b'"status":"pending_payment"' in first.payload


async def test_expiry_waits_in_the_outbox_under_its_batch(world: World) -> None:
    entry, batch_id = await placed(world), new_id()
    async with world.pool.acquire() as connection:
        await expiry.expire(connection, await now_s(connection), 100, 0, 0, batch_id, ACTOR)
    row = await world.pool.fetchrow("select order_ids, versions from outbox where batch_id = $1", UUID(batch_id))
    assert ([one.bytes for one in row["order_ids"]], row["versions"]) == ([entry.order_id], [2])


async def test_expiry_that_runs_many_times_at_once_ends_each_order_once(world: World) -> None:
    hand = await world.hand(units=400)
    entries = [draft((hand, 2), customer=f"u-{number % 7}", limit=1000) for number in range(140)]
    for start in range(0, len(entries), 7):
        await world.ledger().commit(new_id(), entries[start : start + 7])
    for entry in entries:
        await make_due(world, entry, -1)

    async def run() -> list[tuple[bytes, int]]:
        ended: list[tuple[bytes, int]] = []
        while (expired := await expire(world, most=9)) is not None:
            ended += expired.orders
        return ended

    ended = [one for of_one in await asyncio.gather(*(run() for _ in range(6))) for one in of_one]
    assert sorted(ended) == sorted((entry.order_id, 2) for entry in entries)
    assert await world.free("TEA") == 280


async def test_exactly_one_of_payment_cancellation_and_expiry_wins(world: World) -> None:
    won = {"paid": 0, "cancelled": 0, "expired": 0}
    for number in range(24):
        entry = await placed(world, f"SKU-{number}", due_s=-1)
        calls = [pay(world, entry), world.cancel(entry), expire(world)]
        first = number % 3  # Who is asked first; in the first rounds he is alone.
        order = calls[first:] + calls[:first]
        answers: list[Any] = [await order.pop(0)] if number < 3 else []
        answers += await asyncio.gather(*order)
        paid, cancelled, expired = answers[3 - first :] + answers[: 3 - first]
        outcomes = {"paid": bool(paid), "cancelled": cancelled.outcome == "cancelled", "expired": expired is not None}
        assert list(outcomes.values()).count(True) == 1, outcomes
        status, _ = await status_of(world, entry)
        assert outcomes[status]
        won[status] += 1
        assert await world.free(f"SKU-{number}") == (0 if status == "paid" else 3)
    assert min(won.values()) > 0, won


async def test_expiry_passes_over_an_order_that_somebody_holds_and_ends_it_later(world: World) -> None:
    held, other = await placed(world, "A"), await placed(world, "B")
    async with world.pool.acquire() as holder, holder.transaction():
        await holder.fetch("select from orders where order_id = $1 for update", UUID(held.order_id))
        expired = await expire(world)
        assert expired is not None
        assert expired.orders == [(other.order_id, 2)]
    assert (await expire(world)).orders == [(held.order_id, 2)]  # type: ignore[union-attr]


async def test_expiry_waits_longer_for_orders_from_before_a_step_of_the_clock(world: World) -> None:
    """The clock was put forward by an hour: who had half an hour to pay still has it."""
    before = await placed(world, "A")
    assert await note_step(world, 3600.0) == 3600.0
    after = await placed(world, "B")
    expired = await expire(world)
    assert expired is not None
    assert expired.orders == [(after.order_id, 2)]
    await make_due(world, before, -3599)
    assert await expire(world) is None
    await make_due(world, before, -3601)
    assert await expire(world) is not None


async def test_step_of_the_clock_is_noted_once_by_however_many(world: World) -> None:
    async def note(number: int) -> float:
        async with world.pool.acquire() as connection:
            return (await expiry.note_step(connection, 0, await now_s(connection), 60.0 + number / 100))[0]

    news = await asyncio.gather(*map(note, range(5)))
    assert sum(one > 0 for one in news) == 1
    assert await note_step(world, 60.0, known=await world.value("select max(step) from clock_step")) == 60.0
    assert await world.count("clock_step") == 2


async def test_steps_of_which_another_has_noted_one_are_noted_to_the_end(world: World) -> None:
    assert await note_step(world, 3.0) == 3.0
    assert await note_step(world, 5.0) == 2.0
    assert await note_step(world, 5.0) == 0.0


async def test_look_at_the_clock_is_kept_for_the_same_boot_of_a_host(world: World) -> None:
    async with world.pool.acquire() as connection:
        look = (await expiry.look_at_clock(connection))._replace(steps=7)
        assert await expiry.last_look(connection, "one") is None
        await expiry.keep_look(connection, "one", look)
        before = look.reading._replace(asked_at=look.reading.asked_at - 5)
        await expiry.keep_look(connection, "one", Look(before, 8))
        assert await expiry.last_look(connection, "one") == look
        assert await expiry.last_look(connection, "other") is None


async def note_step(world: World, ahead_s: float, known: int = 0) -> float:
    async with world.pool.acquire() as connection:
        news_s, last = await expiry.note_step(connection, known, await now_s(connection), ahead_s)
    assert last == await world.value("select max(step) from clock_step")
    return news_s


async def test_expiry_finds_what_is_due_by_its_index(world: World) -> None:
    entry = await placed(world)
    async with world.pool.acquire() as connection:
        now = await connection.fetchval("select clock_timestamp()")
        plan = await connection.fetch(
            "explain select order_id from orders where status = 'pending_payment' and expires_at <= $1"
            " order by expires_at limit 500 for no key update skip locked",
            now,
        )
    text = "\n".join(row[0] for row in plan)
    assert "Index Cond: (expires_at <= " in text, text
    assert "Seq Scan" not in text, text
    await pay(world, entry)


async def test_cancel_after_expiry_says_that_it_is_too_late(world: World) -> None:
    entry = await placed(world)
    await expire(world)
    assert await world.cancel(entry, version=2) == order_changes.Cancelled("not_cancellable", "expired", [])


async def test_expiry_that_cannot_give_units_back_ends_nothing(world: World) -> None:
    entry = await placed(world)
    await world.pool.execute("update stock_shard set sku = 'GONE'")
    with pytest.raises(asyncpg.RaiseError, match="no shard takes 3 units of TEA back"):
        await expire(world)
    assert await status_of(world, entry) == ("pending_payment", 1)
    await world.pool.execute("update stock_shard set sku = 'TEA'")
