"""The listener of the bell: what it hears, what it does not take for a call, and subscriptions that end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from persistence.errors import MirrorUnavailableError
from persistence.redis import bell
from persistence.redis.bell import Listener, Ring, ring_command
from persistence.redis.node import Reply
from tests.unit.fakes import turns

WANTED = Ring("wanted", "A")
MALFORMED = [
    b"",
    b"\xff",
    b"{}",
    b'["wanted"]',
    b'["wanted","A",1]',
    b'["stolen","A"]',
    b'["wanted",""]',
    b'["wanted",1]',
]


def message(ring: Ring) -> list[bytes]:
    payload = ring_command(ring)[2]
    assert isinstance(payload, bytes)
    return [b"message", b"fg:bell", payload]


class FakeSubscription:
    """Gives what it was made with, an exception by raising it; then is silent for ever, and does not answer."""

    def __init__(self, *messages: Reply) -> None:
        self.messages = list(messages)
        self.sent: list[str] = []
        self.open = True

    async def read_response(self, timeout: float | None = None) -> Reply:  # noqa: ASYNC109 - the library's signature
        await asyncio.sleep(0)
        if self.messages:
            found = self.messages.pop(0)
            if isinstance(found, Exception):
                raise found
            return found
        if timeout is None or self.sent:
            await asyncio.Event().wait()
        return None

    async def send_command(self, command: str) -> None:
        self.sent.append(command)

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        self.open = False


class FakeServers:
    """Gives its subscriptions one after the other; None is a server that cannot be reached."""

    def __init__(self, *subscriptions: FakeSubscription | None) -> None:
        self.subscriptions = list(subscriptions)

    async def subscribe(self, channel: str) -> Any:
        assert channel == bell.CHANNEL
        await asyncio.sleep(0)
        if not self.subscriptions:
            await asyncio.Event().wait()
        found = self.subscriptions.pop(0)
        if found is None:
            raise MirrorUnavailableError("nobody answers")
        return found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(bell, "PAUSE_S", 0)
    monkeypatch.setattr(bell, "ANSWER_S", 0)


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[list[Ring]]:
    heard: list[Ring] = []
    task = asyncio.create_task(listener.run(heard.append))
    await turns(100)
    yield heard
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def listener_of(*subscriptions: FakeSubscription | None) -> Listener:
    return Listener(FakeServers(*subscriptions))  # type: ignore[arg-type]


async def test_ring_is_heard_as_it_was_made():
    rings = [WANTED, Ring("freed", "商品\x00\x1f" * 50)]
    async with listening(listener_of(FakeSubscription(*map(message, rings)))) as heard:
        assert heard == rings


@pytest.mark.parametrize("payload", MALFORMED, ids=repr)
async def test_ring_that_is_malformed_is_counted_and_the_next_is_heard(payload: bytes):
    listener = listener_of(FakeSubscription([b"message", b"fg:bell", payload], message(WANTED)))
    async with listening(listener) as heard:
        assert heard == [WANTED]
    assert listener.malformed == 1


@pytest.mark.parametrize("other", [[b"pong", b""], [b"subscribe", b"fg:bell", 1], b"OK", [], [b"message"], 7], ids=repr)
async def test_message_that_is_no_call_is_passed_over(other: Reply):
    listener = listener_of(FakeSubscription(other, message(WANTED)))
    async with listening(listener) as heard:
        assert heard == [WANTED]
    assert listener.malformed == 0


async def test_subscription_that_is_lost_is_opened_again():
    lost = FakeSubscription(message(WANTED), ConnectionResetError("gone"))
    async with listening(listener_of(lost, None, FakeSubscription(message(WANTED)))) as heard:
        assert heard == [WANTED, WANTED]
    assert not lost.open


async def test_subscription_that_does_not_answer_is_given_up():
    mute = FakeSubscription()
    async with listening(listener_of(mute, FakeSubscription(message(WANTED)))) as heard:
        assert heard == [WANTED]
    assert mute.sent == ["PING"]
    assert not mute.open


async def test_listening_is_so_while_a_subscription_stands():
    listener = listener_of(None, FakeSubscription(*[message(WANTED)] * 10_000))
    states = [listener.listening]
    async with listening(listener):
        states.append(listener.listening)
    states.append(listener.listening)
    assert states == [False, True, False]


async def test_error_of_who_hears_comes_out_and_ends_the_subscription():
    def fail(_: Ring) -> None:
        raise OSError("theirs")

    subscription = FakeSubscription(message(WANTED))
    with pytest.raises(OSError, match="theirs"):
        await listener_of(subscription).run(fail)
    assert not subscription.open
