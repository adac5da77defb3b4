"""The model consumer as a downstream team would run it: killed in the middle, it counts every order once."""

import asyncio
import json
import runpy
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from persistence.nats.stream import Event, Stream, StreamSettings

SCRIPT = Path(__file__).parents[2] / "deploy" / "examples" / "consumer.py"
FOUND_S = 30.0


def event(number: int) -> Event:
    items = [{"sku": sku, "quantity": 2, "amount": 300} for sku in ("B", "A", "B")]
    document = {"id": f"order-{number}.1", "data": {"items": items}}
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
