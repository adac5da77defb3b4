"""A bulk request against a pretended admission: verdicts in the order of the lines, what is bounded, who goes first,
and what ends it.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest
import structlog

from gateway.admission import Admission, Request
from gateway.batch import BatchQueue
from gateway.domain.outcomes import Accepted, Outcome, Promise, Refusal
from gateway.edge import bulk, bulk_lines
from gateway.edge.answers import problem_document
from gateway.edge.bulk import BESIDE_LIVE_MAX, LINES_AHEAD_MAX, SLICE_LINES, BulkRoom, BulkStream
from gateway.edge.requests import Message
from gateway.metrics import Counters
from gateway.requests_log import RequestLog
from gateway.settings import Batch, Http, Log, Orders, Settings
from tests.api import ALL

ORDER_ID = bytes.fromhex("0199a7c25d807c3e9b1f4a6d2e8c0f51")
DONE = Accepted(ORDER_ID, b"{}")
WAIT_S = 10.0


class Admitting:
    """Stands for Admission: notes what it is asked, and answers what `say` says; None: later, by the test."""

    def __init__(self) -> None:
        self.open = True
        self.live = 0  # orders under way that are none of bulk's
        self.requests: list[Request] = []
        self.promises: list[Promise] = []
        self.say: Callable[[Request], Outcome | None] = lambda _: DONE

    @property
    def in_flight(self) -> int:
        return self.live + sum(not promise.done() for promise in self.promises)

    def begin(self, request: Request) -> Promise:
        self.requests.append(request)
        promise = Promise()
        self.promises.append(promise)
        outcome = self.say(request)
        if outcome is not None:
            promise.set_result(outcome)
        return promise


class Talk:
    """A client: what it has sent so far, and what it has read. While it does not read, nothing more goes out to it."""

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[Message] = []
        self.reads = asyncio.Event()
        self.reads.set()

    def write(self, *lines: bytes, more: bool = True) -> None:
        self.pieces.put_nowait({"type": "http.request", "body": b"".join(lines), "more_body": more})

    def leave(self) -> None:
        self.pieces.put_nowait({"type": "http.disconnect"})

    async def send(self, message: Message) -> None:
        await self.reads.wait()
        self.sent.append(message)

    @property
    def lines(self) -> list[dict[str, Any]]:
        body = b"".join(message.get("body", b"") for message in self.sent)
        return [msgspec.json.decode(line) for line in body.splitlines()]

    @property
    def verdicts(self) -> list[tuple[int, str]]:
        """(line, its code or `ok`) of what was read."""
        told = [line for line in self.lines if "line" in line]
        return [(line["line"], line["problem"]["code"] if "problem" in line else "ok") for line in told]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lines[-1]["summary"]
        return found


class Desk:
    """A room, its admission, and the streams that a test starts."""

    def __init__(self, **sections: Any) -> None:
        http = sections.pop("http", Http(body_timeout_ms=60_000))
        settings = Settings(http=http, **sections)
        self.admission = Admitting()
        self.queue = BatchQueue(settings.batch)
        self.counters = Counters()
        self.behind = 0
        log = RequestLog(Log(), self.counters)
        admission = cast("Admission", self.admission)
        self.room = BulkRoom(settings, admission, self.queue, self.counters, log, lambda: self.behind)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, talk: Talk, allowance: Any = None) -> asyncio.Task[None]:
        stream = BulkStream(self.room, ALL, allowance, "r-1", None)
        task = asyncio.create_task(stream({}, talk.pieces.get, talk.send))
        self.tasks.append(task)
        return task

    async def run(self, talk: Talk, *lines: bytes, **changes: Any) -> None:
        """A whole request."""
        talk.write(*lines, more=False)
        async with asyncio.timeout(WAIT_S):
            await self.start(talk, **changes)


def line(key: str = "k-1", order: bytes = b"{}") -> bytes:
    return b'{"idempotency_key":"%b","order":%b}\n' % (key.encode(), order)


def many(count: int) -> list[bytes]:
    return [line(f"k-{number}") for number in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def test_bulk_hands_each_line_to_admission_as_a_request(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk, line("a", b'{"x": 1}'), line("b"))
    assert [(request.client, request.key, request.body) for request in desk.admission.requests] == [
        (ALL, b"a", b'{"x": 1}'),
        (ALL, b"b", b"{}"),
    ]
    assert talk.verdicts == [(1, "ok"), (2, "ok")]
    assert talk.summary == {"complete": True, "lines": 2, "accepted": 2, "replayed": 0, "receipts": 0, "refused": {}}


async def test_bulk_says_what_it_is_and_ends(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk, line())
    start, *_, last = talk.sent
    assert (start["status"], dict(start["headers"])[b"content-type"]) == (200, b"application/x-ndjson")
    assert last["more_body"] is False


async def test_bulk_without_a_line_has_a_summary(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk)
    assert talk.lines == [
        {"summary": {"complete": True, "lines": 0, "accepted": 0, "replayed": 0, "receipts": 0, "refused": {}}}
    ]


async def test_bulk_verdicts_keep_the_order_of_the_lines(desk: Desk) -> None:
    desk.admission.say = lambda _: None
    talk = Talk()
    talk.write(*many(3), b"nonsense\n", more=False)
    task = desk.start(talk)
    await until(lambda: len(desk.admission.promises) == 3)
    first, second, third = desk.admission.promises
    third.set_result(DONE)
    second.set_result(Refusal("sold_out"))
    assert talk.verdicts == []
    first.set_result(DONE)
    await task
    assert talk.verdicts == [(1, "ok"), (2, "sold_out"), (3, "ok"), (4, "malformed_json")]


async def test_bulk_verdict_goes_out_before_the_body_has_ended(desk: Desk) -> None:
    talk = Talk()
    desk.start(talk)
    for number in range(1, 4):
        talk.write(line(f"k-{number}"))
        await until(lambda: len(talk.verdicts) == number)  # noqa: B023 - it is awaited at once
    talk.write(more=False)
    await desk.tasks[0]
    assert talk.summary["accepted"] == 3


async def test_bulk_empty_lines_are_counted_and_have_no_verdict(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk, b"\n\r\n", line("a"), b" \n", line("b"), b"\n")
    assert [number for number, _ in talk.verdicts] == [3, 5]
    assert talk.summary["lines"] == 2


async def test_bulk_half_a_line_at_the_end_is_malformed(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk, line("a"), b'{"idempotency_key":"b","ord')
    assert talk.verdicts == [(1, "ok"), (2, "malformed_json")]


async def test_bulk_counts_what_it_answers(desk: Desk) -> None:
    answers: Iterator[Outcome] = iter([DONE, Accepted(ORDER_ID, b"", replayed=True), Refusal("sold_out")])
    desk.admission.say = lambda _: next(answers)
    await desk.run(Talk(), *many(3))
    assert (desk.counters.bulk_lines, desk.counters.replayed) == (3, 1)
    assert desk.counters.refused == {"sold_out": 1}


async def test_bulk_bug_of_a_line_is_logged_and_the_others_go_on(desk: Desk) -> None:
    def planted(request: Request) -> Outcome:
        if request.key == b"k-1":
            raise RuntimeError("planted by the test")
        return DONE

    desk.admission.say = planted
    talk = Talk()
    with structlog.testing.capture_logs() as logs:
        await desk.run(talk, *many(3))
    assert talk.verdicts == [(1, "ok"), (2, "internal"), (3, "ok")]
    assert [entry["event"] for entry in logs] == ["request_failed"]


async def test_bulk_verdict_that_cannot_be_written_is_a_bug_of_its_line_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(outcome: Refusal, request_id: str) -> dict[str, Any]:
        if outcome.code == "sold_out":
            raise RuntimeError("planted by the test")
        return problem_document(outcome, request_id)

    monkeypatch.setattr(bulk_lines, "problem_document", planted)
    desk.admission.say = lambda _: None
    talk = Talk()
    talk.write(*many(2), more=False)
    task = desk.start(talk)
    await until(lambda: len(desk.admission.promises) == 2)
    with structlog.testing.capture_logs() as logs:
        refused, done = desk.admission.promises
        refused.set_result(Refusal("sold_out"))
        done.set_result(DONE)
        await task
    assert talk.verdicts == [(1, "internal"), (2, "ok")]
    assert [entry["event"] for entry in logs] == ["request_failed"]


async def test_bulk_leaves_the_room_as_it_was(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk, *many(3))
    assert (desk.room.under_way, desk.room.streams) == (0, 0)


class Allowing:
    """Stands for Allowance: lets so many requests through."""

    def __init__(self, left: int) -> None:
        self.left = left

    def refusal(self) -> Refusal | None:
        self.left -= 1
        return None if self.left >= 0 else Refusal("rate_limited", retry_after_s=2)


async def test_bulk_charges_the_client_for_each_line(desk: Desk) -> None:
    talk = Talk()
    await desk.run(talk, *many(3), allowance=Allowing(2))
    assert talk.verdicts == [(1, "ok"), (2, "ok"), (3, "rate_limited")]
    assert talk.lines[2]["retry_after_s"] == 2
    assert len(desk.admission.requests) == 2


# Room


async def test_bulk_has_no_more_lines_under_way_than_two_commits() -> None:
    desk = Desk(batch=Batch(rows_max=100))
    desk.admission.say = lambda _: None
    talk = Talk()
    talk.write(*many(1000))
    desk.start(talk)
    await until(lambda: desk.room.under_way == 200)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(desk.admission.requests) == 200
    for promise in list(desk.admission.promises):
        promise.set_result(DONE)
    await until(lambda: desk.room.under_way == 200)
    assert len(desk.admission.requests) == 400
    desk.tasks[0].cancel()


async def test_bulk_beside_live_orders_has_few_lines_under_way(desk: Desk) -> None:
    desk.admission.live = 1
    desk.admission.say = lambda _: None
    talk = Talk()
    talk.write(*many(1000))
    desk.start(talk)
    await until(lambda: desk.room.under_way == BESIDE_LIVE_MAX)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(desk.admission.requests) == BESIDE_LIVE_MAX
    desk.tasks[0].cancel()


@pytest.mark.parametrize(("live", "lines_max"), [(0, SLICE_LINES), (1, BESIDE_LIVE_MAX)])
async def test_bulk_leaves_the_loop_to_others_after_every_slice(desk: Desk, live: int, lines_max: int) -> None:
    desk.admission.live = live
    talks = [Talk(), Talk()]
    for talk in talks:
        talk.write(*many(1000), more=False)
        desk.start(talk)
    most, before = 0, 0
    while not all(task.done() for task in desk.tasks):
        await asyncio.sleep(0)
        most, before = max(most, len(desk.admission.requests) - before), len(desk.admission.requests)
    assert before == 2000
    assert most <= lines_max


async def test_bulk_waits_while_a_commit_waits_already(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = 1000
    monkeypatch.setattr(BatchQueue, "__len__", lambda _: waiting)
    talk = Talk()
    talk.write(line(), more=False)
    task = desk.start(talk)
    for _ in range(50):
        await asyncio.sleep(0)
    assert desk.admission.requests == []
    waiting = 0
    async with asyncio.timeout(WAIT_S):
        await task
    assert talk.verdicts == [(1, "ok")]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_bulk_waits_for_ledger_and_stream(desk: Desk, is_stream: bool) -> None:  # noqa: FBT001 - a parameter of the test
    desk.admission.open, desk.behind = is_stream, bulk.EVENTS_BEHIND_MAX if is_stream else 0
    talk = Talk()
    talk.write(line(), more=False)
    task = desk.start(talk)
    for _ in range(50):
        await asyncio.sleep(0)
    assert desk.admission.requests == []
    desk.admission.open, desk.behind = True, 0
    async with asyncio.timeout(WAIT_S):
        await task
    assert talk.verdicts == [(1, "ok")]


async def test_bulk_does_not_wait_for_ever_for_the_ledger() -> None:
    desk = Desk(orders=Orders(reply_ms_max=1000))
    desk.admission.open = False
    desk.admission.say = lambda _: Refusal("ledger_away")
    talk = Talk()
    await desk.run(talk, *many(3))
    assert talk.verdicts == [(1, "ledger_away"), (2, "ledger_away"), (3, "ledger_away")]


async def test_bulk_line_that_finds_no_room_waits_for_it(desk: Desk) -> None:
    answers: Iterator[Outcome] = iter([Refusal("overloaded"), Refusal("overloaded"), DONE])
    desk.admission.say = lambda _: next(answers)
    talk, allowance = Talk(), Allowing(1)
    await desk.run(talk, line(), allowance=allowance)
    assert talk.verdicts == [(1, "ok")]
    charged: list[object] = [request.allowance for request in desk.admission.requests]
    assert charged == [allowance] * 3, "admission charges once"


async def test_bulk_line_that_never_finds_room_is_told_so() -> None:
    desk = Desk(orders=Orders(reply_ms_max=1000))
    desk.admission.say = lambda _: Refusal("overloaded")
    talk = Talk()
    await desk.run(talk, line())
    assert talk.verdicts == [(1, "overloaded")]
    assert len(desk.admission.requests) > 1


# Ends


@pytest.fixture
def hasty() -> Desk:
    """Whose patience with clients is short."""
    return Desk(http=Http(body_timeout_ms=100))


async def test_bulk_client_that_never_reads_gets_so_many_lines_and_then_is_told_so(hasty: Desk) -> None:
    talk = Talk()
    talk.reads.clear()
    for _ in range(12):
        talk.write(*many(1000))
    task = hasty.start(talk)
    await until(lambda: hasty.counters.refused["read_while_writing"] == 1)
    assert len(hasty.admission.requests) == LINES_AHEAD_MAX
    talk.write(*many(1000), more=False)
    talk.reads.set()
    async with asyncio.timeout(WAIT_S):
        await task
    assert talk.verdicts[-1] == (LINES_AHEAD_MAX + 1, "read_while_writing")
    assert [code for _, code in talk.verdicts[:-1]] == ["ok"] * LINES_AHEAD_MAX
    assert talk.summary["complete"] is False
    assert len(hasty.admission.requests) == LINES_AHEAD_MAX


async def test_bulk_client_that_never_reads_has_its_body_taken_off_the_wire(hasty: Desk) -> None:
    talk = Talk()
    talk.reads.clear()
    talk.write(*many(LINES_AHEAD_MAX + 1))
    task = hasty.start(talk)
    await until(lambda: hasty.counters.refused["read_while_writing"] == 1)
    talk.write(*many(5))
    talk.write(*many(5), more=False)
    await until(talk.pieces.empty)
    talk.reads.set()
    await task
    assert talk.summary["lines"] == LINES_AHEAD_MAX + 1


async def test_bulk_client_that_reads_slowly_is_not_cut_off(hasty: Desk) -> None:
    talk = Talk()
    talk.reads.clear()
    talk.write(*many(2 * LINES_AHEAD_MAX), more=False)
    task = hasty.start(talk)
    while not task.done():
        await asyncio.sleep(0.02)
        talk.reads.set()
        await asyncio.sleep(0)
        talk.reads.clear()
    assert talk.summary["accepted"] == 2 * LINES_AHEAD_MAX


async def test_bulk_verdicts_that_wait_are_bounded_in_bytes(hasty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AHEAD_BYTES_MAX", 10_000)
    talk = Talk()
    talk.reads.clear()
    talk.write(*many(1000))
    hasty.start(talk)
    await until(lambda: hasty.counters.refused["read_while_writing"] == 1)
    assert len(hasty.admission.requests) < 10_000 / 70 + SLICE_LINES
    hasty.tasks[0].cancel()


async def test_bulk_body_that_stops_coming_ends_after_its_verdicts(hasty: Desk) -> None:
    talk = Talk()
    talk.write(line("a"), b'{"idempo')
    async with asyncio.timeout(WAIT_S):
        await hasty.start(talk)
    assert talk.verdicts == [(1, "ok"), (2, "body_timeout")]
    assert talk.summary["complete"] is False


async def test_bulk_body_may_take_its_time_as_long_as_something_comes(hasty: Desk) -> None:
    talk = Talk()
    task = hasty.start(talk)
    for number in range(10):
        talk.write(line(f"k-{number}"))
        await asyncio.sleep(0.03)
    talk.write(more=False)
    await task
    assert talk.summary["accepted"] == 10


async def test_bulk_of_a_client_that_leaves_admits_nothing_more(desk: Desk) -> None:
    desk.admission.say = lambda _: None
    talk = Talk()
    talk.write(line("a"), b'{"idempotency_key":"b","order":{}}')
    talk.leave()
    async with asyncio.timeout(WAIT_S):
        await desk.start(talk)
    assert [request.key for request in desk.admission.requests] == [b"a"]
    desk.admission.promises[0].set_result(DONE)
    assert (desk.room.under_way, desk.room.streams) == (0, 0)


async def test_bulk_line_without_room_of_a_client_that_has_left_is_let_go(desk: Desk) -> None:
    desk.admission.say = lambda _: None
    talk = Talk()
    talk.write(line("a"))
    talk.leave()
    await desk.start(talk)
    desk.admission.promises[0].set_result(Refusal("overloaded"))
    assert desk.room.under_way == 0


async def test_bulk_client_that_takes_nothing_at_the_end_is_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "TAKEN_S_MAX", 0.01)
    talk = Talk()
    talk.reads.clear()
    talk.write(line(), more=False)
    async with asyncio.timeout(WAIT_S):
        await desk.start(talk)
    assert talk.sent == []
    assert desk.room.streams == 0


async def test_bulk_of_a_worker_that_stops_says_where_to_go_on(desk: Desk) -> None:
    talk = Talk()
    desk.start(talk)
    talk.write(line("a"))
    await until(lambda: len(talk.verdicts) == 1)
    desk.room.stopping = lambda: True
    talk.write(line("b"), line("c"), more=False)
    async with asyncio.timeout(WAIT_S):
        await desk.tasks[0]
    assert talk.verdicts == [(1, "ok"), (2, "ledger_away")]
    assert talk.summary["complete"] is False


async def test_bulk_whose_body_breaks_before_the_first_verdict_is_refused(desk: Desk) -> None:
    """A server that is given no answer makes a 500 of it."""
    talk = Talk()
    talk.leave()
    async with asyncio.timeout(WAIT_S):
        await desk.start(talk)
    assert [message["status"] for message in talk.sent if "status" in message] == [400]
    assert msgspec.json.decode(talk.sent[-1]["body"])["code"] == "bad_request"
    assert desk.counters.refused == {"bad_request": 1}


async def test_bulk_whose_body_breaks_behind_the_first_verdict_says_nothing_more(desk: Desk) -> None:
    talk = Talk()
    task = desk.start(talk)
    talk.write(line("a"))
    await until(lambda: talk.verdicts == [(1, "ok")])
    talk.leave()
    async with asyncio.timeout(WAIT_S):
        await task
    assert [message["status"] for message in talk.sent if "status" in message] == [200]
    assert talk.verdicts == [(1, "ok")]
