"""`POST /v1/orders` stands twice, as the hot route and as a route of Litestar: whatever is sent, both give the same
answer but for the id of the request.
"""

from typing import Any

import pytest

from gateway import api
from gateway.domain.outcomes import Accepted, Outcome, Refusal
from gateway.edge.hot import Edge
from tests.api import App, Placing, Reply, call, services

ORDER_ID = bytes.fromhex("0199a7c25d807c3e9b1f4a6d2e8c0f51")
KEY = {"idempotency-key": "k-1"}
BODY = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":1}]}'

OUTCOMES: dict[str, Outcome] = {
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


async def both(placing: Placing, **request: Any) -> tuple[Reply, Reply]:
    parts = services(admission=placing)
    litestar: App = api.create(parts)
    request.setdefault("body", BODY)
    hot = await call(Edge(parts.route, litestar), "POST", "/v1/orders", **request)
    twin = await call(litestar, "POST", "/v1/orders", **request)
    return hot, twin


def comparable(reply: Reply) -> tuple[int, list[tuple[str, str]], Any]:
    request_id = reply.header("request-id")
    assert request_id
    body = reply.body.replace(request_id.encode(), b"<id>")
    return reply.status, sorted((name, value) for name, value in reply.headers if name != "request-id"), body


@pytest.mark.parametrize("outcome", OUTCOMES.values(), ids=OUTCOMES)
async def test_twins_for_an_outcome_answer_the_same(outcome: Outcome) -> None:
    placing = Placing()
    placing.outcome = outcome
    hot, twin = await both(placing, headers=KEY)
    assert comparable(hot) == comparable(twin)


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
async def test_twins_for_a_request_answer_the_same(request_: dict[str, Any]) -> None:
    placing = Placing()
    placing.outcome = OUTCOMES["accepted"]
    hot, twin = await both(placing, **request_)
    assert comparable(hot) == comparable(twin)


async def test_twins_hand_the_same_request_to_admission() -> None:
    placing = Placing()
    placing.outcome = OUTCOMES["accepted"]
    await both(placing, **REQUESTS["traced"])
    hot, twin = placing.requests
    assert (hot.client, hot.key, hot.body, hot.traceparent) == (twin.client, twin.key, twin.body, twin.traceparent)
    assert hot.traceparent


async def test_twins_count_refusals_alike() -> None:
    parts = services()
    litestar = api.create(parts)
    await call(Edge(parts.route, litestar), "POST", "/v1/orders", BODY, token=None)
    await call(litestar, "POST", "/v1/orders", BODY, token=None)
    assert parts.counters.refused == {"unauthenticated": 2}


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/orders"), ("POST", "/v1/orders/"), ("POST", "/livez")])
async def test_edge_for_any_other_route_passes_on(method: str, path: str) -> None:
    seen: list[str] = []

    async def behind(scope: Any, _receive: Any, send: Any) -> None:
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 204, "headers": []})

    assert (await call(Edge(services().route, behind), method, path)).status == 204
    assert seen == [path]
