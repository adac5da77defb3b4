"""The model consumer as a downstream team would run it: killed in the middle, it counts every order once."""

import asyncio
import datetime as dt
import json
import runpy
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from deploy.local.servers import NatsServer
from persistence.nats.stream import Event, Stream, StreamSettings

SCRIPT = Path(__file__).parents[2] / "deploy" / "examples" / "consumer.py"
FOUND_S = 30.0


def event(number: int) -> Event:
    items = [{"sku": sku, "quantity": 2, "amount": 300} for sku in ("B", "A", "B")]
    document = {"id": f"order-{number}.1", "type": "com.floodgate.order.created.v1", "data": {"items": items}}
    return Event(f"orders.created.app.{number % 16:02d}", f"order-{number}.1", json.dumps(document).encode())


class Running:
    """The script as a process."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [sys.executable, "-u", str(SCRIPT), *self._arguments]
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)

    async def says(self) -> str:
        """The next line that it prints."""
        assert self._process is not None
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return await self._process.wait()


@pytest.fixture
async def database(empty_postgres_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(empty_postgres_url, min_size=1, max_size=2) as pool:
        yield pool


@pytest.fixture
async def stream(nats_url: str) -> AsyncIterator[Stream]:
    stream = Stream(nats_url, "test", 5.0)
    await stream.ensure_stream(StreamSettings(1, 3600, 60))
    yield stream
    await stream.close()


async def wait_for_events(database: asyncpg.Pool, count: int) -> None:
    async with asyncio.timeout(FOUND_S):
        while await database.fetchval("select to_regclass('seen_event')") is None:
            await asyncio.sleep(0.02)
        while await database.fetchval("select count(*) from seen_event") < count:
            await asyncio.sleep(0.02)


async def test_consumer_killed_and_started_again_counts_every_order_once(
    stream: Stream, database: asyncpg.Pool, empty_postgres_url: str, nats_url: str
) -> None:
    for first in (0, 500):
        await stream.publish([event(number) for number in range(first, first + 500)])
    running = Running("--nats", nats_url, "--postgres", empty_postgres_url)
    await running.start()
    await wait_for_events(database, 100)
    assert await running.end(signal.SIGKILL) == -signal.SIGKILL

    await running.start()
    # What the killed one had in hand comes again after 30 s only; the rest at once.
    await wait_for_events(database, 850)
    again = [event(number) for number in range(50)]
    for repeated in again:
        await (await stream.ensure_open()).jetstream().publish(repeated.subject, repeated.payload)
    await stream.publish([event(1000)])
    await wait_for_events(database, 901)
    assert await running.end(signal.SIGTERM) == 0

    count = await database.fetchval("select count(*) from seen_event")
    rows = await database.fetch("select * from sku_sales order by sku")
    assert [tuple(row) for row in rows] == [("A", 2 * count, 300 * count), ("B", 4 * count, 600 * count)]


async def sold(database: asyncpg.Pool) -> list[tuple[str, int, int]]:
    return [tuple(row) for row in await database.fetch("select * from sku_sales order by sku")]


async def test_consumers_killed_in_the_middle_of_what_they_fetched_count_every_order_once(
    stream: Stream, database: asyncpg.Pool, empty_postgres_url: str, nats_url: str
) -> None:
    # Short, so that what a killed one had in hand comes again soon: an operator may set it, too.
    await make_durable(stream, ack_wait_s=1.0)
    await stream.publish([event(number) for number in range(400)])
    running = Running("--nats", nats_url, "--postgres", empty_postgres_url)
    for count in (50, 150, 250):
        await running.start()
        await wait_for_events(database, count)
        assert await running.end(signal.SIGKILL) == -signal.SIGKILL
    await running.start()
    await wait_for_events(database, 400)
    assert await running.end(signal.SIGTERM) == 0
    assert await sold(database) == [("A", 800, 120_000), ("B", 1600, 240_000)]


async def test_consumers_two_at_once_share_the_orders_and_count_each_once(
    stream: Stream, database: asyncpg.Pool, empty_postgres_url: str, nats_url: str
) -> None:
    await make_durable(stream, ack_wait_s=30.0)
    both = [Running("--nats", nats_url, "--postgres", empty_postgres_url) for _ in range(2)]
    await both[0].start()
    await wait_for_table(database)
    await both[1].start()
    told = [asyncio.create_task(running.says()) for running in both]
    orders = 0
    async with asyncio.timeout(FOUND_S):
        while not all(task.done() for task in told):  # The first may take all that there is for a while.
            await stream.publish([event(number) for number in range(orders, orders + 100)])
            orders += 100
            await wait_for_events(database, orders)
    for running, task in zip(both, told, strict=True):
        assert await task, "it has counted none"
        assert await running.end(signal.SIGTERM) == 0
    assert await sold(database) == [("A", 2 * orders, 300 * orders), ("B", 4 * orders, 600 * orders)]


async def test_consumer_goes_on_after_a_restart_of_the_server(
    stream: Stream, database: asyncpg.Pool, empty_postgres_url: str, nats_url: str, nats_server: NatsServer
) -> None:
    await make_durable(stream, ack_wait_s=1.0)
    await stream.publish([event(number) for number in range(200)])
    running = Running("--nats", nats_url, "--postgres", empty_postgres_url)
    await running.start()
    await wait_for_events(database, 50)
    nats_server.kill()
    nats_server.start()
    nats_server.wait_ready()
    again = Stream(nats_url, "test", 5.0)
    await again.publish([event(number) for number in range(200, 300)])
    await again.close()
    await wait_for_events(database, 300)
    assert await running.end(signal.SIGTERM) == 0
    assert await sold(database) == [("A", 600, 90_000), ("B", 1200, 180_000)]


async def make_durable(stream: Stream, ack_wait_s: float) -> None:
    """The consumer's durable, with its own wait for an acknowledgement."""
    config = ConsumerConfig(
        durable_name="example-sales",
        filter_subject="orders.created.>",
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ack_wait_s,
    )
    await (await stream.ensure_open()).jetstream().add_consumer("ORDERS", config)


async def wait_for_table(database: asyncpg.Pool) -> None:
    async with asyncio.timeout(FOUND_S):
        while await database.fetchval("select to_regclass('dead_letter')") is None:
            await asyncio.sleep(0.02)


async def test_consumer_without_servers_leaves_when_asked_to(empty_postgres_url: str) -> None:
    running = Running("--nats", "nats://127.0.0.1:1", "--postgres", empty_postgres_url)
    await running.start()

    async with asyncio.timeout(FOUND_S):
        assert (await running.says()).startswith("NATS:")
        assert await running.end(signal.SIGTERM) == 0


async def test_set_aside_event_that_failed_ten_times_is_kept_and_terminated(database: asyncpg.Pool) -> None:
    script = runpy.run_path(str(SCRIPT))
    await database.execute(script["SCHEMA"])
    terminated = []

    async def term() -> None:
        terminated.append(True)

    metadata = SimpleNamespace(num_delivered=10, sequence=SimpleNamespace(stream=7))
    message = SimpleNamespace(data=b"{\0", headers={"Nats-Msg-Id": "order-1.1"}, metadata=metadata, term=term)

    await script["handle"](database, message)

    row = await database.fetchrow("select event_id, event from dead_letter")
    assert (tuple(row), terminated) == (("order-1.1", "{"), [True])


@pytest.mark.parametrize(
    ("days", "headers", "counted"),
    [(1, {"Floodgate-Resent": "true"}, 1), (9, {"Floodgate-Resent": "true"}, 0), (9, {}, 1)],
)
async def test_handle_event_sent_again_from_before_what_is_remembered_changes_nothing(
    database: asyncpg.Pool, days: int, headers: dict[str, str], counted: int
) -> None:
    script = runpy.run_path(str(SCRIPT))
    await database.execute(script["SCHEMA"])
    acknowledged = []

    async def ack() -> None:
        acknowledged.append(True)

    time = (dt.datetime.now(dt.UTC) - dt.timedelta(days=days)).isoformat()
    data = json.dumps(json.loads(event(1).payload) | {"time": time}).encode()
    await script["handle"](database, SimpleNamespace(data=data, headers=headers, ack=ack))

    assert await database.fetchval("select count(*) from sku_sales where sku = 'A'") == counted
    assert acknowledged == [True]


async def test_consumer_forgets_ids_that_the_stream_has_forgotten(
    stream: Stream, database: asyncpg.Pool, empty_postgres_url: str, nats_url: str
) -> None:
    await database.execute(runpy.run_path(str(SCRIPT))["SCHEMA"])
    await database.execute("insert into seen_event values ('old', now() - interval '9 days'), ('new', now())")
    await stream.publish([event(1)])
    running = Running("--nats", nats_url, "--postgres", empty_postgres_url)
    await running.start()
    assert await running.says() == "counted: order-1.1\n"
    assert await running.end(signal.SIGTERM) == 0
    rows = await database.fetch("select event_id from seen_event order by 1")
    assert [row["event_id"] for row in rows] == ["new", "order-1.1"]


async def test_set_aside_event_that_failed_once_comes_again(database: asyncpg.Pool) -> None:
    script = runpy.run_path(str(SCRIPT))
    await database.execute(script["SCHEMA"])
    given_back = []

    async def nak(delay: float) -> None:
        given_back.append(delay)

    message = SimpleNamespace(data=b"[]", headers=None, metadata=SimpleNamespace(num_delivered=1), nak=nak)

    await script["handle"](database, message)

    assert len(given_back) == 1
    assert await database.fetchval("select count(*) from dead_letter") == 0


@pytest.mark.parametrize("error", [TimeoutError, nats.errors.TimeoutError])
async def test_fetch_without_events_looks_the_consumer_up(error: type[Exception]) -> None:
    looked_up = []

    async def fetch(*_batch: int, **_timeout: float) -> None:
        raise error

    async def consumer_info() -> None:
        looked_up.append(True)

    events = SimpleNamespace(fetch=fetch, consumer_info=consumer_info)
    assert await runpy.run_path(str(SCRIPT))["fetch"](events) == []
    assert looked_up == [True]
