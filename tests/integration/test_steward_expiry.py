"""The steward's expiry on real servers: an order that nobody pays ends by itself, its units are sold to somebody else,
and the stream hears of it, from the steward or from the relay, in the same bytes.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg
import pytest

from gateway.orders import event_of, restore, restore_change
from gateway.steward import expiry as room
from gateway.steward.expiry import Expiry
from persistence.errors import StreamUnavailableError
from persistence.nats.stream import NAME, Event, Stream
from persistence.postgres import expiry as persistence_expiry
from persistence.postgres import orders
from persistence.postgres.control import Reading
from persistence.postgres.expiry import Look
from persistence.postgres.session import Session
from tests.ledger_world import force
from tests.worker_world import SKU, World, code_of, eventually, open_world, order, order_id_of

SOURCE = "/floodgate/local"
MANY = 700  # more than one statement ends
STEP_S = 3600.0
BOOT = "this one"


@pytest.fixture
async def world(postgres_url, nats_url, redis_url) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url, redis_url) as world:
        await world.product(units=100)
        yield world
        await world.assert_clean()


@asynccontextmanager
async def open_expiry(world: World, stream: Stream) -> AsyncIterator[Expiry]:
    """The job by itself, without a mirror; what it is to tell is told while the block runs."""
    ending, telling = (Session(world.postgres_url, f"fg-test-{name}", 5.0) for name in ("ending", "telling"))
    expiry = Expiry(ending, telling, stream, None, SOURCE, BOOT)
    teller = asyncio.create_task(expiry.tell())
    try:
        yield expiry
    finally:
        teller.cancel()
        await asyncio.gather(teller, return_exceptions=True)
        await ending.close()
        await telling.close()


class Deaf(Stream):
    """A stream that is away."""

    def __init__(self) -> None:
        super().__init__("", "deaf", 1.0)
        self.asked = 0

    async def publish(self, events: Sequence[Event], stream: str = NAME) -> int:
        self.asked += len(events)
        raise StreamUnavailableError(f"{stream} is away")


async def is_expired(world: World) -> bool:
    return await world.value("select bool_and(status = 'expired') from orders") is True


async def make_all_due(world: World) -> None:
    await world.pool.execute("update orders set expires_at = clock_timestamp() - interval '1 second'")


async def from_the_tables(world: World) -> list[bytes]:
    """The last event of each order, as anybody encodes it."""
    async with world.pool.acquire() as connection:
        ids = [row["order_id"].bytes for row in await connection.fetch("select order_id from orders order by 1")]
        stored = await orders.fetch(connection, ids, history=True)
    return [
        event_of(restore(stored[one], None), restore_change(stored[one].history[-1]), SOURCE).payload for one in ids
    ]


async def test_steward_ends_an_order_in_time_and_somebody_else_gets_its_units(world: World) -> None:
    shop = await world.shop(orders__payment_timeout_s=2)
    order_id = order_id_of(await shop.buy("k-1", order(quantity=100)))
    assert code_of(await shop.place("k-2", order(quantity=100))) == "sold_out"
    world.steward()
    await eventually("the order has expired", lambda: is_expired(world))
    due, ended = await world.pool.fetchrow(
        "select o.expires_at, h.at from orders o join order_history h using (order_id) where h.event = 'expired'"
    )
    assert ended >= due

    async def gets_them() -> bool:
        return (await shop.place("k-2", order(quantity=100))).status == 201

    await eventually("the units are for sale", gets_them)
    again = await shop.place("k-1", order(quantity=100))
    assert order_id_of(again) == order_id, "a known key gets its order, whatever has become of it"


async def test_steward_tells_the_stream_what_the_tables_say(world: World) -> None:
    shop = await world.shop()
    for number in range(5):
        order_id_of(await shop.buy(f"k-{number}", order(customer_id="u-1", note="请放门口")))
    await make_all_due(world)
    world.steward()
    await eventually("the orders have expired", lambda: is_expired(world))
    await eventually("the outbox is empty", world.outbox_is_empty)
    told = [event for event in await world.events() if event.subject.startswith("orders.expired.app.")]
    assert sorted(event.payload for event in told) == sorted(await from_the_tables(world))
    data = [json.loads(event.payload)["data"] for event in told]
    assert {(one["status"], one["previous_status"], one["reason"], one["version"]) for one in data} == {
        ("expired", "pending_payment", "payment_timeout", 2)
    }
    assert all("note" not in one for one in data)


async def test_expiry_of_many_ends_and_tells_all(world: World, nats_url) -> None:
    await world.product("MANY", units=MANY)
    shop = await world.shop()
    await asyncio.gather(*(shop.buy(f"k-{number}", order("MANY")) for number in range(MANY)))
    await make_all_due(world)
    stream = Stream(nats_url, "test", 5.0)
    async with open_expiry(world, stream) as expiry:
        await expiry.run_pass()
        assert expiry.ended == MANY
        await eventually("the outbox is empty", world.outbox_is_empty)
    await stream.close()
    ids = [event.id for event in await world.events() if event.subject.startswith("orders.expired.")]
    assert sorted(ids) == sorted(f"{order_id}.2" for order_id in await world.order_ids())


async def test_expiry_while_the_stream_is_away_leaves_the_events_to_the_relay(world: World) -> None:
    shop = await world.shop()
    order_id_of(await shop.buy("k-1"))
    await eventually("the outbox is empty", world.outbox_is_empty)
    await make_all_due(world)
    deaf = Deaf()
    async with open_expiry(world, deaf) as expiry:
        await expiry.run_pass()
        await eventually("it has tried", lambda: asyncio.sleep(0, deaf.asked))
    assert await is_expired(world)
    assert await world.count("outbox") == 1
    world.steward()
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert [event.payload for event in await world.events()][1:] == await from_the_tables(world)


async def test_expiry_of_an_order_that_cannot_end_ends_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    await world.product("GONE", units=1)
    shop = await world.shop()
    for number in range(5):
        order_id_of(await shop.buy(f"k-{number}", order("GONE" if number == 2 else SKU)))
    await make_all_due(world)
    await world.pool.execute("update stock_shard set sku = 'AWAY' where sku = 'GONE'")
    async with open_expiry(world, Deaf()) as expiry:
        await expiry.run_pass()
        assert expiry.ended == 4
        assert "order_cannot_expire" in capfd.readouterr().out
        await expiry.run_pass()
        assert "order_cannot_expire" not in capfd.readouterr().out, "it is not tried again and again"
        await world.pool.execute("update stock_shard set sku = 'GONE' where sku = 'AWAY'")
        monkeypatch.setattr(room, "PASS_OVER_S", 0.0)
        await expiry.run_pass()
        assert expiry.ended == 5
    assert await is_expired(world)


async def test_stewards_that_run_at_once_end_each_order_once(world: World) -> None:
    shop = await world.shop()
    for number in range(20):
        order_id_of(await shop.buy(f"k-{number}"))
    await make_all_due(world)
    for _ in range(3):
        world.steward()
    await eventually("the orders have expired", lambda: is_expired(world))
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert await world.value("select count(*) from order_history where event = 'expired'") == 20
    assert len([event for event in await world.events() if event.id.endswith(".2")]) == 20


@pytest.mark.parametrize("ahead_s", [STEP_S, 2.0])
async def test_expiry_notes_that_the_ledger_s_clock_was_put_forward(
    world: World, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    async with open_expiry(world, Deaf()) as expiry:
        await expiry.run_pass()
        put_forward(monkeypatch, ahead_s)
        await expiry.run_pass()
        await expiry.run_pass()
    assert [ahead_s <= noted <= ahead_s + 0.5 for noted in await noted_steps(world)] == [True]


async def test_expiry_notes_one_step_after_the_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_expiry(world, Deaf()) as expiry:
        for _ in range(3):
            await expiry.run_pass()
            put_forward(monkeypatch, STEP_S)
        await expiry.run_pass()
    assert [STEP_S <= noted <= STEP_S + 0.5 for noted in await noted_steps(world)] == [True] * 3


async def test_expiry_that_is_started_after_a_step_notes_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_expiry(world, Deaf()) as expiry:
        await expiry.run_pass()
    put_forward(monkeypatch, STEP_S)
    async with open_expiry(world, Deaf()) as expiry:
        await expiry.run_pass()
    assert len(await noted_steps(world)) == 1


async def test_expiry_that_is_started_between_two_steps_notes_the_second_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        async with open_expiry(world, Deaf()) as expiry:
            await expiry.run_pass()
        put_forward(monkeypatch, STEP_S)
    assert [STEP_S <= noted <= STEP_S + 0.5 for noted in await noted_steps(world)] == [True] * 2


async def test_expiry_of_several_notes_a_step_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_expiry(world, Deaf()) as one, open_expiry(world, Deaf()) as other:
        await one.run_pass()
        await other.run_pass()
        put_forward(monkeypatch, STEP_S)
        await asyncio.gather(one.run_pass(), other.run_pass())
    assert len(await noted_steps(world)) == 1


async def test_step_ends_no_order_early_and_none_late_that_was_placed_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = await world.shop()
    order_id_of(await shop.buy("k-1"))
    later = order_id_of(await shop.buy("k-2"))
    async with open_expiry(world, Deaf()) as expiry:
        await expiry.run_pass()
        put_forward(monkeypatch, STEP_S)
        await make_all_due(world)
        await expiry.run_pass()
        assert expiry.ended == 0, "both have an hour more"
        placed = "update orders set created_at = created_at + interval '2 hours' where order_id = $1"
        await force(world.pool, placed, later)
        await expiry.run_pass()
    assert str(await world.value("select order_id from orders where status = 'expired'")) == later


@pytest.mark.parametrize("ahead_s", [-STEP_S, 0.05])
async def test_expiry_takes_nothing_else_for_a_step(
    world: World, monkeypatch: pytest.MonkeyPatch, ahead_s: float
) -> None:
    async with open_expiry(world, Deaf()) as expiry:
        await expiry.run_pass()
        put_forward(monkeypatch, ahead_s)
        await expiry.run_pass()
        put_forward(monkeypatch, 0.0, slow_s=STEP_S)
        await expiry.run_pass()
    assert await noted_steps(world) == []


async def noted_steps(world: World) -> list[float]:
    rows = await world.pool.fetch("select extract(epoch from ahead)::float as ahead_s from clock_step order by step")
    return [row["ahead_s"] for row in rows]


def put_forward(monkeypatch: pytest.MonkeyPatch, ahead_s: float, slow_s: float = 0.0) -> None:
    """From now on the ledger's clock is ahead of what it is, and a look at it takes as long as this."""
    look = persistence_expiry.look_at_clock

    async def look_at_clock(connection: asyncpg.Connection) -> Look:
        (ledger_time_s, asked_at, answered_at), steps = await look(connection)
        return Look(Reading(ledger_time_s + ahead_s + slow_s, asked_at, answered_at + slow_s), steps)

    monkeypatch.setattr(persistence_expiry, "look_at_clock", look_at_clock)
