"""Orders answered straight through the server's protocol: no task, no coroutine and no future of asyncio for each. So
are those who ask for an order.

It promises what `OrderRoute.respond` does, whose parts it calls: what is refused is answered before its body comes,
what does not arrive in time is 408, and the client's going changes nothing about an order. What is not a whole body of
the announced length at once is read in a task. Nothing here raises: the callers are the event loop, the server's own
thread and the committer.

Who comes while more wait than can be served in time is sent away by the server's thread, so that the loop, which has
too much to do then, does not even hear of him until his answer is out.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any

from msgspec import Struct

from gateway.domain.outcomes import OVERLOADED, Outcome, Promise, Refusal
from gateway.edge.answers import Answer, new_request_id, problem
from gateway.edge.hot import INTERNAL, PATH, Asked, OrderRoute, ask
from gateway.edge.requests import (
    LARGE_BODY_BYTES_MAX,
    UNREAD_S_MAX,
    Message,
    read_headers,
    take_unread,
)
from gateway.edge.show import ROUTE, ShowRoute
from gateway.tasks import Tasks

LOOK_S = 0.1  # how often somebody looks for bodies that do not come
# A loop that has not come to a request for so long, while so many wait for it, answers everybody late. Fewer are no
# crowd: the loop may have done something that takes a moment.
COMING_S_MAX = 0.05
COMING_MIN = 256

# Granian's CallbackWatcherHTTP, ASGIHTTPProtocol and PyFutureAwaitable, of which only what is called here is known.
Watcher = Any
Protocol = Any
Future = Any


class Unread(Struct):
    """A body that comes after its answer, of so many bytes, awaited until then on the clock that does not step."""

    protocol: Protocol
    future: Future
    length: int
    until: float


class Exchanges:
    """The requests for orders of a worker that are being read or answered."""

    def __init__(self, route: OrderRoute, show: ShowRoute) -> None:
        self.route = route
        self._show = show
        self.tasks = Tasks()
        self.context = Context()  # of every callback: nothing of a request is kept there
        self._waiting: dict[Exchange, float] = {}  # for bytes, until then on the clock that does not step
        self._told: list[Exchange] = []
        self._unread: deque[Unread] = deque()
        self._sent_away: deque[tuple[str, float]] = deque()  # ids of requests, and the seconds that each took
        self._coming: deque[float] = deque()  # when each request was handed to the loop that has not begun with it

    def admits(self, watcher: Watcher) -> bool:
        """Whether a request for an order is for the loop. Else it has been sent away. Called by the server's thread."""
        now = time.monotonic()
        if self.route.is_crowded() or self._is_behind(now):
            self._send_away(watcher, now)
            return False
        self._coming.append(now)
        return True

    def open(self, watcher: Watcher) -> None:
        """A request's headers are there."""
        self._coming.popleft()
        Exchange(self, watcher).open()

    def show(self, watcher: Watcher, order_id: str) -> None:
        """Somebody asks for the order of this id, and sends no body."""
        self._show.begin(read_headers(watcher.scope["headers"]), order_id, partial(self._send_shown, watcher))

    def _send_shown(self, watcher: Watcher, given: Answer) -> None:
        try:
            send(watcher.proto, given)
        except Exception:
            self.route.log.exception(dict(given.headers)[b"request-id"].decode(), "GET", ROUTE)
            watcher.done()

    async def run(self) -> None:
        """Look for bodies that do not come, and for who was sent away, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.expire(time.monotonic())

    def expire(self, now: float) -> None:
        """Let nobody wait whose time is over, and say who was sent away."""
        for exchange in [exchange for exchange, until in self._waiting.items() if until <= now]:
            exchange.give_up()
        for _ in range(len(self._unread)):
            self._look_at(self._unread.popleft(), now)
        if sent_away := [self._sent_away.popleft() for _ in range(len(self._sent_away))]:
            self.route.note_crowd(sent_away)

    def take_unread(self, protocol: Protocol, length: int) -> None:
        """Have the body of a request that is answered without it taken off the wire, see `requests.take_unread`. Nobody
        waits for it: somebody looks after it now and then.
        """
        if 0 < length <= LARGE_BODY_BYTES_MAX:
            self._unread.append(Unread(protocol, protocol.receive(), length, time.monotonic() + UNREAD_S_MAX))

    def wait(self, exchange: "Exchange", timeout_s: float) -> None:
        """The exchange waits for bytes, and gives up when they do not come in time."""
        self._waiting[exchange] = time.monotonic() + timeout_s

    def arrived(self, exchange: "Exchange") -> float:
        """The exchange waits no longer. Returns until when it would have, on the clock that does not step."""
        return self._waiting.pop(exchange)

    def tell(self, exchange: "Exchange") -> None:
        """An outcome is known: its answer is made in the loop's next turn, so that the committer, who knows the
        outcomes of a whole batch at once, writes the next one first.
        """
        if not self._told:
            asyncio.get_running_loop().call_soon(self._answer, context=self.context)
        self._told.append(exchange)

    def _look_at(self, unread: Unread, now: float) -> None:
        """Go on with a body of which a first part has come, and give up one that does not come."""
        future = unread.future
        if future.cancelled():
            return
        if future.done():
            left_bytes = unread.length - len(future.result().get("body", b""))
            if left_bytes > 0:
                self.tasks.start(take_unread(unread.protocol.receive, left_bytes))
        elif unread.until <= now:
            future.cancel()
        else:
            self._unread.append(unread)

    def _is_behind(self, now: float) -> bool:
        try:
            return len(self._coming) >= COMING_MIN and now - self._coming[0] > COMING_S_MAX
        except IndexError:  # The loop has come to all of them between the two looks.
            return False

    def _send_away(self, watcher: Watcher, started: float) -> None:
        request_id = new_request_id()
        try:
            # Left alone, a body that comes after the answer would end the connection before its client has read it.
            self.take_unread(watcher.proto, read_headers(watcher.scope["headers"]).length)
            send(watcher.proto, problem(OVERLOADED, request_id))
        except Exception:
            self.route.log.exception(request_id, "POST", PATH)
            watcher.done()
        self._sent_away.append((request_id, time.monotonic() - started))

    def _answer(self) -> None:
        told, self._told = self._told, []
        for exchange in told:
            exchange.answer_promised()


def send(protocol: Protocol, given: Answer) -> None:
    """Send an answer. Raises what the server raises for one that is sent twice."""
    tell = protocol.send
    tell({"type": "http.response.start", "status": given.status, "headers": given.headers})
    tell({"type": "http.response.body", "body": given.body})


class Exchange:
    """One request for an order, from its headers to its answer."""

    __slots__ = ("_all", "_asked", "_future", "_promise", "_protocol", "_watcher")

    def __init__(self, exchanges: Exchanges, watcher: Watcher) -> None:
        self._all = exchanges
        self._watcher = watcher
        self._protocol: Protocol = watcher.proto
        self._asked: Asked = ask(read_headers(watcher.scope["headers"]))
        self._future: Future = None
        self._promise: Promise | None = None

    def open(self) -> None:
        """Refuse, or ask for the body."""
        asked, route = self._asked, self._all.route
        try:
            refusal = route.refusal(asked)
        except Exception:
            route.log.exception(asked.request_id, "POST", PATH)
            refusal = INTERNAL
        if refusal is not None:
            self._answer(refusal)
            self._all.take_unread(self._protocol, asked.headers.length)
        elif route.takes(asked):
            asked.headers.is_read = True
            self._receive(self._on_body, route.body_timeout_s)
        else:
            self._all.tasks.start(self._read(None, route.body_timeout_s))

    def give_up(self) -> None:
        """Nothing more came in time; the callback of what was waited for is told so."""
        self._future.cancel()

    def answer_promised(self) -> None:
        """The promise is kept."""
        assert self._promise is not None
        self._answer(self._promise.result())

    def _receive(self, then: Callable[[Future], None], timeout_s: float) -> None:
        self._future = self._protocol.receive()
        self._all.wait(self, timeout_s)
        self._future.add_done_callback(then, context=self._all.context)

    def _arrived(self) -> float:
        """Until when it might have come. The future is let go: it keeps its callback, and so this exchange, where the
        garbage collector does not look.
        """
        self._future = None
        return self._all.arrived(self)

    def _on_body(self, future: Future) -> None:
        until = self._arrived()
        if future.cancelled():
            self._answer(Refusal("body_timeout"))
            return
        message = future.result()
        body = message.get("body", b"")
        if len(body) == self._asked.headers.length:
            self._place(body)
        else:
            self._all.tasks.start(self._read(message, until - time.monotonic()))

    def _place(self, body: bytes) -> None:
        try:
            promise = self._promise = self._all.route.begin(self._asked, body)
        except Exception:
            self._all.route.log.exception(self._asked.request_id, "POST", PATH)
            self._answer(INTERNAL)
            return
        if promise.done():
            self._answer(promise.result())
        else:
            promise.add_done_callback(self._on_outcome)

    def _on_outcome(self, _promise: Promise) -> None:
        self._all.tell(self)

    async def _read(self, first: Message | None, timeout_s: float) -> None:
        """Go on as the route does where there is a task for each request; `first` has been received."""
        received = [] if first is None else [first]

        async def receive() -> Message:
            message: Message = received.pop() if received else await self._protocol.receive()
            return message

        outcome: Outcome
        try:
            outcome = await self._all.route.place(self._asked, receive, timeout_s)
        except Exception:
            self._all.route.log.exception(self._asked.request_id, "POST", PATH)
            outcome = INTERNAL
        self._answer(outcome)

    def _answer(self, outcome: Outcome) -> None:
        try:
            send(self._protocol, self._all.route.answer(self._asked, outcome))
        except Exception:
            self._all.route.log.exception(self._asked.request_id, "POST", PATH)
            self._watcher.done()  # Closes what is half sent, or answers 500 without a body.
