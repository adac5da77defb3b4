"""The events of products: what a whole system tells of each change, once in effect, through crashes of stewards and
outages of the stream.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest

from gateway.steward.product_events import ProductEvents
from persistence.nats.stream import STOCK, Stream, StreamSettings
from persistence.postgres import catalogue, product_events
from persistence.postgres.catalogue import ProductRow
from persistence.postgres.connect import connect
from persistence.postgres.session import Session
from tests.worker_world import SKU, World, eventually, open_world

SETTINGS = StreamSettings(1, 604800, 600)
PRODUCT = ProductRow(SKU, "HEART T-LIGHT", 255, "CNY", stocked=True, active=True)
ALL = ["title", "price", "currency", "stocked", "active"]


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        yield world
        await world.assert_clean()


async def put(world: World, *products: ProductRow) -> None:
    assert await catalogue.put(world.pool, products)


async def stored(world: World) -> list[dict[str, Any]]:
    """Every event of a product in the stream, in order."""
    client = await nats.connect(world.nats_url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(STOCK)).state
        messages = [await jetstream.get_msg(STOCK, at) for at in range(max(state.first_seq, 1), state.last_seq + 1)]
    except nats.js.errors.NotFoundError:
        return []
    finally:
        await client.close()
    assert all((message.headers or {})["Nats-Msg-Id"] == json.loads(message.data or b"")["id"] for message in messages)
    return [json.loads(message.data or b"") for message in messages]


async def told(world: World) -> list[tuple[str, int, list[str]]]:
    data = [event["data"] for event in await stored(world)]
    return [(product["sku"], product["version"], product["changed"]) for product in data]


async def are_told(world: World) -> None:
    async def none_waits() -> bool:
        return await world.count("product_event") == 0

    await eventually("every change is told", none_waits)


async def test_product_that_changes_is_told_with_what_changed(world: World) -> None:
    await put(world, PRODUCT)
    await put(world, PRODUCT._replace(price=199, limit=2))
    await put(world, PRODUCT._replace(price=199, limit=2, active=False))
    await put(world, PRODUCT._replace(price=199, active=False))
    world.steward()
    await are_told(world)
    assert await told(world) == [
        (SKU, 1, ALL),
        (SKU, 2, ["price", "limit"]),
        (SKU, 3, ["active"]),
        (SKU, 4, ["limit"]),
    ]


async def test_product_event_shows_the_product_as_that_change_left_it(world: World) -> None:
    await put(world, PRODUCT._replace(limit=2))
    await put(world, PRODUCT._replace(price=199, stocked=False))
    world.steward(installation__name="here")
    await are_told(world)
    first, second = await stored(world)
    assert first["data"] == {
        "sku": SKU,
        "title": "HEART T-LIGHT",
        "price": 255,
        "currency": "CNY",
        "stocked": True,
        "active": True,
        "limit": 2,
        "version": 1,
        "changed": [*ALL, "limit"],
    }
    assert (second["data"]["price"], second["data"]["stocked"], "limit" in second["data"]) == (199, False, False)
    assert (first["source"], first["type"]) == ("/floodgate/here", "com.floodgate.stock.product_changed.v1")


async def test_product_that_is_written_as_it_was_is_not_told(world: World) -> None:
    await put(world, PRODUCT)
    await put(world, PRODUCT)
    assert await world.count("product_event") == 1


async def test_product_change_that_is_rolled_back_is_not_told(world: World) -> None:
    assert await catalogue.put(world.pool, [PRODUCT], if_version=7) is None
    assert await world.count("product_event") == 0


async def test_product_events_of_several_stewards_are_told_once(world: World) -> None:
    for _ in range(3):
        world.steward()
    for price in range(100, 104):
        await put(world, *(PRODUCT._replace(sku=f"S-{number:03d}", price=price) for number in range(300)))
    await are_told(world)
    found = [(sku, version) for sku, version, _ in await told(world)]
    assert sorted(found) == [(f"S-{number:03d}", version) for number in range(300) for version in range(1, 5)]


class Dying(Stream):
    """Stores what it is sent, and then takes its sender with it."""

    def __init__(self, stream: Stream) -> None:
        super().__init__("", "dying", 1.0)
        self._stream = stream

    async def publish(self, events: Any, stream: str = STOCK) -> int:
        await self._stream.publish(events, stream)
        raise RuntimeError("killed")


async def test_product_event_of_a_steward_that_died_before_it_put_it_away_is_told_once(world: World) -> None:
    await put(world, PRODUCT)
    stream = Stream(world.nats_url, "test", 5.0)
    await stream.ensure_streams(SETTINGS)
    session = Session(world.postgres_url, "test", 5.0)
    with pytest.raises(RuntimeError):
        await ProductEvents(session, Dying(stream), "/floodgate/local").publish()
    assert await world.count("product_event") == 1
    assert len(await stored(world)) == 1
    await stream.close()
    world.steward()
    await are_told(world)
    assert len(await stored(world)) == 1


async def test_product_events_wait_for_a_stream_that_is_away(world: World) -> None:
    stop = world.steward(nats__url="nats://127.0.0.1:1")
    await put(world, PRODUCT)
    await put(world, PRODUCT._replace(price=1))
    assert await world.count("product_event") == 2
    await stop()
    world.steward()
    await are_told(world)
    assert [version for _, version, _ in await told(world)] == [1, 2]


async def test_product_events_that_are_told_become_history(world: World) -> None:
    await put(world, PRODUCT, PRODUCT._replace(sku="B"))
    await put(world, PRODUCT._replace(price=1))
    world.steward()
    await are_told(world)
    first = await product_events.told_after(world.pool, "", 0, 2)
    rest = await product_events.told_after(world.pool, first[-1].sku, first[-1].version, 2)
    assert [(change.sku, change.version) for change in (*first, *rest)] == [(SKU, 1), (SKU, 2), ("B", 1)]


async def test_claim_of_product_events_goes_on_with_what_another_leaves(world: World) -> None:
    await put(world, PRODUCT._replace(sku="A"), PRODUCT._replace(sku="B"))
    one, other = await asyncio.gather(*(connect(world.postgres_url, "test") for _ in range(2)))
    async with product_events.claim(one, 1) as first, product_events.claim(other, 10) as second:
        assert [change.sku for change in (*first, *second)] == ["A", "B"]
    await one.close()
    await other.close()
