"""What a pull makes of the messages that come for its requests, whenever they come and whatever they say."""

from typing import Any, cast

import pytest
from nats.aio.client import Client

from persistence.nats.pull import Delivery, Pull, RefusedError

REPLY = b"$JS.ACK.ORDERS.projector.%d.%d.7.1790000000000000000.0"


class FakeClient:
    """A client whose server sends, for each request, what the test says it sends."""

    def __init__(self, *answers: list[tuple[bytes, bytes]]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.subjects: list[str] = []

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def subscribe(self, subject: str) -> "FakeClient":
        self.subjects.append(subject)
        self._id = 5
        return self

    async def publish(self, _subject: str, _payload: bytes, reply: str) -> None:
        self.asked.append(reply)
        for message in self.answers.pop(0):
            await self.send(*message)

    async def send(self, subject: bytes, headers: bytes) -> None:
        """As nats-py's parser hands on a message: a status under the inbox, an event under its own subject."""
        await self._process_msg(5, subject, REPLY % (1, 1), headers, headers)

    _process_msg: Any


def event(name: str) -> tuple[bytes, bytes]:
    return b"orders.created.app", b"NATS/1.0\r\nNats-Msg-Id: %b\r\n\r\n" % name.encode()


def status(number: int, request: int) -> tuple[bytes, bytes]:
    return b"_INBOX.x.%d" % request, b"NATS/1.0 %d Words\r\n\r\n" % number


async def pull_of(client: FakeClient) -> Pull:
    pull = Pull(cast("Client", client), "ORDERS", "projector")
    await pull.open(raw=True)
    return pull


def names(deliveries: list[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


async def test_fetch_status_of_its_request_ends_it() -> None:
    pull = await pull_of(FakeClient([event("a"), event("b"), status(404, 1)]))

    assert names(await pull.fetch(10, 60.0)) == ["a", "b"]


async def test_fetch_full_batch_ends_it() -> None:
    pull = await pull_of(FakeClient([event("a"), event("b")]))

    assert names(await pull.fetch(2, 60.0)) == ["a", "b"]


@pytest.mark.parametrize("number", [404, 408])
async def test_fetch_of_nothing_returns_none(number: int) -> None:
    pull = await pull_of(FakeClient([status(number, 1)]))

    assert await pull.fetch(10, 60.0) == []


async def test_fetch_status_of_an_earlier_request_and_heartbeats_end_nothing() -> None:
    client = FakeClient([status(404, 1)], [status(409, 1), status(100, 2), event("a"), status(404, 2)])
    pull = await pull_of(client)
    await pull.fetch(10, 60.0)

    assert names(await pull.fetch(10, 60.0)) == ["a"]
    assert client.asked == ["_INBOX.x.1", "_INBOX.x.2"]


@pytest.mark.parametrize("number", [409, 503])
async def test_fetch_refused_request_raises_unless_events_came_for_it(number: int) -> None:
    pull = await pull_of(FakeClient([event("a"), status(number, 1)], [status(number, 2)]))

    assert names(await pull.fetch(10, 60.0)) == ["a"]
    with pytest.raises(RefusedError, match=str(number)):
        await pull.fetch(10, 60.0)


async def test_fetch_server_that_says_nothing_raises() -> None:
    pull = await pull_of(FakeClient([]))

    with pytest.raises(TimeoutError):
        await pull.fetch(10, 0.01)


async def test_fetch_server_that_stops_in_the_middle_returns_what_came() -> None:
    pull = await pull_of(FakeClient([event("a")]))

    assert names(await pull.fetch(10, 0.01)) == ["a"]


async def test_fetch_what_came_too_late_is_handed_out_next_without_a_request() -> None:
    client = FakeClient([])
    pull = await pull_of(client)
    with pytest.raises(TimeoutError):
        await pull.fetch(2, 0.01)

    for name in "abc":
        await client.send(*event(name))

    assert names(await pull.fetch(2, 60.0)) == ["a", "b"]
    assert names(pull.left()) == ["c"]
    assert len(client.asked) == 1


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.ORDERS.projector.3.41.7.1790000000000000000.0",
        b"$JS.ACK.hub.AABBCC.ORDERS.projector.3.41.7.1790000000000000000.0",
        b"$JS.ACK._.AABBCC.ORDERS.projector.3.41.7.1790000000000000000.0.random",
    ],
)
def test_delivery_counts_stand_in_its_answer_subject_in_every_form(reply: bytes) -> None:
    delivery = Delivery(b"", reply, b"")

    assert (delivery.attempts, delivery.id) == (3, "sequence 41")
