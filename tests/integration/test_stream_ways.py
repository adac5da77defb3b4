"""What the stream stores, and what it refuses, whichever way the events go to the server."""

from collections.abc import AsyncIterator

import pytest
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats import client
from persistence.nats import stream as room
from persistence.nats.stream import CONTENT_TYPE, NAME, STOCK, Event, Stream, StreamSettings

SETTINGS = StreamSettings(replicas=1, max_age_s=3600, duplicate_window_s=60)
SUBJECT = "orders.created.app.07"


@pytest.fixture(params=[True, False], ids=["whole", "singly"])
async def stream(nats_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Stream]:
    stream = Stream(nats_url, "test", 5.0, whole=request.param)
    await stream.ensure_streams(SETTINGS)
    yield stream
    await stream.close()


def events(*names: str) -> list[Event]:
    return [Event(SUBJECT, name, f'{{"id":"{name}"}}'.encode(), {"Floodgate-Order": "1.0"}) for name in names]


async def stored(stream: Stream, name: str = NAME) -> list[tuple[str, bytes, dict[str, str]]]:
    """Subject, payload and headers of all messages, without those that JetStream wanted for itself."""
    jetstream = (await stream.ensure_open()).jetstream()
    found = []
    for number in range(1, (await jetstream.stream_info(name)).state.messages + 1):
        message = await jetstream.get_msg(name, number)
        headers = {key: value for key, value in (message.headers or {}).items() if not is_for_jetstream(key)}
        found.append((str(message.subject), message.data or b"", headers))
    return found


def is_for_jetstream(header: str) -> bool:
    return header.startswith(("Nats-Batch-", "Nats-Expected-"))


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]], ids=["one", "several"])
async def test_publish_stores_subject_payload_and_headers_in_order(stream: Stream, names: list[str]) -> None:
    assert await stream.publish(events(*names)) == 0
    assert await stored(stream) == [
        (SUBJECT, event.payload, {"Nats-Msg-Id": event.id, "Content-Type": CONTENT_TYPE, **event.headers})
        for event in events(*names)
    ]


async def test_publish_of_an_atomic_batch_that_is_full_stores_all_of_it(stream: Stream) -> None:
    await stream.publish(events(*map(str, range(room.BATCH_MESSAGES_MAX))))
    info = await (await stream.ensure_open()).jetstream().stream_info(NAME)
    assert info.state.messages == room.BATCH_MESSAGES_MAX


async def test_publish_with_an_event_that_is_known_stores_the_others(stream: Stream) -> None:
    await stream.publish(events("a"))
    assert await stream.publish(events("a", "b", "c")) == 1
    assert [headers["Nats-Msg-Id"] for *_, headers in await stored(stream)] == ["a", "b", "c"]


@pytest.mark.parametrize("at", [0, 1, 2])
async def test_publish_with_an_event_of_another_stream_stores_nothing_anywhere(stream: Stream, at: int) -> None:
    mixed = events("a", "b", "c")
    mixed[at] = mixed[at]._replace(subject="stock.changed.07")
    with pytest.raises(StreamUnavailableError):
        await stream.publish(mixed)
    assert await stored(stream) == []
    assert await stored(stream, STOCK) == []


async def test_publish_of_a_header_with_an_end_of_line_keeps_it_one_header(stream: Stream) -> None:
    await stream.publish([Event(SUBJECT, "a", b"{}", {"Floodgate-Order": " one\r\nNats-Rollup: all "})])
    ((_, _, headers),) = await stored(stream)
    assert headers["Floodgate-Order"] == "one  Nats-Rollup: all"
    assert "Nats-Rollup" not in headers


@pytest.mark.parametrize("subject", ["", "orders.created app.07", "orders.a\r\nPUB orders.b 0\r\n"])
async def test_publish_to_what_is_no_subject_is_refused_and_stores_nothing(stream: Stream, subject: str) -> None:
    with pytest.raises(StreamUnavailableError):
        await stream.publish([Event(subject, "a", b"{}"), *events("b")])
    assert await stored(stream) == []


async def test_publish_of_more_than_the_server_takes_is_refused_and_keeps_the_connection(stream: Stream) -> None:
    client = await stream.ensure_open()
    with pytest.raises(StreamUnavailableError):
        await stream.publish([Event(SUBJECT, "a", bytes(client.max_payload + 1))])
    await stream.publish(events("b"))
    assert client.is_connected
    assert client.stats["reconnects"] == 0


async def test_publish_to_a_stream_that_is_not_there_is_refused(stream: Stream) -> None:
    jetstream = (await stream.ensure_open()).jetstream()
    await jetstream.delete_stream(STOCK)
    with pytest.raises(NotFoundError):
        await jetstream.stream_info(STOCK)
    with pytest.raises(StreamUnavailableError):
        await stream.publish([Event("stock.changed.07", "a", b"{}")], STOCK)


async def test_stream_over_another_nats_py_sends_events_singly(nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Stream(nats_url, "test", 5.0).way == "whole"
    monkeypatch.setattr(client, "version", lambda _: "2.17.0")
    assert Stream(nats_url, "test", 5.0).way == "singly"
