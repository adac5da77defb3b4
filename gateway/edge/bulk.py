"""`POST /v1/orders/bulk`: a body of lines, an order each, and an answer of lines, a verdict each, both under way at
once.

Every line goes through admission as a request of its own, and verdicts keep the order of the lines. Live orders come
first: bulk admits in small slices, a turn of the loop apart, keeps no more than one commit waiting, and little beside
live orders. A line that finds no room waits for it. What a stream keeps in memory is bounded, whatever its client does;
who never reads is told so once LINES_AHEAD_MAX verdicts wait for him.
"""

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from msgspec import Struct

from gateway.admission import Admission, Request
from gateway.batch import BatchQueue
from gateway.domain.access import Client
from gateway.domain.outcomes import Outcome, Promise, Receipt, Refusal
from gateway.edge.answers import problem
from gateway.edge.bulk_lines import Lines, Sent, Summary, read_line, verdict
from gateway.edge.requests import BROKEN, Receive, Scope, Send
from gateway.metrics import Counters
from gateway.rates import Allowance
from gateway.requests_log import RequestLog
from gateway.settings import Settings

PATH = "/v1/orders/bulk"
NDJSON = b"application/x-ndjson"
LINES_AHEAD_MAX = 10_000  # lines of a stream whose verdicts its client has not taken
AHEAD_BYTES_MAX = 8 << 20  # of these verdicts; a problem may be long
COMMITS_UNDER_WAY = 2  # one in the ledger, one that waits: more only wait longer
SLICE_LINES = 500  # admitted in one go, and so about what a commit has: larger ones cost less for each order
# Lines under way beside live orders, which wait for what the event loop and the ledger are at: a slice at a time, and
# the next one when that is committed.
BESIDE_LIVE_MAX = 50
LIVE_S = 2.0  # how long the last live order keeps bulk small
EVENTS_BEHIND_MAX = 4_000  # unacknowledged events, well below a second of orders: beyond it bulk waits for the stream
LOOK_AGAIN_S = 0.01
AGAIN_S = 0.05  # until a line is tried again that found the gateway overloaded
PIECE_LINES_MAX = 1000  # verdicts of one send
TAKEN_S_MAX = 60.0  # a client that has written everything, and takes nothing for so long, is not there any more
# What a client goes on writing after the last verdict is taken off the wire, so that it comes to read them.
DRAINED_BYTES_MAX = 64 << 20
DRAINED_S_MAX = 10.0


class BulkRoom:
    """One per worker: how many lines of all streams may be under way, and whose turn it is. `stopping` tells that the
    worker takes no more lines.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        queue: BatchQueue,
        counters: Counters,
        log: RequestLog,
        events_behind: Callable[[], int],
    ) -> None:
        self._rows_max = settings.batch.rows_max
        self._patience_s = settings.orders.reply_ms_max / 1000
        self._queue = queue
        self._events_behind = events_behind
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._live_at = -math.inf
        self._shut_at: float | None = None
        self.admission = admission
        self.counters = counters
        self.log = log
        self.body_timeout_s = settings.http.body_timeout_ms / 1000
        self.streams_max = settings.http.bulk_requests_max
        self.streams = 0
        self.under_way = 0
        self.stopping: Callable[[], bool] = lambda: False

    @property
    def patience_s(self) -> float:
        """How long a line waits for room before it is told that there is none."""
        return self._patience_s

    async def lines(self) -> int:
        """How many lines the caller may admit now, without waiting in between; at least one."""
        async with self._turn:
            await asyncio.sleep(0)  # Whoever else has something to do goes first.
            while not (free := self._free()):
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN_S):
                        await self._changed.wait()
            return free

    def done(self) -> None:
        """A line that was under way has its answer."""
        self.under_way -= 1
        self._changed.set()

    def _free(self) -> int:
        now = time.monotonic()
        if self.admission.in_flight > self.under_way:
            self._live_at = now
        most = COMMITS_UNDER_WAY * self._rows_max
        if now - self._live_at < LIVE_S:
            most = min(most, BESIDE_LIVE_MAX)
        # Less than a commit, else the queue looks at ages; and half of the room is that of live orders.
        waiting_max = max(min(self._rows_max - 1, self._queue.waiting_max // 2), 1)
        free = min(most - self.under_way, waiting_max - len(self._queue), SLICE_LINES)
        return free if free > 0 and self._is_worth_it(now) else 0

    def _is_worth_it(self, now: float) -> bool:
        """Whether ledger and stream keep up. Lines do not wait for ever for one that is away: then they are refused, or
        their events left to the relay.
        """
        if self.admission.open and self._events_behind() < EVENTS_BEHIND_MAX:
            self._shut_at = None
            return True
        if self._shut_at is None:
            self._shut_at = now
        return now - self._shut_at >= self._patience_s


class GoneError(Exception):
    """The client is not there any more."""


class OverError(Exception):
    """No more lines are read; the next one gets this refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


class Place(Struct, eq=False):
    """A line's place in the answer. `verdict` is empty until it is known; `until` is when a line that has found no room
    gives up, and 0 as long as it has not found none.
    """

    stream: "BulkStream"
    number: int
    request: Request | None = None
    verdict: bytes = b""
    until: float = 0.0

    def told(self, promise: Promise) -> None:
        """Admission has an answer."""
        self.stream.answered(self, promise.result())


class BulkStream:
    """One request, as ASGI application."""

    def __init__(
        self, room: BulkRoom, client: Client, allowance: Allowance | None, request_id: str, traceparent: str | None
    ) -> None:
        self._room = room
        self._client = client
        self._allowance = allowance
        self._request_id = request_id
        self._traceparent = traceparent
        self._number = 0  # of the last line that was taken in, empty ones included
        self._places: deque[Place] = deque()  # of lines whose verdict cannot go out yet, in order
        self._ready: deque[bytes] = deque()  # verdicts that can
        self._ready_bytes = 0  # of verdicts that the client has not taken
        self._ahead = 0  # lines whose verdict the client has not taken
        self._sending = False
        self._more = True  # whether more of the body may come
        self._ended = False  # whether all lines have their place
        self._gone = False
        self._begun = False  # whether the answer has
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._summary = Summary()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request. Lines that were admitted are committed, whatever becomes of its client."""
        self._room.streams += 1
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(receive))
                group.create_task(self._write(send))
        except* GoneError:
            self._gone = True
        finally:
            self._room.streams -= 1
        if self._gone and not self._begun:
            await self._say_broken(send)

    async def _read(self, receive: Receive) -> None:
        try:
            await self._read_lines(receive)
        except OverError as over:
            self._summary.complete = False
            self._settle(self._next_place(), over.refusal)
            self._end()
            await self._drain(receive)
        else:
            self._end()

    async def _read_lines(self, receive: Receive) -> None:
        lines = Lines()
        while self._more:
            await self._take(lines.feed(await self._receive(receive)))
        await self._take(lines.end())

    async def _receive(self, receive: Receive) -> bytes:
        """The next piece of the body."""
        try:
            async with asyncio.timeout(self._room.body_timeout_s):
                message = await receive()
        except TimeoutError:
            raise OverError(Refusal("body_timeout", "nothing has come for too long")) from None
        if message["type"] == "http.disconnect":
            raise GoneError
        self._more = message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        return piece

    async def _take(self, lines: Sequence[bytes | None]) -> None:
        """Admit lines, as fast as there is room."""
        at = 0
        while at < len(lines):
            room = await self._wait_for_room()
            for line in lines[at : at + room]:
                self._take_one(line)
            at += room

    async def _wait_for_room(self) -> int:
        """How many lines may be taken in now."""
        while True:
            if self._room.stopping():
                raise OverError(Refusal("ledger_away", "the worker is stopping; go on with this line at another one"))
            ahead = LINES_AHEAD_MAX - self._ahead
            if ahead > 0 and self._ready_bytes < AHEAD_BYTES_MAX:
                return min(await self._room.lines(), ahead)
            await self._wait_until_taken()

    async def _wait_until_taken(self) -> None:
        """Wait until the client has taken verdicts, or until there are some that it could take."""
        could_take = self._sending
        self._taken.clear()
        try:
            async with asyncio.timeout(self._room.body_timeout_s):
                await self._taken.wait()
        except TimeoutError:
            if could_take and self._sending:
                raise OverError(
                    Refusal("read_while_writing", f"{self._ahead} verdicts wait; go on with this line")
                ) from None

    def _take_one(self, line: bytes | None) -> None:
        sent = read_line(line)
        if sent is None:
            self._number += 1
            return
        place = self._next_place()
        if isinstance(sent, Sent):
            refusal = self._allowance.refusal() if self._allowance is not None else None
            if refusal is None:
                place.request = Request(self._client, sent.key, sent.order, self._traceparent, self._allowance)
                self._room.under_way += 1
                self._admit(place, place.request)
                return
            sent = refusal
        self._settle(place, sent)

    def _admit(self, place: Place, request: Request) -> None:
        try:
            promise = self._room.admission.begin(request)
        except Exception:
            self._room.log.exception(self._request_id, "POST", PATH)
            self.answered(place, Refusal("internal"))
            return
        promise.add_done_callback(place.told)

    def answered(self, place: Place, outcome: Outcome) -> None:
        """What admission says of a line. One that has found no room is tried again for a while."""
        request = place.request
        if request is not None and self._is_worth_waiting(place, outcome):
            asyncio.get_running_loop().call_later(AGAIN_S, self._admit, place, request)
            return
        self._room.done()
        self._settle(place, outcome)

    def _is_worth_waiting(self, place: Place, outcome: Outcome) -> bool:
        if not isinstance(outcome, Refusal) or outcome.code != "overloaded" or self._gone:
            return False
        place.until = place.until or time.monotonic() + self._room.patience_s
        return time.monotonic() < place.until

    def _next_place(self) -> Place:
        self._number += 1
        self._ahead += 1
        place = Place(self, self._number)
        self._places.append(place)
        return place

    def _settle(self, place: Place, outcome: Outcome) -> None:
        """A line has its verdict, and so may others have behind it."""
        self._count(outcome)
        place.request = None
        place.verdict = self._verdict(place.number, outcome)
        self._ready_bytes += len(place.verdict)
        places = self._places
        if places[0] is place:
            while places and places[0].verdict:
                self._ready.append(places.popleft().verdict)
            self._filled.set()

    def _verdict(self, number: int, outcome: Outcome) -> bytes:
        """Never raises: it may be the committer that tells, in the middle of a batch with orders of others."""
        try:
            return verdict(number, outcome, self._request_id)
        except Exception:
            self._room.log.exception(self._request_id, "POST", PATH)
            return verdict(number, Refusal("internal"), self._request_id)

    def _count(self, outcome: Outcome) -> None:
        summary, counters = self._summary, self._room.counters
        summary.lines += 1
        counters.bulk_lines += 1
        if isinstance(outcome, Refusal):
            summary.refused[outcome.code] += 1
            counters.refused[outcome.code] += 1
            return
        summary.accepted += 1
        if isinstance(outcome, Receipt):
            summary.receipts += 1
            counters.receipts += 1
        elif outcome.replayed:
            summary.replayed += 1
            counters.replayed += 1

    def _end(self) -> None:
        self._ended = True
        self._filled.set()

    async def _write(self, send: Send) -> None:
        await self._filled.wait()
        headers = [(b"content-type", NDJSON)]
        await self._send(send, {"type": "http.response.start", "status": 200, "headers": headers})
        while self._ready or self._places or not self._ended:
            if self._ready:
                await self._tell(send)
            else:
                self._filled.clear()
                await self._filled.wait()
        await self._send(send, {"type": "http.response.body", "body": self._summary.line(), "more_body": False})

    async def _tell(self, send: Send) -> None:
        """Send the verdicts that are ready."""
        count = min(len(self._ready), PIECE_LINES_MAX)
        body = b"".join([self._ready.popleft() for _ in range(count)])
        await self._send(send, {"type": "http.response.body", "body": body, "more_body": True})
        self._ahead -= count
        self._ready_bytes -= len(body)
        self._taken.set()

    async def _say_broken(self, send: Send) -> None:
        """The client may be there, and only his body make no sense. Who is told nothing is told 500 by the server."""
        self._room.counters.refused[BROKEN.code] += 1
        answer = problem(BROKEN, self._request_id)
        with contextlib.suppress(GoneError):
            await self._send(send, {"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await self._send(send, {"type": "http.response.body", "body": answer.body, "more_body": False})

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        self._sending = self._begun = True
        try:
            async with asyncio.timeout(TAKEN_S_MAX):
                await send(message)
        except TimeoutError:
            raise GoneError from None
        self._sending = False

    async def _drain(self, receive: Receive) -> None:
        left = DRAINED_BYTES_MAX
        with contextlib.suppress(OverError, TimeoutError):
            async with asyncio.timeout(DRAINED_S_MAX):
                while self._more and left > 0:
                    left -= len(await self._receive(receive))


def is_ndjson(content_type: bytes) -> bool:
    """Whether a body is `application/x-ndjson`, in UTF-8 if it says so at all."""
    media_type, _, parameters = content_type.partition(b";")
    parameters = parameters.strip().lower().replace(b'"', b"")
    return media_type.strip().lower() == NDJSON and parameters in (b"", b"charset=utf-8")
