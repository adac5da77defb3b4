"""What is said about requests: bounded lines, a deterministic sample, and nothing of what a buyer wrote."""

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog

from gateway import api
from gateway.domain.outcomes import Accepted, Refusal
from gateway.edge.hot import Edge
from gateway.metrics import Counters
from gateway.requests_log import RequestLog
from gateway.settings import Log, Settings
from tests.api import Book, Placing, Reply, call, services

BODY = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":1}]}'
KEY = {"Idempotency-Key": "k-1"}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ACCEPTED = Accepted(bytes.fromhex("019ac4d4e0007abc8123456789abcdef"), b"{}")

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def log(**settings: Any) -> RequestLog:
    return RequestLog(Log(**settings), Counters())


def one(lines: Lines, event: str = "request") -> MutableMapping[str, Any]:
    (found,) = [line for line in lines if line["event"] == event]
    return found


async def ask(
    method: str, target: str, body: bytes | None = None, outcome: Any = ACCEPTED, **more: Any
) -> tuple[Reply, Counters]:
    """A request at the edge of a worker with these log settings."""
    placing = Placing()
    placing.outcome = outcome
    book = Book()
    book.error = more.pop("error", None)
    parts = services(settings=Settings(log=Log(**more.pop("log", {}))), admission=placing, book=book)
    return await call(Edge(parts.route, api.create(parts)), method, target, body, **more), parts.counters


async def test_requests_refused_order_has_a_line(lines: Lines) -> None:
    reply, counters = await ask(
        "POST", "/v1/orders", BODY, Refusal("sold_out"), headers=KEY | {"traceparent": TRACEPARENT}
    )
    line = one(lines)
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": reply.header("request-id"),
        "method": "POST",
        "route": "/v1/orders",
        "status": 409,
        "code": "sold_out",
        "client": "shop",
        "trace_id": TRACEPARENT.split("-")[1],
    }
    assert counters.requests == {("orders", 4): 1}


async def test_requests_refused_beside_the_hot_route_has_a_line(lines: Lines) -> None:
    reply, counters = await ask("GET", "/v1/orders/nothing-there?x=secret")
    line = one(lines)
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": reply.header("request-id"),
        "method": "GET",
        "route": "/v1/orders/{order_id}",
        "status": 400,
        "code": "bad_parameter",
        "client": "shop",
    }
    assert counters.requests == {("orders", 4): 1}


async def test_requests_without_a_known_token_have_a_line_without_a_client(lines: Lines) -> None:
    await ask("POST", "/v1/orders", BODY, token="fg_unknown")
    await ask("GET", "/v1/orders", token="fg_unknown")
    assert [(line["code"], "client" in line) for line in lines] == [("unauthenticated", False)] * 2


async def test_requests_for_a_path_that_no_route_takes_do_not_show_it(lines: Lines) -> None:
    _, counters = await ask("GET", "/v1/canary")
    line = one(lines)
    assert (line["route"], line["code"]) == ("unmatched", "not_found")
    assert "canary" not in repr(line)
    assert counters.requests == {("other", 4): 1}


async def test_requests_with_a_method_that_http_does_not_name_do_not_show_it(lines: Lines) -> None:
    await ask("CANARY", "/v1/orders")
    assert one(lines)["method"] == "other"


async def test_requests_that_fail_have_their_error_and_a_warning(lines: Lines) -> None:
    for request in (
        ask("POST", "/v1/orders", BODY, ValueError("a bug"), headers=KEY),
        ask("GET", "/v1/orders", error=ValueError("a bug")),
    ):
        lines.clear()
        reply, _ = await request
        failed, line = one(lines, "request_failed"), one(lines)
        assert failed["request_id"] == line["request_id"] == reply.header("request-id")
        assert (failed["log_level"], line["log_level"], line["status"]) == ("error", "warning", 500)


async def test_requests_that_succeed_have_no_line_by_default(lines: Lines) -> None:
    _, counters = await ask("POST", "/v1/orders", BODY, headers=KEY)
    await ask("GET", "/livez")
    assert lines == []
    assert counters.requests == {("orders", 2): 1}
    assert sum(counters.order_seconds.counts) == 1


async def test_requests_that_succeed_are_sampled(lines: Lines) -> None:
    reply, _ = await ask("POST", "/v1/orders", BODY, headers=KEY, log={"sample_ratio": 1.0})
    line = one(lines)
    assert (line["request_id"], line["status"]) == (reply.header("request-id"), 201)
    assert "code" not in line


async def test_requests_answered_by_the_twin_are_counted_once(lines: Lines) -> None:
    _, counters = await ask("POST", "/v1/orders/", BODY, Refusal("sold_out"), headers=KEY)
    assert one(lines)["code"] == "sold_out"
    assert counters.requests == {("orders", 4): 1}


def test_requests_sample_is_decided_by_the_id_alone() -> None:
    ids = [f"request-{number:08x}" for number in range(4000)]
    first, second = (
        [request_id for request_id in ids if sampled.wants(request_id, 200, "")]
        for sampled in (
            log(sample_ratio=0.25, requests_per_s_max=10_000),
            log(sample_ratio=0.25, requests_per_s_max=10_000),
        )
    )
    assert first == second
    assert 800 < len(first) < 1200


def test_requests_beyond_the_lines_of_a_second_are_said_in_one_line(lines: Lines) -> None:
    bounded = log(requests_per_s_max=3)
    wanted = [bounded.wants(str(number), 409, "sold_out") for number in range(10)]
    wanted.append(bounded.wants("x", 429, "rate_limited"))
    assert sum(wanted) == 3
    bounded.turn()
    assert [line["codes"] for line in lines] == [{"sold_out": 7, "rate_limited": 1}]
    assert bounded.wants("y", 409, "sold_out")
    bounded.turn()
    assert len(lines) == 1


def test_requests_that_fail_all_at_once_are_bounded_as_well(lines: Lines) -> None:
    bounded = log(requests_per_s_max=2)
    for number in range(5):
        bounded.exception(str(number), "POST", "/v1/orders", ValueError("a bug"))
    assert len(lines) == 2
    bounded.turn()
    assert lines[-1]["codes"] == {"internal": 3}


def test_requests_that_fail_while_others_are_refused_by_the_thousand_have_their_line(lines: Lines) -> None:
    bounded = log(requests_per_s_max=50)
    refused = sum(bounded.wants(str(number), 409, "sold_out") for number in range(1000))
    bounded.exception("x", "POST", "/v1/orders", ValueError("a bug"))
    assert one(lines, "request_failed")["request_id"] == "x"
    assert bounded.wants("x", 500, "internal")
    assert refused + 2 <= 50
