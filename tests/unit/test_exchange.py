"""An order answered straight through the server's protocol: early, whole, in pieces, late, or never."""

import asyncio
import gc
import time
import weakref
from typing import Any

import msgspec
import pytest
import structlog

from gateway.domain.outcomes import Accepted, Outcome, Promise
from gateway.edge import exchange as room
from gateway.edge.requests import DRAINED_BYTES_MAX, Message
from tests.api import TOKEN, Placing, services
from tests.direct import DirectEdge, Watcher
from tests.unit.fakes import turns

BODY = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":1}]}'
ACCEPTED = Accepted(bytes.fromhex("019ac4d4e0007abc8123456789abcdef"), b"{}")
LATE_S = 1e9  # later than anything may come


class Open(Placing):
    """Admission that may know no outcome yet: then the test keeps the promise."""

    def __init__(self) -> None:
        super().__init__()
        self.promises: list[Promise] = []

    def begin(self, request: Any) -> Promise:
        self.promises.append(Promise() if self.outcome is None else super().begin(request))
        return self.promises[-1]


class Client:
    """A client that sends when the test says so."""

    def __init__(self) -> None:
        self._sent: asyncio.Queue[Message] = asyncio.Queue()

    def send(self, piece: bytes, *, more: bool = True) -> None:
        self._sent.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def leave(self) -> None:
        self._sent.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return await self._sent.get()


class World:
    """An edge, a client, and one request for an order."""

    def __init__(self, outcome: Outcome | Exception | None = None) -> None:
        self.admission = Open()
        self.admission.outcome = outcome
        parts = services(admission=self.admission)
        self.refused = parts.counters.refused
        self.edge = DirectEdge(parts.route, parts.show)
        self.client = Client()

    async def ask(self, length: int | None = len(BODY), token: str = TOKEN) -> Watcher:
        watcher = self.edge.open(scope_of(length, token), self.client.receive)
        await turns()
        return watcher

    def prepare(self) -> Watcher:
        """A request that nobody has been handed."""
        return Watcher(scope_of(len(BODY), TOKEN), self.client.receive)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.client.send(piece)
        await turns()

    async def expire(self, after_s: float = LATE_S) -> None:
        self.edge.exchanges.expire(time.monotonic() + after_s)
        await turns()


def scope_of(length: int | None, token: str) -> dict[str, Any]:
    headers = [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json")]
    headers.append((b"idempotency-key", b"k-1"))
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    return {"headers": headers}


def answer_of(watcher: Watcher) -> tuple[int, bytes]:
    start, body = watcher.proto.sent
    return start["status"], body["body"]


def status_of(watcher: Watcher) -> int | None:
    return answer_of(watcher)[0] if watcher.proto.sent else None


async def test_exchange_places_a_whole_body_at_once() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask()
    assert status_of(watcher) is None
    await world.send(BODY)
    assert answer_of(watcher) == (201, b"{}")
    assert [request.body for request in world.admission.requests] == [BODY]


async def test_exchange_answers_when_the_outcome_is_known() -> None:
    world = World()
    watcher = await world.ask()
    await world.send(BODY)
    assert status_of(watcher) is None
    world.admission.promises[0].set_result(ACCEPTED)
    await turns()
    assert status_of(watcher) == 201


async def test_exchange_leaves_the_turn_in_which_its_outcome_is_told_to_the_teller() -> None:
    world = World()
    watchers = [await world.ask() for _ in range(3)]
    await world.send(*[BODY] * 3)
    for promise in world.admission.promises:
        promise.set_result(ACCEPTED)
    assert [status_of(watcher) for watcher in watchers] == [None] * 3
    await asyncio.sleep(0)
    assert [status_of(watcher) for watcher in watchers] == [201] * 3


async def test_exchange_of_a_client_that_has_gone_places_the_order_all_the_same() -> None:
    world = World()
    watcher = await world.ask()
    await world.send(BODY)
    world.client.leave()
    await turns()
    world.admission.promises[0].set_result(ACCEPTED)
    await turns()
    assert status_of(watcher) == 201


async def test_exchange_refuses_before_the_body_comes_and_takes_it_off_the_wire() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask(token="fg_unknown")
    assert status_of(watcher) == 401
    await world.send(BODY[:10])
    await world.expire(0.0)
    await world.send(BODY[10:])
    assert len(watcher.proto.asked) > 1
    assert all(asked.done() for asked in watcher.proto.asked)
    assert world.admission.requests == []


async def test_exchange_does_not_wait_for_ever_for_a_body_that_it_throws_away() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask(token="fg_unknown")
    await world.expire()
    assert [asked.cancelled() for asked in watcher.proto.asked] == [True]
    assert status_of(watcher) == 401


async def test_exchange_sends_a_crowd_away_before_the_loop_hears_of_it() -> None:
    world = World(ACCEPTED)
    world.admission.crowded = True
    watcher = await world.ask(token="fg_unknown")
    status, document = answer_of(watcher)
    assert (status, msgspec.json.decode(document)["code"]) == (503, "overloaded")
    await world.send(BODY)
    assert [asked.done() for asked in watcher.proto.asked] == [True]
    world.admission.crowded = False
    again = await world.ask()
    await world.send(BODY)
    assert status_of(again) == 201


async def test_exchange_counts_and_logs_who_was_sent_away() -> None:
    world = World(ACCEPTED)
    world.admission.crowded = True
    watchers = [await world.ask() for _ in range(3)]
    with structlog.testing.capture_logs() as lines:
        await world.expire(0.0)
    assert world.refused == {"overloaded": 3}
    told = {msgspec.json.decode(answer_of(watcher)[1])["request_id"] for watcher in watchers}
    assert {line["request_id"] for line in lines} == told


async def test_exchange_that_cannot_send_a_crowd_away_lets_the_server_end_the_request() -> None:
    world = World(ACCEPTED)
    world.admission.crowded = True
    with structlog.testing.capture_logs():
        watcher = world.prepare()
        watcher.proto.broken = True
        assert not world.edge.exchanges.admits(watcher)
    assert watcher.is_done


async def test_exchanges_hand_no_more_to_a_loop_that_is_behind_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(ACCEPTED)
    watchers = [world.prepare() for _ in range(room.COMING_MIN)]
    assert all(map(world.edge.exchanges.admits, watchers))
    assert world.edge.exchanges.admits(world.prepare()), "it is not behind"
    monkeypatch.setattr(room, "COMING_S_MAX", -1.0)  # As if the first one had waited for too long.
    late = world.prepare()
    assert not world.edge.exchanges.admits(late)
    assert status_of(late) == 503
    for watcher in watchers[:2]:
        world.edge.exchanges.open(watcher)
    assert world.edge.exchanges.admits(world.prepare()), "the others are no crowd"


async def test_exchange_joins_a_body_in_pieces() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask()
    await world.send(BODY[:10], BODY[10:20], BODY[20:])
    assert status_of(watcher) == 201
    assert world.admission.requests[0].body == BODY


async def test_exchange_reads_a_body_whose_length_is_not_announced() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask(length=None)
    world.client.send(BODY, more=False)
    await turns()
    assert status_of(watcher) == 201


async def test_exchange_of_a_body_that_does_not_come_is_408() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask()
    await world.expire(0.0)
    assert status_of(watcher) is None
    await world.expire()
    assert status_of(watcher) == 408
    assert watcher.proto.asked[0].cancelled()


async def test_exchange_of_a_body_that_is_announced_too_large_is_413() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask(length=DRAINED_BYTES_MAX + 1)
    assert status_of(watcher) == 413


async def test_exchange_of_a_client_that_goes_in_its_body_is_400_and_places_nothing() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask()
    await world.send(BODY[:10])
    world.client.leave()
    await turns()
    assert status_of(watcher) == 400
    assert world.admission.requests == []


@pytest.mark.parametrize("length", [len(BODY), None])
async def test_exchange_of_a_bug_is_500_and_a_line_in_the_log(length: int | None) -> None:
    world = World(ValueError("a bug"))
    with structlog.testing.capture_logs() as lines:
        watcher = await world.ask(length=length)
        world.client.send(BODY, more=False)
        await turns()
    assert status_of(watcher) == 500
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["request_failed"]


async def test_exchange_that_cannot_send_lets_the_server_end_the_request() -> None:
    world = World(ACCEPTED)
    watcher = await world.ask()
    watcher.proto.broken = True
    with structlog.testing.capture_logs() as lines:
        await world.send(BODY)
    assert watcher.is_done
    assert "request_failed" in {line["event"] for line in lines}


async def test_exchange_that_is_over_is_kept_by_nobody() -> None:
    """Where Granian's future stands the garbage collector does not look, so what it keeps has to be let go."""
    world = World(ACCEPTED)
    watcher = await world.ask()
    gc.disable()
    try:
        asked = weakref.ref(watcher.proto.asked.pop())
        await world.send(BODY)
        assert status_of(watcher) == 201
        assert asked() is None
    finally:
        gc.enable()
