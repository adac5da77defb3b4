"""Customers' rates in admission: charged once an order is known to be one, before anything else is looked up."""

from collections.abc import AsyncIterator

import pytest

from gateway.admission import Request
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Outcome, Refusal
from gateway.metrics import Counters
from gateway.rates import Allowance, Rates
from gateway.settings import RateRule
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import SHOP, SKU, Road, accepted, body, refused

RULE = RateRule("shop", customer_requests_per_s=0.1, customer_burst=2)


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    made = Road({SKU: 0})
    made.hold(10)
    made.start()
    yield made
    made.publisher.close()
    await made.close()
    made.assert_balanced(10)


@pytest.fixture
def allowance() -> Allowance:
    rates = Rates({"shop": RULE}.get, Hasher(bytes(32)), None, Counters(), lambda: int(START_S * 1e9))
    found = rates.of(SHOP)
    assert found is not None
    return found


async def place(road: Road, allowance: Allowance | None, key: str, body_: bytes) -> Outcome:
    return await road.admission.place(Request(SHOP, key.encode(), body_, allowance=allowance))


async def test_customer_beyond_his_rate_is_refused_with_the_time_to_wait(road: Road, allowance: Allowance) -> None:
    for number in range(2):
        accepted(await place(road, allowance, f"k-{number}", body(customer_id="u-1")))
    outcome = await place(road, allowance, "k-3", body(customer_id="u-1"))
    assert isinstance(outcome, Refusal)
    assert (outcome.code, outcome.retry_after_s) == ("rate_limited", 10)
    accepted(await place(road, allowance, "k-4", body(customer_id="u-2")))


async def test_customer_beyond_his_rate_is_refused_without_asking_the_ledger(road: Road, allowance: Allowance) -> None:
    for number in range(2):
        accepted(await place(road, allowance, f"k-{number}", body(customer_id="u-1")))
    asked = len(road.book.asked)
    assert refused(await place(road, allowance, "k-0", body(customer_id="u-1"))) == "rate_limited"
    assert len(road.book.asked) == asked


async def test_customer_is_charged_once_for_a_request_that_is_tried_again(
    road: Road, allowance: Allowance, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(SHOP, b"k-1", body(customer_id="u-1"), allowance=allowance)
    with monkeypatch.context() as patched:
        patched.setattr(road.queue, "room", lambda *_: False)
        assert refused(await road.admission.place(request)) == "overloaded"
    with monkeypatch.context() as patched:
        for name in ("try_reserve", "short", "park"):
            patched.setattr(road.leases, name, lambda _: None)
        assert refused(await road.admission.place(request)) == "overloaded"
        assert refused(await road.admission.place(request)) == "overloaded"
    accepted(await road.admission.place(request))
    accepted(await place(road, allowance, "k-2", body(customer_id="u-1")))
    assert refused(await place(road, allowance, "k-3", body(customer_id="u-1"))) == "rate_limited"


async def test_orders_without_a_customer_have_no_rate(road: Road, allowance: Allowance) -> None:
    for number in range(5):
        accepted(await place(road, allowance, f"k-{number}", body()))


async def test_orders_of_a_client_without_a_rule_have_no_rate(road: Road) -> None:
    for number in range(5):
        accepted(await place(road, None, f"k-{number}", body(customer_id="u-1")))


async def test_bodies_that_are_no_order_are_not_charged_to_the_customer(road: Road, allowance: Allowance) -> None:
    for number in range(5):
        outcome = await place(road, allowance, f"k-{number}", body(customer_id="u-1", colour="red"))
        assert refused(outcome) == "invalid"
    accepted(await place(road, allowance, "k-5", body(customer_id="u-1")))


async def test_order_that_is_refused_is_charged_to_the_customer(road: Road, allowance: Allowance) -> None:
    items = [{"sku": "UNKNOWN", "quantity": 1}]
    outcomes = [await place(road, allowance, f"k-{n}", body(customer_id="u-1", items=items)) for n in range(3)]
    assert [refused(outcome) for outcome in outcomes] == ["invalid", "invalid", "rate_limited"]
