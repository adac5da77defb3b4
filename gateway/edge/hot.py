"""The outermost callable: answers `POST /v1/orders` itself and passes everything else to Litestar, where the same route
stands a second time.

The twin in `gateway.api.orders` documents the route and is the reference that this one is tested against: both call
`OrderRoute.respond`.
"""

import time
from collections.abc import Awaitable, Callable

from core_ext import ids
from gateway.access import Access
from gateway.admission import Admission, Request
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.keys import parse_key
from gateway.domain.outcomes import Accepted, Outcome, Refusal
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
from gateway.metrics import Counters
from gateway.rates import Allowance, Rates
from gateway.requests_log import UNMATCHED, RequestLog
from gateway.settings import Http
from gateway.tracing import Attributes, Tracer

PATH = "/v1/orders"

App = Callable[[Scope, Receive, Send], Awaitable[None]]


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

    async def respond(self, headers: Headers, receive: Receive) -> Answer:
        """Read, place, answer. Refusals are counted by code. A bug is logged with the request's id and answered without
        internals.
        """
        request_id, started = new_request_id(), time.monotonic()
        client: Client | None = None
        allowance: Allowance | None = None
        if self._tracer is not None:
            headers.trace = self._tracer.begin(headers.traceparent)
            headers.traceparent = headers.trace.traceparent if headers.trace else headers.traceparent
        try:
            client = self._access.find(headers.authorization, self._clock.now_s())
            allowance = self._rates.of(client) if client is not None else None
            checked = self._check(client, allowance, headers)
            outcome = (
                checked if isinstance(checked, Refusal) else await self._place(checked, allowance, headers, receive)
            )
        except Exception:
            self.log.exception(request_id, "POST", PATH)
            outcome = Refusal("internal")
        if isinstance(outcome, Refusal):
            self._counters.refused[outcome.code] += 1
        else:
            self._counters.replayed += outcome.replayed
        given = answer(outcome, request_id)
        if allowance is not None:
            given.headers.extend(allowance.headers(outcome))
        self._note(request_id, headers, client, outcome, given.status, time.monotonic() - started)
        return given

    def _note(
        self,
        request_id: str,
        headers: Headers,
        client: Client | None,
        outcome: Outcome,
        status: int,
        seconds: float,
    ) -> None:
        """Say what has become of a request: counts, and where they are wanted a line and a span."""
        self.log.count(PATH, status)
        code = outcome.code if isinstance(outcome, Refusal) else ""
        if isinstance(outcome, Accepted) and not outcome.replayed:
            self._counters.order_seconds.observe(seconds)
        if self.log.wants(request_id, status, code):
            name = client.name if client is not None else None
            self.log.write(request_id, "POST", PATH, status, code, name, seconds, headers.traceparent)
        # Who is no client makes no spans: his flag would fill the queue with them, in which those of orders wait.
        if self._tracer is not None and headers.trace is not None and client is not None:
            self._tracer.answered(headers.trace, _attributes(request_id, outcome, status), failed=status >= 500)

    def _check(self, client: Client | None, allowance: Allowance | None, headers: Headers) -> Client | Refusal:
        """Whether the client may ask, and the request has the right form, before its body is read."""
        if client is None:
            return self._access.refusal()
        limited = allowance.refusal() if allowance is not None else None
        if limited is not None:
            return limited
        if not client.may("orders:write"):
            return Refusal("scope_missing", "the route needs the scope orders:write")
        if not is_json(headers.content_type):
            return Refusal("unsupported_media_type")
        if headers.key is None:
            return Refusal("key_missing")
        return client

    async def _place(self, client: Client, allowance: Allowance | None, headers: Headers, receive: Receive) -> Outcome:
        assert headers.key is not None
        key = parse_key(headers.key) if headers.keys == 1 else None
        if key is None:
            return Refusal(
                "key_invalid", "a key is 1 to 255 visible ASCII characters, bare or quoted, and stands there once"
            )
        headers.is_read = True
        bytes_max = LARGE_BODY_BYTES_MAX if client.may("orders:price") else self._settings.body_max_bytes
        body = await read_body(
            receive,
            headers.length,
            max(bytes_max, self._settings.body_max_bytes),
            self._settings.body_timeout_ms / 1000,
        )
        if isinstance(body, Refusal):
            return body
        return await self._admission.place(Request(client, key, body, headers.traceparent, allowance, headers.trace))


class Edge:
    """The ASGI application of a worker."""

    def __init__(self, route: OrderRoute, litestar: App) -> None:
        self._route = route
        self._litestar = litestar

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._pass_on(scope, receive, send)
            return
        headers = read_headers(scope["headers"])
        answer = await self._route.respond(headers, receive)
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
    else:
        found["floodgate.order_id"] = ids.format_id(outcome.order_id)
    return found
