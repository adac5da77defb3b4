"""What is said about requests: a count by resource and status for each, and a line for each that was refused or failed,
and for a share of the others.

A flash sale refuses tens of thousands in a second, so lines are bounded: what is beyond is counted by code, and said in
one line a second. A line carries ids, codes and times, the route's template and the client's name, and nothing else
that a request holds. A request without a line costs no more than a count.
"""

import asyncio
from collections import Counter
from zlib import crc32

import structlog

from gateway.metrics import RESOURCES, Counters
from gateway.settings import Log

TURN_S = 1.0
INTERNAL = "internal"
# One in so many of a second's lines is kept for errors that nobody expected, which a sale's refusals would leave none.
KEPT_ONE_IN = 5
SAMPLED = "sampled"  # stands for a code where a request that succeeded has lost its line
UNMATCHED = "unmatched"  # the route of a request that no route takes; its path may hold anything
OTHER = "other"  # stands for a method that HTTP does not name, which may hold anything as well
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})

log = structlog.get_logger("requests")


class RequestLog:
    """One per worker."""

    def __init__(self, settings: Log, counters: Counters) -> None:
        self._lines_max = settings.requests_per_s_max
        self._left = self._lines_max
        self._kept = self._lines_max // KEPT_ONE_IN
        self._sampled_below = int(settings.sample_ratio * (1 << 32))
        self._counters = counters
        self._unlogged: Counter[str] = Counter()
        self._resources: dict[str, str] = {}

    async def run(self) -> None:
        """Say once a second what had no line."""
        while True:
            await asyncio.sleep(TURN_S)
            self.turn()

    def turn(self) -> None:
        """A second is over: there is room for as many lines again."""
        self._left = self._lines_max
        if self._unlogged:
            log.info("requests_not_logged", codes=dict(self._unlogged))
            self._unlogged.clear()

    def count(self, route: str, status: int, requests: int = 1) -> None:
        self._counters.requests[self._resource(route), status // 100] += requests

    def wants(self, request_id: str, status: int, code: str) -> bool:
        """Whether a request has a line; one that should have and finds no room is counted by its code. The request's id
        alone decides about what succeeded: whoever asks again gets the same answer.
        """
        if status < 400 and not (self._sampled_below and crc32(request_id.encode()) < self._sampled_below):
            return False
        return self._has_room(code or SAMPLED)

    def write(
        self,
        request_id: str,
        method: str,
        route: str,
        status: int,
        code: str,
        client: str | None,
        seconds: float,
        traceparent: str | None,
    ) -> None:
        """The line of a request that `wants` has found room for."""
        said = {"code": code or None, "client": client, "trace_id": traceparent.split("-")[1] if traceparent else None}
        (log.warning if status >= 500 else log.info)(
            "request",
            request_id=request_id,
            method=method if method in METHODS else OTHER,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            **{name: value for name, value in said.items() if value is not None},
        )

    def exception(self, request_id: str, method: str, route: str, error: BaseException | None = None) -> None:
        """Say what nobody expected, with its state: the error that is being handled, unless it is given."""
        if self._has_room(INTERNAL):
            log.error("request_failed", request_id=request_id, method=method, route=route, exc_info=error or True)

    def _has_room(self, code: str) -> bool:
        if self._left <= (0 if code == INTERNAL else self._kept):
            self._unlogged[code] += 1
            return False
        self._left -= 1
        return True

    def _resource(self, route: str) -> str:
        """The `orders` of `/v1/orders/{order_id}`; routes are few, so what was found is kept."""
        found = self._resources.get(route)
        if found is None:
            parts = route.split("/")
            named = parts[2] if len(parts) > 2 else ""
            found = self._resources[route] = named if named in RESOURCES else RESOURCES[-1]
        return found
