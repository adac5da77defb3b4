"""The outermost callable: answers `POST /v1/orders` itself and passes everything else to Litestar, where the same route
stands a second time.

The twin in `gateway.api.orders` documents the route and is the reference that this one is tested against: both call
`OrderRoute.respond`.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from msgspec import Struct

from core_ext import ids
from gateway.access import Access
from gateway.admission import Admission, Request
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.keys import parse_key
from gateway.domain.outcomes import OVERLOADED, Accepted, Outcome, Promise, Receipt, Refusal
from gateway.edge.answers import Answer, answer, new_request_id
from gateway.edge.requests import (
    LARGE_BODY_BYTES_MAX,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    is_json,
    read_body,
    read_headers,
    take_unread,
)
from gateway.edge.show import ShowRoute, id_in
from gateway.metrics import Counters
from gateway.rates import Allowance, Rates
from gateway.requests_log import UNMATCHED, RequestLog
from gateway.settings import Http
from gateway.tracing import Attributes, Trace, Tracer

PATH = "/v1/orders"
SCOPE_MISSING = Refusal("scope_missing", "the route needs the scope orders:write")
INTERNAL = Refusal("internal")
KEY_INVALID = Refusal(
    "key_invalid", "a key is 1 to 255 visible ASCII characters, bare or quoted, and stands there once"
)

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Asked(Struct, eq=False):
    """A request for an order, from its headers to its answer; `trace` when it is sampled."""

    request_id: str
    started: float  # on the clock that does not step
    headers: Headers
    client: Client | None = None
    allowance: Allowance | None = None
    key: bytes = b""
    trace: Trace | None = None

    @property
    def traceparent(self) -> str | None:
        """What the order's event and the log carry: the request's span once there is one, else the caller's."""
        return self.headers.traceparent if self.trace is None else self.trace.traceparent

    def request(self, body: bytes) -> Request:
        """What admission is told."""
        assert self.client is not None
        return Request(self.client, self.key, body, self.traceparent, self.allowance, self.trace)


def ask(headers: Headers) -> Asked:
    """A request that comes now."""
    return Asked(new_request_id(), time.monotonic(), headers)


class OrderRoute:
    """Everything about `POST /v1/orders` that is not its framework."""

    def __init__(
        self,
        settings: Http,
        access: Access,
        clock: Clock,
        admission: Admission,
        counters: Counters,
        rates: Rates,
        log: RequestLog,
        tracer: Tracer | None = None,
    ) -> None:
        self._settings = settings
        self._access = access
        self._clock = clock
        self._admission = admission
        self._counters = counters
        self._rates = rates
        self._tracer = tracer
        self.log = log
        self.body_timeout_s = settings.body_timeout_ms / 1000

    async def respond(self, headers: Headers, receive: Receive) -> Answer:
        """Read, place, answer. A bug is logged with the request's id and answered without internals."""
        asked = ask(headers)
        try:
            outcome: Outcome | None = self.refusal(asked)
            if outcome is None:
                outcome = await self.place(asked, receive, self.body_timeout_s)
        except Exception:
            self.log.exception(asked.request_id, "POST", PATH)
            outcome = INTERNAL
        return self.answer(asked, outcome)

    def refusal(self, asked: Asked) -> Refusal | None:
        """Why the request is refused before its body is read: who asks may not, or it has not the right form."""
        headers = asked.headers
        if self._tracer is not None:
            asked.trace = self._tracer.begin(headers.traceparent)
        client = asked.client = self._access.find(headers.authorization, self._clock.now_s())
        if client is None:
            return self._access.refusal()
        if self._admission.is_crowded():  # To refuse must cost little.
            return OVERLOADED
        allowance = asked.allowance = self._rates.of(client)
        limited = allowance.refusal() if allowance is not None else None
        if limited is not None:
            return limited
        return _form_refused(asked) if client.may("orders:write") else SCOPE_MISSING

    def is_crowded(self) -> bool:
        """Whether so many wait to be committed that one more would wait too long. May be asked by any thread."""
        return self._admission.is_crowded()

    def takes(self, asked: Asked) -> bool:
        """Whether the body is announced, and neither empty nor too large."""
        length = asked.headers.length
        return length > 0 and (length <= self._settings.body_max_bytes or length <= self._bytes_max(asked))

    def begin(self, asked: Asked, body: bytes) -> Promise:
        """Place an order that is not refused, and has been read whole."""
        return self._admission.begin(asked.request(body))

    async def place(self, asked: Asked, receive: Receive, timeout_s: float) -> Outcome:
        """Read and place an order that is not refused."""
        asked.headers.is_read = True
        body = await read_body(receive, asked.headers.length, self._bytes_max(asked), timeout_s)
        return body if isinstance(body, Refusal) else await self._admission.place(asked.request(body))

    def answer(self, asked: Asked, outcome: Outcome) -> Answer:
        """The answer in bytes. Counts it, and where they are wanted makes a line and a span of it."""
        given = answer(outcome, asked.request_id, asked.key)
        if asked.allowance is not None:
            given.headers.extend(asked.allowance.headers(outcome))
        self.log.count(PATH, given.status)
        code, seconds = "", time.monotonic() - asked.started
        if isinstance(outcome, Refusal):
            code = outcome.code
            self._counters.refused[code] += 1
        elif isinstance(outcome, Receipt):
            self._counters.receipts += 1
        elif outcome.replayed:
            self._counters.replayed += 1
        else:
            self._counters.order_seconds.observe(seconds)
        if self.log.wants(asked.request_id, given.status, code):
            name = asked.client.name if asked.client is not None else None
            self.log.write(asked.request_id, "POST", PATH, given.status, code, name, seconds, asked.traceparent)
        # Who is no client makes no spans: his flag would fill the queue with them, in which those of orders wait.
        if self._tracer is not None and asked.trace is not None and asked.client is not None:
            attributes = _attributes(asked.request_id, outcome, given.status)
            self._tracer.answered(asked.trace, attributes, failed=given.status >= 500)
        return given

    def note_crowd(self, sent_away: Sequence[tuple[str, float]]) -> None:
        """Count those who have been told that there is a crowd, by the ids of their requests and the seconds that it
        took, and make lines where they are wanted.
        """
        code, status = OVERLOADED.code, OVERLOADED.status
        self.log.count(PATH, status, len(sent_away))
        self._counters.refused[code] += len(sent_away)
        for request_id, seconds in sent_away:
            if self.log.wants(request_id, status, code):
                self.log.write(request_id, "POST", PATH, status, code, None, seconds, None)

    def _bytes_max(self, asked: Asked) -> int:
        """Of the body; who names prices may send larger ones, if they have items enough."""
        assert asked.client is not None
        usual = self._settings.body_max_bytes
        return max(LARGE_BODY_BYTES_MAX, usual) if asked.client.may("orders:price") else usual


class Edge:
    """The ASGI application of a worker."""

    def __init__(self, route: OrderRoute, litestar: App, show: ShowRoute | None = None) -> None:
        """Without `show` an order is shown by Litestar."""
        self._route = route
        self._litestar = litestar
        self._show = show

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            order_id = id_in(scope) if self._show is not None and scope["type"] == "http" else None
            if self._show is None or order_id is None:
                await self._pass_on(scope, receive, send)
                return
            headers = read_headers(scope["headers"])
            await self._send(await self._show.respond(headers, order_id), headers, receive, send)
            return
        headers = read_headers(scope["headers"])
        await self._send(await self._route.respond(headers, receive), headers, receive, send)

    async def _send(self, answer: Answer, headers: Headers, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})
        if not headers.is_read:
            await take_unread(receive, headers.length)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Litestar answer, and say what it has."""
        started, status, is_read = time.monotonic(), 0, False

        async def reading() -> Message:
            nonlocal is_read
            is_read = True
            return await receive()

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self._litestar(scope, reading, noting)
        self._say(scope, status, time.monotonic() - started)
        if not is_read:
            await take_unread(receive, read_headers(scope["headers"]).length)

    def _say(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope.get("state", {})
        request_id = state.get("request_id")
        if request_id is None or not status:  # The twin of the hot route has said it itself; nobody else leaves it out.
            return
        log, method, code = self._route.log, str(scope["method"]), state.get("code", "")
        route = scope.get("path_template") or UNMATCHED
        log.count(route, status)
        if log.wants(request_id, status, code):
            client, headers = state.get("client"), read_headers(scope["headers"])
            name = client.name if client else None
            log.write(request_id, method, route, status, code, name, seconds, headers.traceparent)


def _form_refused(asked: Asked) -> Refusal | None:
    """Why a request has not the right form; else its key is known."""
    headers = asked.headers
    if not is_json(headers.content_type):
        return Refusal("unsupported_media_type")
    if headers.key is None:
        return Refusal("key_missing")
    key = parse_key(headers.key) if headers.keys == 1 else None
    if key is None:
        return KEY_INVALID
    asked.key = key
    return None


def _attributes(request_id: str, outcome: Outcome, status: int) -> Attributes:
    """Of the span of a request, by the conventions of OpenTelemetry where there are any."""
    found: dict[str, str | int] = {
        "http.request.method": "POST",
        "http.route": PATH,
        "http.response.status_code": status,
        "floodgate.request_id": request_id,
    }
    if isinstance(outcome, Refusal):
        found["error.type"] = outcome.code
    elif isinstance(outcome, Accepted):
        found["floodgate.order_id"] = ids.format_id(outcome.order_id)
    return found
