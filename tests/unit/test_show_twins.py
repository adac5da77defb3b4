"""`GET /v1/orders/{order_id}` stands twice, at the edge and as a route of Litestar: whatever is sent, both give the
same answer but for the id of the request.
"""

from typing import Any

import pytest
import structlog

from core_ext import ids
from gateway import api
from gateway.edge.hot import Edge
from gateway.edge.requests import Message, announces_body
from gateway.services import Services
from gateway.settings import Limits, RateRule, Settings
from persistence.errors import LedgerUnavailableError
from tests.api import TOKEN, App, Book, Reply, call, services
from tests.direct import DirectEdge
from tests.unit.fakes import turns
from tests.unit.test_api_orders import order
from tests.unit.test_edge_twins import comparable

MINE, OTHERS = order(1), order(2, client_id=9)
UNKNOWN = "0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51"
REQUESTS: dict[str, dict[str, Any]] = {
    "known": {},
    "another client's": {"order_id": ids.format_id(OTHERS.id), "token": "fg_own"},
    "another client's for who reads all": {"order_id": ids.format_id(OTHERS.id), "token": "fg_reader"},
    "without pii:read": {"token": "fg_reader"},
    "unknown": {"order_id": UNKNOWN},
    "upper case": {"order_id": ids.format_id(MINE.id).upper()},
    "no id": {"order_id": "x" * 36},
    "no token": {"token": None},
    "unknown token": {"token": "fg_other"},
    "expired token": {"token": "fg_expired"},
    "no scope": {"token": "fg_none"},
    "traced": {"headers": {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}},
}
ERRORS = {"away": LedgerUnavailableError("away"), "internal": RuntimeError("planted by the test")}


class Ways:
    """The same services behind the edge, with a task for each request and without one, and behind Litestar alone."""

    def __init__(self, **parts: Any) -> None:
        self.book = Book()
        self.book.orders = [MINE, OTHERS]
        self.parts: Services = services(book=self.book, **parts)
        self.twin: App = api.create(self.parts)
        self.edge = Edge(self.parts.route, unreachable, self.parts.show)
        self.direct = DirectEdge(self.parts.route, self.parts.show)

    async def ask(self, order_id: str = "", **request: Any) -> list[Reply]:
        path = f"/v1/orders/{order_id or ids.format_id(MINE.id)}"
        return [await call(way, "GET", path, **request) for way in (self.edge, self.direct, self.twin)]


async def no_body() -> Message:
    raise AssertionError("a body is asked for")


async def unreachable(scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError(scope["path"])


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_twins_for_a_request_answer_the_same(request_: dict[str, Any]) -> None:
    edge, direct, twin = await Ways().ask(**request_)
    assert comparable(edge) == comparable(direct) == comparable(twin)


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
async def test_twins_for_an_error_answer_the_same(error: Exception) -> None:
    ways = Ways()
    ways.book.error = error
    with structlog.testing.capture_logs():
        edge, direct, twin = await ways.ask()
    assert comparable(edge) == comparable(direct) == comparable(twin)


async def test_twins_tell_a_limited_client_the_same() -> None:
    def ways() -> Ways:
        return Ways(settings=Settings(limits=Limits(rate=(RateRule("*", requests_per_s=0.01, burst=1),))))

    first, second = ways(), ways()  # Each has its own rates, so that each is asked as often.
    edge = [(await first.ask())[0], await call(first.edge, "GET", f"/v1/orders/{UNKNOWN}")]
    twin = [await call(second.twin, "GET", f"/v1/orders/{ids.format_id(MINE.id)}")]
    assert [reply.status for reply in edge + twin] == [200, 429, 200]
    assert comparable(edge[0]) == comparable(twin[0])


async def test_edge_shows_an_order_without_litestar() -> None:
    edge, *_ = await Ways().ask()
    assert (edge.status, edge.json["order_id"]) == (200, ids.format_id(MINE.id))


async def test_edge_counts_an_order_that_was_shown() -> None:
    ways = Ways()
    await call(ways.edge, "GET", f"/v1/orders/{ids.format_id(MINE.id)}")
    await call(ways.edge, "GET", f"/v1/orders/{UNKNOWN}")
    assert ways.parts.counters.requests == {("orders", 2): 1, ("orders", 4): 1}


async def test_edge_writes_the_line_of_a_refused_request() -> None:
    with structlog.testing.capture_logs() as lines:
        reply, *_ = await Ways().ask(UNKNOWN)
    (line,) = [line for line in lines if line.get("request_id") == reply.header("request-id")]
    assert (line["route"], line["code"], line["client"]) == ("/v1/orders/{order_id}", "not_found", "shop")


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("HEAD", f"/v1/orders/{UNKNOWN}"),
        ("GET", f"/v1/orders/{UNKNOWN}?x=1"),
        ("GET", f"/v1/orders/{UNKNOWN}/cancel"),
        ("GET", "/v1/orders/x"),
        ("GET", f"/v1/orders/{UNKNOWN[:18]}/{UNKNOWN[19:]}"),
        ("GET", f"/v1/orders/%30{UNKNOWN[1:]}"),
        ("GET", f"/v2/orders/{UNKNOWN}"),
        ("GET", "/v1/orders"),
        ("POST", f"/v1/orders/{UNKNOWN}"),
    ],
)
async def test_edge_leaves_everything_else_to_litestar(method: str, target: str) -> None:
    seen: list[str] = []

    async def behind(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["raw_path"].decode())
        await send({"type": "http.response.start", "status": 204, "headers": []})

    parts = services()
    assert (await call(Edge(parts.route, behind, parts.show), method, target)).status == 204
    assert seen == [target.partition("?")[0]]


async def test_order_that_cannot_be_sent_lets_the_server_end_the_request() -> None:
    ways = Ways()
    scope = {
        "method": "GET",
        "raw_path": f"/v1/orders/{ids.format_id(MINE.id)}".encode(),
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {TOKEN}".encode())],
    }
    with structlog.testing.capture_logs() as logs:
        watcher = ways.direct.open(scope, no_body)
        watcher.proto.broken = True
        await turns()
    assert watcher.is_done
    assert [entry["event"] for entry in logs] == ["request_failed"]


@pytest.mark.parametrize(
    ("headers", "announced"),
    [([], False), ([(b"content-length", b"3")], True), ([(b"transfer-encoding", b"chunked")], True)],
)
def test_body_of_any_method_is_announced_by_its_headers(headers: list[tuple[bytes, bytes]], *, announced: bool) -> None:
    assert announces_body({"headers": headers}) == announced
