"""The stream of stock: what a whole system tells of a SKU, once and in order, through crashes of stewards and outages
of the stream.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest

from gateway.domain.stock_keys import stock_key
from gateway.live import Live
from gateway.steward.levels import Levels
from persistence.nats.stream import STOCK, Stream, StreamSettings
from persistence.postgres import levels, stock
from persistence.postgres.connect import connect
from persistence.postgres.session import Session
from tests.worker_world import SKU, StoredEvent, World, eventually, open_world, order, order_id_of

SETTINGS = StreamSettings(1, 604800, 600)


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        yield world
        await world.assert_clean()


async def stored(world: World) -> list[StoredEvent]:
    """Every event of a level in the stream, in order; nothing while there is no stream."""
    client = await nats.connect(world.nats_url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(STOCK)).state
        messages = [await jetstream.get_msg(STOCK, at) for at in range(max(state.first_seq, 1), state.last_seq + 1)]
    except nats.js.errors.NotFoundError:
        return []
    finally:
        await client.close()
    return [
        StoredEvent(message.subject or "", (message.headers or {})["Nats-Msg-Id"], message.data or b"")
        for message in messages
        if not (message.subject or "").startswith("stock.product_changed.")
    ]


async def told(world: World) -> list[tuple[str, int, str, int]]:
    """Event, version, level and units of each event in the stream."""
    documents = [json.loads(event.payload) for event in await stored(world)]
    return [
        (document["type"].split(".")[3], *(document["data"][name] for name in ("version", "level", "available")))
        for document in documents
    ]


async def are_told(world: World, count: int) -> None:
    async def so_many() -> bool:
        return len(await stored(world)) >= count and await world.count("stock_event") == 0

    await eventually(f"{count} events are told", so_many)


async def set_units(world: World, units: int, sku: str = SKU) -> None:
    outcome, _, _ = await stock.set_total(world.pool, sku, units, 4, "test", None, None)
    assert outcome == "set"


async def test_stock_that_sells_out_and_comes_back_is_told_in_order(world: World) -> None:
    await world.product(units=12)
    shop = await world.shop()
    world.steward()
    order_id_of(await shop.buy("k-1", order(quantity=4)))
    await are_told(world, 1)
    order_id_of(await shop.buy("k-2", order(quantity=8)))
    await are_told(world, 2)
    await set_units(world, 15)
    await are_told(world, 3)
    assert await told(world) == [
        ("low", 1, "low", 8),
        ("sold_out", 2, "sold_out", 0),
        ("back_in_stock", 3, "low", 3),
    ]


async def test_stock_event_is_a_cloud_event(world: World) -> None:
    await world.product(units=0)
    world.steward(installation__name="here")
    await are_told(world, 1)
    (event,) = await stored(world)
    document = json.loads(event.payload)
    assert event.id == document["id"] == f"{SKU.encode().hex()}.1"
    assert event.subject.startswith("stock.sold_out.")
    assert document["source"] == "/floodgate/here"
    assert document["subject"] == SKU


async def test_stock_of_a_sale_is_told_with_its_sale(world: World) -> None:
    await world.product(units=100)
    await set_units(world, 0, stock_key("double-11", SKU))
    world.steward()
    await are_told(world, 1)
    (event,) = await stored(world)
    assert json.loads(event.payload)["data"] == {
        "sku": SKU,
        "sale_id": "double-11",
        "level": "sold_out",
        "previous_level": "in_stock",
        "available": 0,
        "version": 1,
    }
    await world.pool.execute("delete from stock_sku where total = 0")


async def test_stock_events_of_several_stewards_are_told_once(world: World) -> None:
    for number in range(30):
        await world.product(f"S-{number:02d}", 0)
    for _ in range(3):
        world.steward()
    await are_told(world, 30)
    for number in range(30):
        await set_units(world, 50, f"S-{number:02d}")
    await are_told(world, 60)
    assert len({event.id for event in await stored(world)}) == 60


async def test_stock_event_of_a_steward_that_died_before_it_removed_it_is_told_once(world: World) -> None:
    await world.product(units=0)
    stream = Stream(world.nats_url, "test", 5.0)
    await stream.ensure_streams(SETTINGS)
    session = Session(world.postgres_url, "test", 5.0)
    job = Levels(session, session, Dying(stream), "/floodgate/local", Live(world.settings()))
    await job.decide()
    with pytest.raises(RuntimeError):
        await job.publish()
    assert await world.count("stock_event") == 1
    assert len(await stored(world)) == 1
    await stream.close()
    world.steward()
    await eventually("the event is removed", lambda: is_removed(world))
    assert len(await stored(world)) == 1


async def is_removed(world: World) -> bool:
    return await world.count("stock_event") == 0


class Dying(Stream):
    """Stores what it is sent, and then takes its sender with it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__("", "dying", 1.0)
        self._stream = stream

    async def publish(self, events: Any, stream: str = STOCK) -> int:
        await self._stream.publish(events, stream)
        raise RuntimeError("killed")


async def test_stock_events_wait_for_a_stream_that_is_away_and_decisions_do_not(world: World) -> None:
    await world.product(units=0)
    stop = world.steward(nats__url="nats://127.0.0.1:1")
    await eventually("it is decided", lambda: world.value("select count(*) = 1 from stock_event"))
    await set_units(world, 50)
    await eventually("it is decided", lambda: world.value("select count(*) = 2 from stock_event"))
    await stop()
    world.steward()
    await are_told(world, 2)
    assert [event for event, *_ in await told(world)] == ["sold_out", "back_in_stock"]


async def test_claim_goes_on_with_what_another_leaves(world: World) -> None:
    for sku in ("A", "B"):
        await world.product(sku, 0)
    session = Session(world.postgres_url, "test", 5.0)
    await levels.decide(session, 10, "", 100)
    one, other = await asyncio.gather(*(connect(world.postgres_url, "test") for _ in range(2)))
    async with levels.claim(one, 1) as first, levels.claim(other, 10) as second:
        assert [change.sku for change in (*first, *second)] == ["A", "B"]
    await session.close()
    await one.close()
    await other.close()
