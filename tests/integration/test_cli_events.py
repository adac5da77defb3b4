"""`floodgate events` and the reader below it: every event once, in order, through restarts of the server."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from click.testing import CliRunner, Result

from deploy.local.servers import NatsServer
from gateway.cli import main
from persistence.errors import StreamUnavailableError
from persistence.nats.read import FETCH_EVENTS, Reader
from persistence.nats.stream import Event, Stream, StreamSettings

FOUND_S = 30.0


def event(number: int) -> Event:
    document = {
        "type": "com.floodgate.order.created.v1",
        "subject": f"order-{number}",
        "time": "2026-11-11T00:00:00.000Z",
        "data": {"channel": "app", "total": number, "currency": "CNY", "items": []},
    }
    return Event(f"orders.created.app.{number % 16:02d}", f"order-{number}.1", json.dumps(document).encode())


async def publish(url: str, numbers: range) -> None:
    stream = Stream(url, "test", 5.0)
    await stream.ensure_stream(StreamSettings(1, 3600, 60))
    if numbers:
        await stream.publish([event(number) for number in numbers])
    await stream.close()


@pytest.fixture
async def filled(nats_url: str) -> str:
    await publish(nats_url, range(3))
    return nats_url


def events(url: str, *arguments: str) -> Result:
    return CliRunner(env={"FLOODGATE_NATS__URL": url}).invoke(main, ["events", *arguments])


def test_events_prints_one_a_line_and_ends_when_it_has_caught_up(filled: str) -> None:
    result = events(filled)

    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[2] for line in lines] == ["order-0", "order-1", "order-2"]
    assert lines[2] == ["2026-11-11T00:00:00.000Z", "order.created.v1", "order-2", "app", "2", "CNY"]


def test_events_as_json_prints_them_as_they_are(filled: str) -> None:
    lines = events(filled, "--json").stdout.splitlines()

    assert lines == [event(number).payload.decode() for number in range(3)]


def test_events_with_count_ends_after_so_many(filled: str) -> None:
    assert len(events(filled, "--follow", "--count", "2").stdout.splitlines()) == 2


@pytest.mark.parametrize(("since", "count"), [("1h", 3), ("2000-01-01T00:00:00Z", 3), ("2100-01-01", 0)])
def test_events_since_prints_what_was_stored_later(filled: str, since: str, count: int) -> None:
    assert len(events(filled, "--since", since).stdout.splitlines()) == count


async def test_events_of_empty_stream_are_none(nats_url: str) -> None:
    await publish(nats_url, range(0))

    result = await asyncio.to_thread(events, nats_url)

    assert (result.exit_code, result.output) == (0, "")


def test_events_without_stream_says_what_to_do(nats_url: str) -> None:
    result = events(nats_url)

    assert result.exit_code == 1
    assert "floodgate migrate" in result.output


def test_events_without_server_says_so() -> None:
    result = events("nats://127.0.0.1:1")

    assert result.exit_code == 1
    assert "NATS cannot be reached" in result.output


@pytest.fixture
async def reader(filled: str) -> AsyncIterator[Reader]:
    async with Reader(filled, None) as reader:
        yield reader


async def subjects(payloads: AsyncIterator[bytes], count: int) -> list[str]:
    async with asyncio.timeout(FOUND_S):
        return [json.loads(await anext(payloads))["subject"] for _ in range(count)]


async def test_payloads_of_more_than_one_fetch_come_in_order(nats_url: str) -> None:
    count = FETCH_EVENTS * 2 + 7
    await publish(nats_url, range(count))

    async with Reader(nats_url, None) as reader:
        found = [json.loads(payload)["data"]["total"] async for payload in reader.payloads(follow=False)]

    assert found == list(range(count))


async def test_payloads_following_go_on_with_new_events(reader: Reader, filled: str) -> None:
    payloads = reader.payloads(follow=True)
    await subjects(payloads, 3)

    await publish(filled, range(3, 5))

    assert await subjects(payloads, 2) == ["order-3", "order-4"]


async def test_payloads_following_survive_a_killed_server(reader: Reader, filled: str, nats_server: NatsServer) -> None:
    payloads = reader.payloads(follow=True)
    await subjects(payloads, 3)

    nats_server.kill()
    nats_server.start()
    nats_server.wait_ready()
    await publish(filled, range(3, 5))

    assert await subjects(payloads, 2) == ["order-3", "order-4"]


async def test_payloads_not_following_fail_when_the_stream_is_gone(nats_url: str) -> None:
    async with Reader(nats_url, None) as reader:
        with pytest.raises(StreamUnavailableError, match="no stream"):
            await anext(reader.payloads(follow=False))
