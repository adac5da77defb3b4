"""The outermost callable: answers `POST /v1/orders` itself and passes everything else to Litestar, where the same route
stands a second time.

The twin in `gateway.api.orders` documents the route and is the reference that this one is tested against: both call
`OrderRoute.respond`.
"""

from collections.abc import Awaitable, Callable

import structlog

from gateway.access import Access
from gateway.admission import Admission, Request
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.keys import parse_key
from gateway.domain.outcomes import Outcome, Refusal
from gateway.edge.answers import Answer, answer, new_request_id, problem
from gateway.edge.requests import LARGE_BODY_BYTES_MAX, Headers, Receive, Scope, Send, is_json, read_body, read_headers
from gateway.metrics import Counters
from gateway.settings import Http

PATH = "/v1/orders"

log = structlog.get_logger("edge")

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class OrderRoute:
    """Everything about `POST /v1/orders` that is not its framework."""

    def __init__(self, settings: Http, access: Access, clock: Clock, admission: Admission, counters: Counters) -> None:
        self._settings = settings
        self._access = access
        self._clock = clock
        self._admission = admission
        self._counters = counters

    async def respond(self, headers: Headers, receive: Receive) -> Answer:
        """Read, place, answer. Refusals are counted by code. A bug is logged with the request's id and answered without
        internals.
        """
        request_id = new_request_id()
        try:
            client = self._check(headers)
            outcome = client if isinstance(client, Refusal) else await self._place(client, headers, receive)
        except Exception:
            log.exception("order_failed", request_id=request_id)
            outcome = Refusal("internal")
        if isinstance(outcome, Refusal):
            self._counters.refused[outcome.code] += 1
            return problem(outcome, request_id)
        self._counters.replayed += outcome.replayed
        return answer(outcome, request_id)

    def _check(self, headers: Headers) -> Client | Refusal:
        """Who is asking, and whether the request has the right form before its body is read."""
        client = self._access.find(headers.authorization, self._clock.now_s())
        if client is None:
            return self._access.refusal()
        if not client.may("orders:write"):
            return Refusal("scope_missing", "the route needs the scope orders:write")
        if not is_json(headers.content_type):
            return Refusal("unsupported_media_type")
        if headers.key is None:
            return Refusal("key_missing")
        return client

    async def _place(self, client: Client, headers: Headers, receive: Receive) -> Outcome:
        assert headers.key is not None
        key = parse_key(headers.key) if headers.keys == 1 else None
        if key is None:
            return Refusal(
                "key_invalid", "a key is 1 to 255 visible ASCII characters, bare or quoted, and stands there once"
            )
        bytes_max = LARGE_BODY_BYTES_MAX if client.may("orders:price") else self._settings.body_max_bytes
        body = await read_body(
            receive,
            headers.length,
            max(bytes_max, self._settings.body_max_bytes),
            self._settings.body_timeout_ms / 1000,
        )
        if isinstance(body, Refusal):
            return body
        return await self._admission.place(Request(client, key, body, headers.traceparent))


class Edge:
    """The ASGI application of a worker."""

    def __init__(self, route: OrderRoute, litestar: App) -> None:
        self._route = route
        self._litestar = litestar

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._litestar(scope, receive, send)
            return
        answer = await self._route.respond(read_headers(scope["headers"]), receive)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})
