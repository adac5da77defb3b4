"""`POST /v1/orders` stands twice, as the hot route and as a route of Litestar, and the hot route is served in two ways:
whatever is sent, all give the same answer but for the id of the request.
"""

from typing import Any

import pytest

from gateway import api
from gateway.domain.outcomes import RECEIPT, Accepted, Outcome, Refusal
from gateway.edge.hot import Edge
from tests.api import App, Placing, Reply, call, services
from tests.direct import DirectEdge

ORDER_ID = bytes.fromhex("0199a7c25d807c3e9b1f4a6d2e8c0f51")
KEY = {"idempotency-key": "k-1"}
BODY = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":1}]}'

OUTCOMES: dict[str, Outcome] = {
    "receipt": RECEIPT,
    "accepted": Accepted(ORDER_ID, b'{"order_id":"x"}'),
    "replayed": Accepted(ORDER_ID, b'{"order_id":"x"}', replayed=True),
    "sold_out": Refusal("sold_out", "0 left", ({"detail": "0 of A are left", "pointer": "#/items/0", "available": 0},)),
    "extra": Refusal("key_in_flight", extra={"opens_at": "2026-11-11T00:00:00Z"}),
    "chinese": Refusal("channel_forbidden", "渠道"),
    "away": Refusal("ledger_away"),
    "overloaded": Refusal("overloaded"),
    "internal": Refusal("internal"),
}
REQUESTS: dict[str, dict[str, Any]] = {
    "no token": {"token": None, "headers": KEY},
    "unknown token": {"token": "fg_other", "headers": KEY},
    "expired token": {"token": "fg_expired", "headers": KEY},
    "other scheme": {"headers": KEY | {"authorization": "Basic YTpi"}},
    "token beyond ASCII": {"token": "fg_\xff", "headers": KEY},
    "no scope": {"token": "fg_none", "headers": KEY},
    "no key": {},
    "empty key": {"headers": {"idempotency-key": ""}},
    "half a quoted key": {"headers": {"idempotency-key": '"k'}},
    "key beyond ASCII": {"headers": {"idempotency-key": "\xfc"}},
    "two keys": {"headers": [("idempotency-key", "a"), ("idempotency-key", "a")]},
    "other type": {"headers": KEY | {"content-type": "text/plain"}},
    "other charset": {"headers": KEY | {"content-type": "application/json; charset=latin-1"}},
    "no type": {"headers": KEY | {"content-type": ""}},
    "announced too large": {"headers": KEY | {"content-length": "9999999"}},
    "announced nonsense": {"headers": KEY | {"content-length": "ten"}},
    "too large": {"headers": KEY | {"content-length": "0"}, "body": b"x" * 70_000, "token": "fg_own"},
    "quoted key": {"headers": {"idempotency-key": '"k-1"'}},
    "traced": {"headers": KEY | {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}},
}


def ways(parts: Any) -> list[App]:
    """The hot route in a task for each request, without one, and its twin."""
    litestar: App = api.create(parts)
    return [Edge(parts.route, litestar), DirectEdge(parts.route, parts.show), litestar]


async def answers(placing: Placing, **request: Any) -> list[Reply]:
    request.setdefault("body", BODY)
    return [await call(way, "POST", "/v1/orders", **request) for way in ways(services(admission=placing))]


def comparable(reply: Reply) -> tuple[int, list[tuple[str, str]], Any]:
    request_id = reply.header("request-id")
    assert request_id
    body = reply.body.replace(request_id.encode(), b"<id>")
    return reply.status, sorted((name, value) for name, value in reply.headers if name != "request-id"), body


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
async def test_twins_for_an_outcome_answer_the_same(outcome: Outcome) -> None:
    placing = Placing()
    placing.outcome = outcome
    hot, direct, twin = map(comparable, await answers(placing, headers=KEY))
    assert hot == direct == twin


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_twins_for_a_request_answer_the_same(request_: dict[str, Any]) -> None:
    placing = Placing()
    placing.outcome = OUTCOMES["accepted"]
    hot, direct, twin = map(comparable, await answers(placing, **request_))
    assert hot == direct == twin


async def test_twins_in_a_crowd_answer_the_same_and_hand_nothing_to_admission() -> None:
    placing = Placing()
    placing.crowded = True
    replies = await answers(placing, headers=KEY, stalled=True)
    hot, direct, twin = map(comparable, replies)
    assert hot == direct == twin
    assert [reply.code for reply in replies] == ["overloaded"] * 3
    assert placing.requests == []


async def test_twins_hand_the_same_request_to_admission() -> None:
    placing = Placing()
    placing.outcome = OUTCOMES["accepted"]
    await answers(placing, **REQUESTS["traced"])
    hot, direct, twin = [(each.client, each.key, each.body, each.traceparent) for each in placing.requests]
    assert hot == direct == twin
    assert placing.requests[0].traceparent


async def test_twins_count_refusals_alike() -> None:
    parts = services()
    for way in ways(parts):
        await call(way, "POST", "/v1/orders", BODY, token=None)
    assert parts.counters.refused == {"unauthenticated": 3}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/orders"), ("POST", "/v1/orders/"), ("POST", "/livez")])
async def test_edge_for_any_other_route_passes_on(method: str, path: str) -> None:
    seen: list[str] = []

    async def behind(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})

    assert (await call(Edge(services().route, behind), method, path)).status == 204
    assert seen == [path]
