"""The projector against real servers: every event counts once, whatever is repeated, restarted or missing."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator, Callable

import asyncpg
import nats
import pytest
import structlog
from nats.js import JetStreamContext

from core_ext import documents, ids
from core_ext.shapes import Change, Line, Order
from deploy.local.servers import NatsServer
from gateway import projector
from gateway.projector import SUBJECT, Projector
from gateway.settings import Nats, Postgres, Settings
from persistence.nats import consume
from persistence.nats.consume import Consumer
from persistence.nats.stream import NAME, RESENT, Event, Stream, StreamSettings
from persistence.postgres import order_feed
from persistence.postgres.migrate import upgrade
from persistence.postgres.session import Session

MINUTE = dt.datetime(2026, 11, 11, 0, 5, tzinfo=dt.UTC)
FOUND_S = 30.0  # the longest that a test waits for what has to come
STREAM = StreamSettings(replicas=1, max_age_s=3600, duplicate_window_s=60)


def created(channel: str = "app", units: int = 1, second: int = 0) -> Event:
    ms = int(MINUTE.timestamp() * 1000) + second * 1000
    order_id = ids.new_id(ms)
    lines = [Line(1, "A", "a", units, 100, units * 100, stocked=True)]
    order = Order(order_id, 1, channel, "CNY", "paid", 1, units * 100, lines, ms)
    change = Change(1, ms, "created", "paid", "client:test")
    payload = documents.event_json(order, change, "/floodgate/test")
    return Event(documents.event_subject(order_id, "created", channel), documents.event_id(order_id, 1), payload)


@pytest.fixture(params=["whole", "singly"], autouse=True)
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every projector reads and acknowledges events each way."""
    monkeypatch.setattr(consume, "can_write_whole", lambda: request.param == "whole")


@pytest.fixture
async def stream(nats_url: str) -> AsyncIterator[Stream]:
    stream = Stream(nats_url, "test", 5.0)
    await stream.ensure_stream(STREAM)
    yield stream
    await stream.close()


@pytest.fixture
async def make(nats_url: str) -> AsyncIterator[Callable[[str], Projector]]:
    """Makes projectors on a ledger; their connections are closed at the end."""
    opened: list[Consumer | Session] = []

    def make(postgres_url: str) -> Projector:
        consumer = Consumer(nats_url, order_feed.CONSUMER, SUBJECT)
        session = Session(postgres_url, "test", 5.0)
        opened.extend((consumer, session))
        return Projector(consumer, session, 3600.0)

    yield make
    for each in opened:
        await each.close()


def settings(nats_url: str, postgres_url: str) -> Settings:
    return Settings(nats=Nats(url=nats_url), postgres=Postgres(url=postgres_url))


async def feed(postgres_url: str) -> dict[tuple[dt.datetime, str], tuple[int, int]]:
    connection = await asyncpg.connect(postgres_url)
    try:
        rows = await connection.fetch("select * from order_feed")
        return {(row["minute"], row["channel"]): (row["orders"], row["units"]) for row in rows}
    except asyncpg.UndefinedTableError:
        return {}
    finally:
        await connection.close()


async def wait_for_orders(postgres_url: str, orders: int) -> None:
    """Until the feed holds so many orders; never more."""
    async with asyncio.timeout(FOUND_S):
        while (found := sum(counted for counted, _ in (await feed(postgres_url)).values())) < orders:
            await asyncio.sleep(0.05)
    assert found == orders


async def pending(nats_url: str) -> int:
    """Events that the consumer still has to see or to settle."""
    client = await nats.connect(nats_url)
    try:
        info = await client.jetstream().consumer_info(NAME, order_feed.CONSUMER)
        return (info.num_pending or 0) + (info.num_ack_pending or 0)
    finally:
        await client.close()


async def test_step_new_orders_are_counted_by_minute_and_channel(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str, nats_url: str
) -> None:
    await stream.publish(
        [created("app", 2), created("app", 3, second=59), created("shop", 5), created("app", 7, second=60)]
    )

    await make(postgres_url).step()

    assert await feed(postgres_url) == {
        (MINUTE, "app"): (2, 5),
        (MINUTE, "shop"): (1, 5),
        (MINUTE + dt.timedelta(minutes=1), "app"): (1, 7),
    }
    assert await pending(nats_url) == 0


async def test_step_other_events_are_not_taken(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str
) -> None:
    event = created()
    await stream.publish([event._replace(subject=event.subject.replace("created", "shipped"))])

    await make(postgres_url).step()

    assert await feed(postgres_url) == {}


async def test_step_event_that_stands_twice_in_the_stream_counts_once(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str
) -> None:
    event = created()
    jetstream: JetStreamContext = (await stream.ensure_open()).jetstream()
    for _ in range(2):
        await jetstream.publish(event.subject, event.payload)
    worker = make(postgres_url)

    await worker.step()
    await jetstream.publish(event.subject, event.payload)
    await worker.step()

    assert await feed(postgres_url) == {(MINUTE, "app"): (1, 1)}


async def test_step_event_sent_again_counts_once_though_its_id_is_forgotten(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str, nats_url: str
) -> None:
    event = created()
    connection = await asyncpg.connect(postgres_url)
    await stream.publish([event])
    await make(postgres_url).step()
    await connection.execute("update consumer_event set seen_at = now() - interval '2 hours'")
    await make(postgres_url).step()
    assert await connection.fetchval("select count(*) from consumer_event") == 0
    await connection.close()
    await (await stream.ensure_open()).jetstream().purge_stream(NAME)

    await send_again(stream, event)
    await make(postgres_url).step()

    assert await feed(postgres_url) == {(MINUTE, "app"): (1, 1)}
    assert await pending(nats_url) == 0


async def test_step_event_sent_again_that_was_never_seen_counts(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str
) -> None:
    now = dt.datetime.now(dt.UTC).replace(second=0, microsecond=0)
    event = created(second=int((now - MINUTE).total_seconds()))

    await send_again(stream, event)
    await send_again(stream, event)
    await make(postgres_url).step()

    assert await feed(postgres_url) == {(now, "app"): (1, 1)}


async def send_again(stream: Stream, event: Event) -> None:
    """As `floodgate events resend` does, long after the first time."""
    await (await stream.ensure_open()).jetstream().publish(event.subject, event.payload, headers={RESENT: "true"})


async def test_step_event_whose_ack_was_lost_counts_once(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str, nats_url: str
) -> None:
    await stream.publish([created(), created()])
    first = Consumer(nats_url, order_feed.CONSUMER, SUBJECT)
    deliveries = await first.fetch(10, 5.0)
    session = Session(postgres_url, "test", 5.0)
    minute = int(MINUTE.timestamp()) // 60
    events = [order_feed.Created(delivery.id, minute, "app", 1) for delivery in deliveries]
    assert await order_feed.apply(session, events, 3600.0) == 2
    await first.give_back(deliveries, 0.0)
    await first.close()
    await session.close()

    await make(postgres_url).step()

    assert await feed(postgres_url) == {(MINUTE, "app"): (2, 2)}
    assert await pending(nats_url) == 0


async def test_run_two_projectors_count_every_order_once(stream: Stream, postgres_url: str, nats_url: str) -> None:
    stop = asyncio.Event()
    running = [asyncio.create_task(projector.run(settings(nats_url, postgres_url), stop)) for _ in range(2)]
    for _ in range(6):
        await stream.publish([created() for _ in range(500)])

    await wait_for_orders(postgres_url, 3000)
    stop.set()
    await asyncio.gather(*running)

    assert await pending(nats_url) == 0


async def test_run_before_the_stream_is_there_waits_for_it(postgres_url: str, nats_url: str) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(settings(nats_url, postgres_url), stop))
    await asyncio.sleep(0.3)
    stream = Stream(nats_url, "test", 5.0)
    await stream.ensure_stream(STREAM)
    await stream.publish([created()])

    await wait_for_orders(postgres_url, 1)
    stop.set()
    await running
    await stream.close()


async def test_run_before_the_schema_is_there_gives_up_no_event(
    stream: Stream, empty_postgres_url: str, nats_url: str
) -> None:
    await stream.publish([created(), created()])
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(settings(nats_url, empty_postgres_url), stop))
    await asyncio.sleep(0.3)
    await upgrade(empty_postgres_url)

    await wait_for_orders(empty_postgres_url, 2)
    stop.set()
    await running


async def test_run_after_the_stream_server_was_killed_goes_on(
    stream: Stream, postgres_url: str, nats_url: str, nats_server: NatsServer
) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(settings(nats_url, postgres_url), stop))
    await stream.publish([created()])
    await wait_for_orders(postgres_url, 1)

    nats_server.kill()
    nats_server.start()
    nats_server.wait_ready()
    after = Stream(nats_url, "after", 5.0)
    await after.publish([created()])

    await wait_for_orders(postgres_url, 2)
    stop.set()
    await running
    await after.close()


async def test_run_after_the_stream_was_made_anew_goes_on(stream: Stream, postgres_url: str, nats_url: str) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(settings(nats_url, postgres_url), stop))
    await stream.publish([created()])
    await wait_for_orders(postgres_url, 1)

    await (await stream.ensure_open()).jetstream().delete_stream(NAME)
    await stream.ensure_stream(STREAM)
    await stream.publish([created()])

    await wait_for_orders(postgres_url, 2)
    stop.set()
    await running


async def test_run_without_any_server_ends_when_asked_to() -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(projector.run(settings("nats://127.0.0.1:1", "postgresql://x@127.0.0.1:1/x"), stop))
    await asyncio.sleep(0.1)

    stop.set()

    async with asyncio.timeout(FOUND_S):
        await running


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b"[]",
        b'{"id":"x","data":{"channel":"app","created_at":"now","items":[]}}',
        b'{"id":"x","data":{"channel":"app","created_at":"2026-11-11T00:05:00","items":[]}}',
        b'{"id":"x","data":{"channel":"app","created_at":"9999-12-31T23:59:59-01:00","items":[]}}',
    ],
)
async def test_step_unreadable_event_is_set_aside_after_ten_deliveries_and_stops_nobody(
    stream: Stream,
    make: Callable[[str], Projector],
    postgres_url: str,
    nats_url: str,
    monkeypatch: pytest.MonkeyPatch,
    payload: bytes,
) -> None:
    monkeypatch.setattr(projector, "RETRY_S", 0.0)
    bad, good = created()._replace(payload=payload), created()
    await stream.publish([bad, good])
    worker = make(postgres_url)

    with structlog.testing.capture_logs() as logs:
        for _ in range(projector.ATTEMPTS_MAX):
            await worker.step()

    assert await feed(postgres_url) == {(MINUTE, "app"): (1, 1)}
    assert [(entry["event"], entry["event_id"]) for entry in logs] == [("event_set_aside", bad.id)]
    assert await pending(nats_url) == 0


async def test_step_event_that_postgres_refuses_does_not_take_its_neighbours_along(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str, nats_url: str
) -> None:
    bad = created()
    bad = bad._replace(payload=bad.payload.replace(b'"channel":"app"', b'"channel":"a\\u0000p"'))
    await stream.publish([created(), bad, created()])

    await make(postgres_url).step()

    assert await feed(postgres_url) == {(MINUTE, "app"): (2, 2)}
    assert await pending(nats_url) == 1


async def test_step_ids_that_the_stream_has_forgotten_are_dropped(
    stream: Stream, make: Callable[[str], Projector], postgres_url: str
) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "insert into consumer_event (consumer, event_id, seen_at) values"
        " ('projector', 'old', now() - interval '2 hours'), ('projector', 'new', now()),"
        " ('another', 'old', now() - interval '2 hours')"
    )

    await make(postgres_url).step()

    left = await connection.fetch("select consumer, event_id from consumer_event order by 1, 2")
    await connection.close()
    assert [tuple(row) for row in left] == [("another", "old"), ("projector", "new")]
