"""A durable consumer's events against a real server, read and acknowledged each way: as they stand on the wire, and by
nats-py's public calls.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import nats
import pytest

from persistence.errors import StreamUnavailableError
from persistence.nats import consume
from persistence.nats.consume import Consumer
from persistence.nats.pull import Delivery
from persistence.nats.stream import NAME, RESENT, Event, Stream, StreamSettings

DURABLE = "test"
SUBJECT = "orders.created.>"
FOUND_S = 30.0  # the longest that a test waits for what has to come
SETTINGS = StreamSettings(replicas=1, max_age_s=3600, duplicate_window_s=60)
EVENTS = [Event("orders.created.app.00", f"id{number}", b"payload %d" % number) for number in range(5)]
IDS = [event.id for event in EVENTS]


@pytest.fixture
async def stream(nats_url: str) -> AsyncIterator[Stream]:
    stream = Stream(nats_url, "test", 5.0)
    await stream.ensure_stream(SETTINGS)
    yield stream
    await stream.close()


@pytest.fixture(params=["whole", "singly"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def make(nats_url: str, way: str) -> AsyncIterator[Callable[[], Consumer]]:
    """Makes consumers, which are closed at the end."""
    made: list[Consumer] = []

    def make() -> Consumer:
        made.append(Consumer(nats_url, DURABLE, SUBJECT, whole=way == "whole"))
        return made[-1]

    yield make
    for consumer in made:
        await consumer.close()


async def pending(nats_url: str) -> int:
    """Events that the consumer still has to see or to settle."""
    client = await nats.connect(nats_url)
    try:
        info = await client.jetstream().consumer_info(NAME, DURABLE)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)
    finally:
        await client.close()


async def test_fetch_takes_up_to_the_limit_in_order_and_the_rest_next_time(
    stream: Stream, make: Callable[[], Consumer], way: str
) -> None:
    await stream.publish(EVENTS)
    consumer = make()

    first, second = await consumer.fetch(2, 5.0), await consumer.fetch(10, 5.0)

    assert consumer.way == way
    assert [delivery.id for delivery in first + second] == IDS
    assert [delivery.payload for delivery in first + second] == [event.payload for event in EVENTS]


async def test_fetch_waits_for_the_first_event_and_then_for_no_other(
    stream: Stream, make: Callable[[], Consumer]
) -> None:
    consumer = make()
    await consumer.fetch(1, 0.1)

    fetching = asyncio.create_task(consumer.fetch(10, 600.0))
    await stream.publish(EVENTS[:1])
    async with asyncio.timeout(FOUND_S):
        found = await fetching

    assert [delivery.id for delivery in found] == IDS[:1]


async def test_fetch_of_nothing_returns_none(stream: Stream, make: Callable[[], Consumer]) -> None:
    assert await make().fetch(10, 0.1) == []


async def test_delivery_without_message_id_is_named_by_its_place_in_the_stream(
    stream: Stream, make: Callable[[], Consumer]
) -> None:
    jetstream = (await stream.ensure_open()).jetstream()
    await jetstream.publish("orders.created.app.00", b"first", headers={RESENT: "true"})
    await jetstream.publish("orders.created.app.00", b"second", headers={"Other": RESENT})
    await jetstream.publish("orders.created.app.00", b"third")

    found = await make().fetch(10, 5.0)

    assert [(each.id, each.attempts, each.is_resent) for each in found] == [
        ("sequence 1", 1, True),
        ("sequence 2", 1, False),
        ("sequence 3", 1, False),
    ]


async def test_ack_is_for_what_it_was_told_and_nothing_else(
    stream: Stream, make: Callable[[], Consumer], nats_url: str
) -> None:
    await stream.publish(EVENTS)
    consumer = make()
    deliveries = await consumer.fetch(5, 5.0)

    await consumer.ack([deliveries[0], deliveries[2], deliveries[3]])
    await consumer.give_back([deliveries[1], deliveries[4]], 0.0)
    again = [*await consumer.fetch(1, 5.0), *await consumer.fetch(1, 5.0)]
    await consumer.ack(again)
    await consumer.close()

    assert {(delivery.id, delivery.attempts) for delivery in again} == {("id1", 2), ("id4", 2)}
    assert await pending(nats_url) == 0


async def test_terminate_event_never_comes_again(stream: Stream, make: Callable[[], Consumer], nats_url: str) -> None:
    await stream.publish(EVENTS[:1])
    consumer = make()

    await consumer.terminate((await consumer.fetch(1, 5.0))[0])
    await consumer.close()

    assert await pending(nats_url) == 0


async def test_give_back_with_a_pause_keeps_the_event_away_meanwhile(
    stream: Stream, make: Callable[[], Consumer], nats_url: str
) -> None:
    await stream.publish(EVENTS[:1])
    consumer = make()

    await consumer.give_back(await consumer.fetch(1, 5.0), 60.0)

    assert await consumer.fetch(1, 0.2) == []
    assert await pending(nats_url) == 1


async def test_close_gives_back_what_came_too_late_for_its_call(stream: Stream, make: Callable[[], Consumer]) -> None:
    consumer = make()
    assert await consumer.fetch(1, 0.1) == []
    await stream.publish(EVENTS)

    assert await consumer.fetch(10, 0.0) == []
    taken = await consumer.fetch(1, 5.0)
    await consumer.ack(taken)
    assert consumer._pull is not None
    async with asyncio.timeout(10):  # What is on the wire when it closes is given back by nobody.
        while len(consumer._pull._came) < len(IDS) - 1:
            await asyncio.sleep(0.01)
    await consumer.close()
    left: list[Delivery] = []
    another = make()
    async with asyncio.timeout(consume.ACK_WAIT_S / 2):  # What was not given back would come after all of it.
        while len(left) < len(IDS) - 1:
            left += await another.fetch(10, 1.0)

    assert sorted(delivery.id for delivery in taken + left) == IDS
    assert {delivery.attempts for delivery in left} == {2}


async def test_fetch_after_the_consumer_was_deleted_says_so_and_the_next_makes_it_anew(
    stream: Stream, make: Callable[[], Consumer]
) -> None:
    consumer = make()
    await stream.publish(EVENTS)
    await consumer.ack(await consumer.fetch(10, 5.0))
    await (await stream.ensure_open()).jetstream().delete_consumer(NAME, DURABLE)

    with pytest.raises(StreamUnavailableError):
        await consumer.fetch(10, 5.0)
    again = await consumer.fetch(10, 5.0)

    assert [delivery.id for delivery in again] == IDS


async def test_fetch_without_a_stream_says_so(nats_url: str, make: Callable[[], Consumer]) -> None:
    with pytest.raises(StreamUnavailableError, match="no stream"):
        await make().fetch(10, 1.0)


def test_consumer_with_a_driver_that_is_not_known_takes_the_public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("persistence.nats.client.version", lambda _: "3.0.0")

    assert consume.Consumer("nats://nowhere", DURABLE, SUBJECT).way == "singly"
