"""Answers `GET /v1/orders/{order_id}` ahead of Litestar, where the same route stands a second time: buyers poll their
orders, and a route of Litestar costs several times what the order itself does.

The twin in `gateway.api.orders` documents the route and is the reference that this one is tested against. What is not
plainly such a request (a query, a path of another form) is left to it.
"""

import asyncio
import time
from collections.abc import Callable
from functools import partial

from msgspec import Struct

from core_ext import ids
from core_ext.shapes import Order
from gateway.access import Access
from gateway.clock import Clock
from gateway.domain.access import Client
from gateway.domain.outcomes import LEDGER_AWAY, OVERLOADED, Refusal
from gateway.edge.answers import JSON, NO_STORE, Answer, new_request_id, problem
from gateway.edge.requests import Headers, Scope
from gateway.lookup import LookupFailedError, OverloadedError
from gateway.orders import body_of
from gateway.rates import Allowance, Rates
from gateway.reads import NOT_FOUND, OrderReads
from gateway.requests_log import RequestLog
from persistence.errors import LedgerUnavailableError
from persistence.postgres.orders import StoredOrder

PREFIX = b"/v1/orders/"
PATH_CHARS = len(PREFIX) + 36
ROUTE = "/v1/orders/{order_id}"
SCOPES = ("orders:read", "orders:read:all")
INTERNAL = Refusal("internal")


def id_in(scope: Scope) -> str | None:
    """What stands in the place of the id when the request is plainly one for an order, else None."""
    path: bytes = scope["raw_path"]
    if scope["method"] != "GET" or len(path) != PATH_CHARS or not path.startswith(PREFIX) or scope["query_string"]:
        return None
    order_id = path[len(PREFIX) :].decode("latin-1")
    return None if "/" in order_id else order_id


class Asked(Struct, eq=False):
    """A request for an order, from its headers to its answer, which `tell` is called with."""

    request_id: str
    started: float  # on the clock that does not step
    headers: Headers
    tell: Callable[[Answer], None]
    client: Client | None = None
    allowance: Allowance | None = None


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
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def tell(answer: Answer) -> None:
            if not answered.done():  # Who asked may have gone.
                answered.set_result(answer)

        self.begin(headers, order_id, tell)
        return await answered

    def begin(self, headers: Headers, order_id: str, tell: Callable[[Answer], None]) -> None:
        """As `respond`, for who needs no task: `tell` is called with the answer, once, now or later."""
        asked = Asked(new_request_id(), time.monotonic(), headers, tell)
        try:
            refusal = self._refusal(asked)
            known = ids.parse_id(order_id) if refusal is None else None
            if known is None:
                self._answer(asked, refusal or NOT_FOUND)
            else:
                self._reads.ask(known, partial(self._looked_up, asked))
        except OverloadedError:
            self._answer(asked, OVERLOADED)
        except Exception:
            self.log.exception(asked.request_id, "GET", ROUTE)
            self._answer(asked, INTERNAL)

    def _refusal(self, asked: Asked) -> Refusal | None:
        """Why nobody is asked for the order."""
        client = asked.client = self._access.find(asked.headers.authorization, self._clock.now_s())
        if client is None:
            return self._access.refusal()
        allowance = asked.allowance = self._rates.of(client)
        limited = allowance.refusal() if allowance is not None else None
        if limited is not None:
            return limited
        if not any(map(client.may, SCOPES)):
            return Refusal("scope_missing", f"the route needs the scope {' or '.join(SCOPES)}")
        return None

    def _looked_up(
        self, asked: Asked, stored: StoredOrder | None, error: LedgerUnavailableError | LookupFailedError | None
    ) -> None:
        try:
            self._answer(asked, self._shown(asked.client, stored, error))
        except Exception:
            self.log.exception(asked.request_id, "GET", ROUTE)
            self._answer(asked, INTERNAL)

    def _shown(
        self,
        client: Client | None,
        stored: StoredOrder | None,
        error: LedgerUnavailableError | LookupFailedError | None,
    ) -> Order | Refusal:
        assert client is not None
        if isinstance(error, LookupFailedError):
            raise LookupFailedError from error  # Another one for each: it is given to all who asked.
        return LEDGER_AWAY if error is not None else self._reads.opened(client, stored)

    def _answer(self, asked: Asked, shown: Order | Refusal) -> None:
        client, allowance = asked.client, asked.allowance
        if isinstance(shown, Refusal):
            given, refusal = problem(shown, asked.request_id), shown
        else:
            assert client is not None
            given, refusal = _answer(shown.version, body_of(shown, client), asked.request_id), None
        if allowance is not None:
            given.headers.extend(allowance.headers(refusal))
        self._note(asked, given.status, refusal.code if refusal is not None else "")
        asked.tell(given)

    def _note(self, asked: Asked, status: int, code: str) -> None:
        self.log.count(ROUTE, status)
        if self.log.wants(asked.request_id, status, code):
            name = asked.client.name if asked.client is not None else None
            seconds, traceparent = time.monotonic() - asked.started, asked.headers.traceparent
            self.log.write(asked.request_id, "GET", ROUTE, status, code, name, seconds, traceparent)


def _answer(version: int, body: bytes, request_id: str) -> Answer:
    headers = [
        (b"content-type", JSON),
        (b"content-length", str(len(body)).encode()),
        (b"etag", b'"%d"' % version),
        (b"request-id", request_id.encode()),
        NO_STORE,
    ]
    return Answer(200, headers, body)
