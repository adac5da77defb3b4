"""Answers `GET /v1/orders/{order_id}` ahead of Litestar, where the same route stands a second time: buyers poll their
orders, and a route of Litestar costs several times what the order itself does.

The twin in `gateway.api.orders` documents the route and is the reference that this one is tested against. What is not
plainly such a request (a query, a path of another form) is left to it.
"""

import time
from typing import NamedTuple

from gateway.access import Access
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.outcomes import Refusal
from gateway.edge.answers import JSON, NO_STORE, Answer, new_request_id, problem
from gateway.edge.requests import Headers, Scope
from gateway.orders import body_of
from gateway.rates import Allowance, Rates
from gateway.reads import OrderReads
from gateway.requests_log import RequestLog

PREFIX = b"/v1/orders/"
PATH_CHARS = len(PREFIX) + 36
ROUTE = "/v1/orders/{order_id}"
SCOPES = ("orders:read", "orders:read:all")


def id_in(scope: Scope) -> str | None:
    """What stands in the place of the id when the request is plainly one for an order, else None."""
    path: bytes = scope["raw_path"]
    if scope["method"] != "GET" or len(path) != PATH_CHARS or not path.startswith(PREFIX) or scope["query_string"]:
        return None
    order_id = path[len(PREFIX) :].decode("latin-1")
    return None if "/" in order_id else order_id


class Shown(NamedTuple):
    """An order as the client may see it."""

    version: int
    body: bytes


class ShowRoute:
    """Everything about `GET /v1/orders/{order_id}` that is not its framework."""

    def __init__(self, access: Access, clock: Clock, reads: OrderReads, rates: Rates, log: RequestLog) -> None:
        self._access = access
        self._clock = clock
        self._reads = reads
        self._rates = rates
        self.log = log

    async def respond(self, headers: Headers, order_id: str) -> Answer:
        """Look up, answer. A bug is logged with the request's id and answered without internals."""
        request_id, started = new_request_id(), time.monotonic()
        client: Client | None = None
        allowance: Allowance | None = None
        try:
            client = self._access.find(headers.authorization, self._clock.now_s())
            allowance = self._rates.of(client) if client is not None else None
            shown = await self._show(client, allowance, order_id)
        except Exception:
            self.log.exception(request_id, "GET", ROUTE)
            shown = Refusal("internal")
        given = problem(shown, request_id) if isinstance(shown, Refusal) else _answer(*shown, request_id)
        if allowance is not None:
            given.headers.extend(allowance.headers(shown if isinstance(shown, Refusal) else None))
        code = shown.code if isinstance(shown, Refusal) else ""
        self._note(request_id, headers, client, given.status, code, time.monotonic() - started)
        return given

    async def _show(self, client: Client | None, allowance: Allowance | None, order_id: str) -> Shown | Refusal:
        if client is None:
            return self._access.refusal()
        limited = allowance.refusal() if allowance is not None else None
        if limited is not None:
            return limited
        if not any(map(client.may, SCOPES)):
            return Refusal("scope_missing", f"the route needs the scope {' or '.join(SCOPES)}")
        order = await self._reads.show(client, order_id)
        return order if isinstance(order, Refusal) else Shown(order.version, body_of(order, client))

    def _note(
        self, request_id: str, headers: Headers, client: Client | None, status: int, code: str, seconds: float
    ) -> None:
        self.log.count(ROUTE, status)
        if self.log.wants(request_id, status, code):
            name = client.name if client is not None else None
            self.log.write(request_id, "GET", ROUTE, status, code, name, seconds, headers.traceparent)


def _answer(version: int, body: bytes, request_id: str) -> Answer:
    headers = [
        (b"content-type", JSON),
        (b"content-length", str(len(body)).encode()),
        (b"etag", b'"%d"' % version),
        (b"request-id", request_id.encode()),
        NO_STORE,
    ]
    return Answer(200, headers, body)
