"""The stream killed, silent, cut off and away, between a publish and its ack: every publish ends, says that its events
are not known to be stored, and is sent again to one effect.

The events go either way, in one write or singly. NATS is a real one; what is lost is lost by a proxy.
"""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg
import nats
import pytest
from nats.aio.client import DEFAULT_MAX_RECONNECT_ATTEMPTS, Client

from bench.faults import wire
from core_ext import documents, ids
from core_ext.shapes import Change, Line, Order
from deploy.local.servers import NatsServer
from gateway.projector import SUBJECT, Projector
from persistence.errors import StreamUnavailableError
from persistence.nats.consume import Consumer
from persistence.nats.stream import NAME, Ack, Event, Stream, StreamSettings
from persistence.postgres import order_feed
from persistence.postgres.session import Session
from tests.cut_proxy import CutProxy, Loss, Trigger, open_proxy
from tests.worker_world import stored_events

SETTINGS = StreamSettings(replicas=1, max_age_s=3600, duplicate_window_s=60)
FORGETFUL = SETTINGS._replace(duplicate_window_s=1)
EVENT = Trigger(re.compile(wire.EVENT.request), re.compile(wire.EVENT.reply))
ACK_S = 1.0  # how long a publish waits for its ack
PUBLISHES = 20
BATCHES_OPEN_MAX = 50  # atomic batches that are begun and not finished; the server forgets them after 10 s
WAIT_S = 40.0
LOOK_AGAIN_S = 0.02
CREATED_MS = 1_762_819_500_000

whole_and_singly = pytest.mark.parametrize("whole", [True, False], ids=["whole", "singly"])


@pytest.fixture
async def stream(nats_url: str, *, whole: bool) -> AsyncIterator[Stream]:
    async with open_stream(nats_url, whole=whole) as stream:
        yield stream


@asynccontextmanager
async def open_stream(url: str, *, whole: bool) -> AsyncIterator[Stream]:
    stream = Stream(url, "test", ACK_S, whole=whole)
    await stream.ensure_stream(SETTINGS)
    yield stream
    await stream.close()


class Proxied(NamedTuple):
    """A stream, and what stands between it and the server."""

    stream: Stream
    proxy: CutProxy


@pytest.fixture
async def proxied(nats_url: str, *, whole: bool) -> AsyncIterator[Proxied]:
    async with open_proxy(nats_url) as proxy, open_stream(proxy.url, whole=whole) as stream:
        yield Proxied(stream, proxy)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections look after themselves as they are asked to, only far more often."""
    connect = Client.connect

    async def connect_impatiently(self: Client, *arguments: Any, **options: Any) -> None:
        if "ping_interval" in options:
            options |= {"ping_interval": 0.1, "reconnect_time_wait": 0.002}
        await connect(self, *arguments, **options)

    monkeypatch.setattr(Client, "connect", connect_impatiently)


def event(name: str) -> Event:
    return Event("orders.created.app.07", name, f'{{"id":"{name}"}}'.encode())


def created() -> Event:
    """The event of an order of one unit, as a worker makes it."""
    order_id = ids.new_id(CREATED_MS)
    lines = [Line(1, "A", "a", 1, 100, 100, stocked=True)]
    order = Order(order_id, 1, "app", "CNY", "paid", 1, 100, lines, CREATED_MS)
    change = Change(1, CREATED_MS, "created", "paid", "client:test")
    payload = documents.event_json(order, change, "/floodgate/test")
    return Event(documents.event_subject(order_id, "created", "app"), documents.event_id(order_id, 1), payload)


async def stored(nats_url: str) -> list[str]:
    """The ids of everything in the stream, in order, asked for over a way that nothing is done to."""
    return [event.id for event in await stored_events(nats_url)]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(LOOK_AGAIN_S)


async def until_published(stream: Stream, events: list[Event]) -> int:
    """As whoever finds them in the outbox does: again and again. Returns how many the stream knew."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await stream.publish(events)
            except StreamUnavailableError:
                await asyncio.sleep(LOOK_AGAIN_S)


@contextmanager
def restarted(server: NatsServer) -> Iterator[None]:
    """Killed, and started again at the end; in this thread, since a server dies with the thread that started it."""
    server.kill()
    try:
        yield
    finally:
        server.start()
        server.wait_ready()


async def is_unknown(publishing: Awaitable[int]) -> bool:
    """Whether it is said of these events that they are not known to be stored."""
    try:
        await publishing
    except StreamUnavailableError:
        return True
    return False


@whole_and_singly
async def test_publishes_under_way_when_the_server_is_killed_end_and_are_stored_once_when_sent_again(
    stream: Stream, nats_url: str, nats_server: NatsServer
) -> None:
    events = [[event(f"{number}-{part}") for part in range(1 + number % 3)] for number in range(PUBLISHES)]
    nats_server.send(signal.SIGSTOP)
    publishing = [asyncio.create_task(is_unknown(stream.publish(some))) for some in events]
    await until(lambda: len(stream._waiting) == PUBLISHES)
    with restarted(nats_server):
        assert await asyncio.gather(*publishing) == [True] * PUBLISHES
        assert stream._waiting == {}
    for some in events:
        await until_published(stream, some)
    assert sorted(await stored(nats_url)) == sorted(one.id for some in events for one in some)


@whole_and_singly
@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]], ids=["one", "several"])
async def test_publish_whose_ack_is_lost_is_stored_once_when_sent_again(
    proxied: Proxied, nats_url: str, names: list[str]
) -> None:
    stream, proxy = proxied
    events = [event(name) for name in names]
    proxy.arm(EVENT, Loss.REPLY)
    assert await is_unknown(stream.publish(events))
    assert proxy.cut.is_set()
    assert await stored(nats_url) == names
    assert await until_published(stream, events) == len(names)
    assert await stored(nats_url) == names


@whole_and_singly
@pytest.mark.parametrize("loss", [Loss.REQUEST, Loss.SILENCE])
@pytest.mark.usefixtures("impatient")
async def test_publish_that_never_arrives_is_stored_once_when_sent_again(
    proxied: Proxied, nats_url: str, loss: Loss
) -> None:
    """A connection that has fallen silent is noticed by its pings, and left for another one."""
    stream, proxy = proxied
    events = [event("a"), event("b")]
    proxy.arm(EVENT, loss)
    assert await is_unknown(stream.publish(events))
    assert proxy.cut.is_set()
    assert await until_published(stream, events) == 0
    assert await stored(nats_url) == ["a", "b"]


@whole_and_singly
async def test_publish_while_the_server_is_away_is_refused_and_never_sent_later(
    stream: Stream, nats_url: str, nats_server: NatsServer
) -> None:
    with restarted(nats_server):
        await until(lambda: not stream.connected)
        for number in range(PUBLISHES):
            assert await is_unknown(stream.publish([event(f"early-{number}"), event(f"early-too-{number}")]))
    await until_published(stream, [event("next")])
    assert await stored(nats_url) == ["next"]


@whole_and_singly
@pytest.mark.usefixtures("impatient")
async def test_stream_whose_server_is_away_for_more_attempts_than_the_driver_bears_comes_back(
    stream: Stream, nats_url: str, nats_server: NatsServer
) -> None:
    (server,) = (await stream.ensure_open())._server_pool
    with restarted(nats_server):
        await until(lambda: server.reconnects > 2 * DEFAULT_MAX_RECONNECT_ATTEMPTS)
    assert await until_published(stream, [event("a")]) == 0
    assert await stored(nats_url) == ["a"]


@whole_and_singly
async def test_publish_that_is_cancelled_leaves_nothing_behind(stream: Stream, nats_server: NatsServer) -> None:
    nats_server.send(signal.SIGSTOP)
    publishing = asyncio.create_task(stream.publish([event("a"), event("b")]))
    await until(lambda: bool(stream._waiting))
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    nats_server.send(signal.SIGCONT)
    assert stream._waiting == {}
    await until_published(stream, [event("c")])


@whole_and_singly
async def test_publish_that_cannot_be_sent_leaves_nothing_behind(stream: Stream) -> None:
    client = await stream.ensure_open()
    assert await is_unknown(stream.publish([event("a")._replace(payload=bytes(client.max_payload + 1))]))
    assert stream._waiting == {}


@pytest.mark.parametrize("whole", [True], ids=["whole"])
@pytest.mark.parametrize("names", [["a"], ["a", "b"]], ids=["one", "several"])
async def test_ack_without_a_place_in_the_stream_is_none(
    stream: Stream, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    """A server whose leader had changed once said so of events that it never stored."""

    async def misled(_: str) -> Ack:
        return Ack(stream=NAME, seq=0, duplicate=True, count=len(names))

    monkeypatch.setattr(stream, "_ack", misled)
    assert await is_unknown(stream.publish([event(name) for name in names]))


@pytest.mark.parametrize("whole", [True], ids=["whole"])
async def test_publish_beside_more_unfinished_batches_than_the_server_bears_is_stored_once_in_the_end(
    stream: Stream, nats_url: str
) -> None:
    """What connections that were cut in the middle of an atomic batch leave behind."""
    client = await nats.connect(nats_url)
    for number in range(BATCHES_OPEN_MAX + 10):
        headers = {"Nats-Batch-Id": f"cut-{number}", "Nats-Batch-Sequence": "1"}
        await client.publish("orders.created.app.07", b"{}", headers=headers)
    await client.flush()
    await client.close()
    assert await until_published(stream, [event("a"), event("b")]) == 0
    assert await stored(nats_url) == ["a", "b"]


@pytest.mark.parametrize("whole", [True], ids=["whole"])
async def test_event_sent_again_after_an_outage_longer_than_the_window_stands_twice_and_counts_once(
    proxied: Proxied, nats_url: str, nats_server: NatsServer, postgres_url: str
) -> None:
    stream, proxy = proxied
    await stream.ensure_stream(FORGETFUL)
    order = created()
    proxy.arm(EVENT, Loss.REPLY)
    assert await is_unknown(stream.publish([order]))
    await stream.close()
    with restarted(nats_server):
        pass
    async with open_relay(nats_url) as relay, asyncio.timeout(WAIT_S):
        while await until_published(relay, [order]):  # The server knows it still.
            await asyncio.sleep(LOOK_AGAIN_S)
    assert await stored(nats_url) == [order.id, order.id]
    assert await counted(nats_url, postgres_url) == [(1, 1)]


@asynccontextmanager
async def open_relay(url: str) -> AsyncIterator[Stream]:
    """Another connection, which leaves the stream as it is."""
    relay = Stream(url, "relay", ACK_S)
    yield relay
    await relay.close()


async def counted(nats_url: str, postgres_url: str) -> list[tuple[int, int]]:
    """Orders and units that a consumer counts, by minute and channel."""
    consumer, session = Consumer(nats_url, order_feed.CONSUMER, SUBJECT), Session(postgres_url, "test", 5.0)
    connection = await asyncpg.connect(postgres_url)
    try:
        projector = Projector(consumer, session, 3600.0)
        for _ in range(2):
            await projector.step()
        return [tuple(row) for row in await connection.fetch("select orders, units from order_feed")]
    finally:
        await connection.close()
        await session.close()
        await consumer.close()
