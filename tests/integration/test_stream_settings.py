"""The settings of the streams on a real server: what can be changed follows ours, what cannot is named, and a stream
that is full loses nothing.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from gateway.settings import Nats
from gateway.stream_watch import StreamWatch
from persistence.errors import StreamUnavailableError
from persistence.nats.stream import NAME, STOCK, Event, Stream, StreamSettings
from tests.worker_world import World, eventually, open_world, order_id_of

SETTINGS = StreamSettings(replicas=1, max_age_s=3600, duplicate_window_s=60, max_bytes=1_000_000)


@pytest.fixture
async def stream(nats_url: str) -> AsyncIterator[Stream]:
    stream = Stream(nats_url, "test", 5.0)
    yield stream
    await stream.close()


async def make(stream: Stream, **settings: Any) -> None:
    """The stream of orders as somebody else has made it."""
    jetstream = (await stream.ensure_open()).jetstream()
    await jetstream.add_stream(StreamConfig(name=NAME, subjects=["orders.>"], **settings))


async def config_of(stream: Stream, name: str = NAME) -> StreamConfig:
    return (await (await stream.ensure_open()).jetstream().stream_info(name)).config


async def test_ensure_streams_makes_them_without_faults(stream: Stream) -> None:
    await stream.ensure_streams(SETTINGS)
    assert await stream.faults(SETTINGS) == []
    assert (await config_of(stream, STOCK)).max_bytes == 1_000_000


async def test_ensure_streams_without_a_bound_of_bytes_sets_none(stream: Stream) -> None:
    await stream.ensure_streams(SETTINGS._replace(max_bytes=0))
    assert (await config_of(stream)).max_bytes == -1
    assert await stream.faults(SETTINGS._replace(max_bytes=0)) == []


async def test_ensure_streams_changes_what_can_be_changed(stream: Stream) -> None:
    await make(stream, storage=StorageType.FILE)
    assert len(await stream.faults(SETTINGS)) > 3
    await stream.ensure_streams(SETTINGS)
    assert await stream.faults(SETTINGS) == []
    changed = StreamSettings(1, 7200, 120, 2_000_000)
    await stream.ensure_streams(changed)
    assert await stream.faults(changed) == []


async def test_ensure_streams_leaves_alone_what_is_no_setting_of_ours(stream: Stream) -> None:
    await make(stream, storage=StorageType.FILE, max_msgs=1000, description="ours")
    await stream.ensure_streams(SETTINGS)
    config = await config_of(stream)
    assert (config.max_msgs, config.description) == (1000, "ours")


async def test_ensure_streams_makes_the_one_though_the_other_cannot_be_made(stream: Stream) -> None:
    jetstream = (await stream.ensure_open()).jetstream()
    await jetstream.add_stream(StreamConfig(name="THEIRS", subjects=["orders.created.>"]))
    with pytest.raises(StreamUnavailableError, match="ORDERS"):
        await stream.ensure_streams(SETTINGS)
    assert (await config_of(stream, STOCK)).max_bytes == 1_000_000


async def test_faults_name_what_can_only_be_made_anew(stream: Stream) -> None:
    await make(stream, storage=StorageType.MEMORY, retention=RetentionPolicy.INTEREST)
    await stream.ensure_streams(SETTINGS)
    assert await stream.faults(SETTINGS) == [
        "stream ORDERS: storage is memory, not file: it can only be made anew",
        "stream ORDERS: retention is interest, not limits: it can only be made anew",
    ]


async def test_faults_name_a_stream_that_is_missing(stream: Stream) -> None:
    assert await stream.faults(SETTINGS) == [
        f"there is no stream {name}: `floodgate migrate` makes it" for name in (NAME, STOCK)
    ]


async def test_faults_of_a_server_that_is_away_are_not_known() -> None:
    with pytest.raises(StreamUnavailableError):
        await Stream("nats://127.0.0.1:1", "test", 1.0).faults(SETTINGS)


async def test_watch_keeps_its_findings_until_they_are_mended(stream: Stream) -> None:
    watch = StreamWatch(stream, Nats(max_age_s=3600, duplicate_window_s=60, max_bytes=1_000_000))
    await watch.look()
    assert len(watch.faults) == 2
    await stream.ensure_streams(SETTINGS)
    await watch.look()
    assert watch.faults == []


async def test_publish_to_a_full_stream_is_refused_and_noted(stream: Stream) -> None:
    small = SETTINGS._replace(max_bytes=2000)
    await stream.ensure_streams(small)
    with pytest.raises(StreamUnavailableError, match="maximum bytes exceeded"):
        await stream.publish([Event("orders.created.app.00", f"{at}.1", b"x" * 900) for at in range(3)])
    assert stream.full
    await stream.ensure_streams(SETTINGS)
    await stream.publish([Event("orders.created.app.00", f"{at}.1", b"x" * 900) for at in range(3)])
    assert not stream.full


async def test_publish_tells_how_many_the_stream_knew(stream: Stream) -> None:
    await stream.ensure_streams(SETTINGS)
    events = [Event("orders.created.app.00", f"{at}.1", b"x") for at in range(4)]
    assert await stream.publish(events[:2]) == 0
    assert await stream.publish(events) == 2
    assert await stream.publish(events[:1]) == 1


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=500)
        yield world
        await world.assert_clean()


async def test_worker_names_what_is_wrong_with_the_streams(world: World, stream: Stream) -> None:
    await world.remove_stream()
    await make(stream, storage=StorageType.MEMORY)
    shop = await world.shop()

    async def is_named() -> bool:
        return "storage is memory" in shop.services.faults().get("stream_settings", "")

    await eventually("the fault is named", is_named)
    assert shop.services.ready()["stream_settings"] is False
    assert shop.services.takes_orders
    text = shop.services.exporter.text().decode()
    assert any(line.startswith("floodgate_stream_faults{") and not line.endswith(" 0.0") for line in text.splitlines())


async def test_orders_go_on_while_the_stream_is_full_and_each_event_is_stored_once(
    world: World, stream: Stream
) -> None:
    tiny = StreamSettings(1, 604800, 600, max_bytes=5000)
    await stream.ensure_streams(tiny)
    shop = await world.shop(nats__max_bytes=5000)
    stop = world.steward(nats__max_bytes=5000)
    order_ids = [order_id_of(await shop.buy(f"k-{number}")) for number in range(40)]
    await eventually("the alarm is on", lambda: _says(shop, "floodgate_stream_full", "1.0"))
    assert await world.count("outbox") > 0
    assert len(await world.events()) < 40
    await stop()

    world.steward(nats__max_bytes=1_000_000)
    await eventually("the outbox is empty", world.outbox_is_empty)
    order_ids.append(order_id_of(await shop.buy("k-last")))
    await eventually("the outbox is empty", world.outbox_is_empty)
    stored = [json.loads(event.payload)["data"]["order_id"] for event in await world.events()]
    assert sorted(stored) == sorted(order_ids)
    await eventually("the alarm is off", lambda: _says(shop, "floodgate_stream_full", "0.0"))


async def _says(shop: Any, name: str, value: str) -> bool:
    lines = shop.services.exporter.text().decode().splitlines()
    return any(line.startswith(f"{name}{{") and line.endswith(value) for line in lines)
