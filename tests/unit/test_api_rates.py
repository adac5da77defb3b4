"""What goes over the wire where clients have rates: headers on every answer, 429 with Retry-After, on the hot route and
on all others alike; and what the description of the interface says of it.
"""

from typing import Any

import msgspec
import pytest

from gateway import api
from gateway.domain.outcomes import Accepted, Refusal
from gateway.edge.hot import Edge
from gateway.services import Services
from gateway.settings import Limits, RateRule, Settings
from tests.api import App, Placing, Reply, call, services

RULES = (
    RateRule("own"),
    RateRule("sho?", requests_per_s=0.4, burst=2, customer_requests_per_s=0.2, customer_burst=1),
    RateRule("reader", customer_requests_per_s=2),
)
BODY = b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":1}]}'
POLICIES = '"client";q=2;w=5, "customer";q=1;w=5'


@pytest.fixture
def parts() -> Services:
    placing = Placing()
    placing.outcome = Accepted(bytes(16), b"{}")
    return services(admission=placing, settings=Settings(limits=Limits(rate=RULES)))


@pytest.fixture
def app(parts: Services) -> App:
    return Edge(parts.route, api.create(parts))


async def place(app: App, **options: Any) -> Reply:
    return await call(app, "POST", "/v1/orders", BODY, {"idempotency-key": "k"}, **options)


async def show(app: App, **options: Any) -> Reply:
    return await call(app, "GET", "/v1/orders", **options)


@pytest.mark.parametrize("ask", [place, show], ids=["hot route", "other route"])
async def test_answers_to_a_client_with_a_rate_say_where_it_stands(app: App, ask: Any) -> None:
    first, second = await ask(app), await ask(app)
    assert first.status < 300
    assert [reply.header("ratelimit-policy") for reply in (first, second)] == [POLICIES, POLICIES]
    assert [reply.header("ratelimit") for reply in (first, second)] == ['"client";r=1;t=3', '"client";r=0;t=3']


@pytest.mark.parametrize("ask", [place, show], ids=["hot route", "other route"])
async def test_answer_beyond_the_rate_is_a_problem_that_says_when_to_come_again(app: App, ask: Any) -> None:
    for _ in range(2):
        await ask(app)
    refused = await ask(app)
    assert (refused.status, refused.code) == (429, "rate_limited")
    assert refused.header("retry-after") == "3"
    assert refused.header("ratelimit") == '"client";r=0;t=3'
    assert refused.header("ratelimit-policy") == POLICIES
    document = refused.json
    assert document["violated_policies"] == ["client"]
    assert document["retryable"] is True
    assert document["detail"] == "requests of a client: 2 in 5 s, 2 at once"


async def test_requests_of_all_routes_count_together(app: App) -> None:
    assert [(await place(app)).status, (await show(app)).status] == [201, 200]
    assert [(await place(app)).status, (await show(app)).status] == [429, 429]


async def test_requests_over_the_twin_of_the_hot_route_count_once(parts: Services) -> None:
    litestar = api.create(parts)
    replies = [await place(litestar) for _ in range(3)]
    assert [reply.status for reply in replies] == [201, 201, 429]
    assert replies[0].header("ratelimit") == '"client";r=1;t=3'


async def test_request_beyond_the_rate_does_not_reach_admission(app: App, parts: Services) -> None:
    for _ in range(5):
        await place(app)
    assert len(parts.admission.requests) == 2  # type: ignore[attr-defined]


async def test_request_beyond_the_rate_is_refused_before_its_body_has_come(app: App) -> None:
    for _ in range(2):
        await place(app)
    assert (await place(app, stalled=True)).status == 429


async def test_requests_that_are_refused_for_their_form_count(app: App) -> None:
    replies = [await call(app, "POST", "/v1/orders", BODY) for _ in range(3)]
    assert [reply.code for reply in replies] == ["key_missing", "key_missing", "rate_limited"]
    assert replies[0].header("ratelimit") == '"client";r=1;t=3'


async def test_requests_of_unknown_clients_are_not_counted(app: App) -> None:
    for _ in range(5):
        reply = await place(app, token="fg_other")
        assert (reply.status, reply.header("ratelimit-policy")) == (401, None)
    assert (await place(app)).status == 201


@pytest.mark.parametrize("token", ["fg_own", "fg_manager"], ids=["rule without a rate", "no rule"])
async def test_clients_without_a_rate_are_not_limited_and_told_nothing(app: App, token: str) -> None:
    for _ in range(5):
        for ask in (place, show):
            reply = await ask(app, token=token)
            assert reply.status != 429
            assert reply.header("ratelimit-policy") is None
            assert reply.header("ratelimit") is None


async def test_open_routes_are_not_limited(app: App) -> None:
    for _ in range(5):
        reply = await call(app, "GET", "/livez")
        assert (reply.status, reply.header("ratelimit")) == (200, None)


async def test_answer_beyond_the_rate_of_a_customer_says_so(app: App, parts: Services) -> None:
    refusal = Refusal("rate_limited", extra={"violated_policies": ["customer"]}, retry_after_s=4)
    parts.admission.outcome = refusal  # type: ignore[attr-defined]
    reply = await place(app, token="fg_reader")
    assert (reply.status, reply.header("retry-after")) == (429, "4")
    assert reply.header("ratelimit") == '"customer";r=0;t=4'
    assert reply.json["violated_policies"] == ["customer"]


async def test_limited_requests_are_counted(app: App, parts: Services) -> None:
    for _ in range(5):
        await show(app)
    assert parts.counters.clients_limited == 3


async def test_document_describes_limits_wherever_a_client_is_known(parts: Services) -> None:
    document = msgspec.json.decode(api.create(parts).state.document)
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    for operation in operations:
        answers = operation["responses"]
        is_open = operation["security"] == []
        assert ("429" in answers) is not is_open
        for status, answer in answers.items():
            rated = {"RateLimit", "RateLimit-Policy"} <= answer["headers"].keys()
            assert rated is not (is_open or status == "401"), (operation["operationId"], status)
        if not is_open:
            assert "Retry-After" in answers["429"]["headers"]
            assert list(answers["429"]["content"]["application/problem+json"]["examples"]) == ["rate_limited"]
