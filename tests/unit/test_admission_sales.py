"""Admission of orders of a sale: too early, in time, too late; its price, its units, its time to pay; and what is
counted.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from core_ext.shapes import Line, Order
from gateway.domain.outcomes import Accepted, Refusal
from persistence.postgres.orders import StoredKey
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import SALE, SERVICE, SHOP, SKU, Road, accepted, body, refused, sale_row, settings, turns

KEY = f"{SALE}\x1f{SKU}"
STORED_ID = bytes.fromhex("019ac4d4e0007abc8123456789abcdef")


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    """A worker with 10 units of the everyday stock and 5 of the sale's in its hand, and none elsewhere."""
    async for made in running():
        yield made


async def running(**sections: dict[str, Any]) -> AsyncIterator[Road]:
    made = Road({SKU: 0, KEY: 0}, settings(**sections))
    made.hold(10)
    made.hold(5, KEY)
    made.start()
    yield made
    await made.close()
    assert made.promised() == 0


def put(road: Road, opens_in_s: float = 0, open_for_s: float = 3600, **changes: Any) -> None:
    road.sales.apply([sale_row(opens_in_s, open_for_s, **changes)])


def of_sale(**changes: Any) -> bytes:
    return body(sale_id=SALE, **changes)


def entries(outcome: object) -> list[tuple[str, str]]:
    assert isinstance(outcome, Refusal)
    return [(str(error.get("code")), error["pointer"]) for error in outcome.errors]


async def test_admission_of_an_unknown_sale_is_invalid(road: Road) -> None:
    outcome = await road.place(body_=of_sale())
    assert (refused(outcome), entries(outcome)) == ("invalid", [("unknown_sale", "#/sale_id")])


async def test_admission_before_the_start_is_sale_not_open_and_takes_nothing(road: Road) -> None:
    put(road, opens_in_s=0.001)
    assert refused(await road.place(body_=of_sale())) == "sale_not_open"
    assert road.leases.till.free(KEY) == 5


async def test_admission_at_the_start_is_accepted(road: Road) -> None:
    put(road)
    accepted(await road.place(body_=of_sale()))


async def test_admission_at_the_end_is_sale_closed(road: Road) -> None:
    put(road, opens_in_s=-10, open_for_s=10)
    assert refused(await road.place(body_=of_sale())) == "sale_closed"


async def test_admission_while_the_sales_are_not_loaded_is_ledger_away(road: Road) -> None:
    road.sales.revision = -1
    assert refused(await road.place(body_=of_sale())) == "ledger_away"


async def test_admission_of_items_that_are_not_in_the_sale_names_each(road: Road) -> None:
    put(road)
    items = [{"sku": sku, "quantity": 1} for sku in (SERVICE, SKU, "UNKNOWN")]
    outcome = await road.place(body_=of_sale(items=items))
    assert entries(outcome) == [("not_in_sale", "#/items/0/sku"), ("not_in_sale", "#/items/2/sku")]


async def test_admission_takes_the_sale_s_units_at_the_sale_s_price(road: Road) -> None:
    put(road)
    outcome = accepted(await road.place(body_=of_sale(quantity=2)))
    document = msgspec.json.decode(outcome.body)
    assert (document["sale_id"], document["items"][0]["sku"], document["total"]) == (SALE, SKU, 2 * 99)
    assert (road.leases.till.free(KEY), road.leases.till.free(SKU)) == (3, 10)


async def test_admission_without_the_sale_takes_everyday_units_at_the_everyday_price(road: Road) -> None:
    put(road)
    outcome = accepted(await road.place())
    assert msgspec.json.decode(outcome.body)["total"] == 255
    assert (road.leases.till.free(KEY), road.leases.till.free(SKU)) == (5, 9)


@pytest.mark.parametrize(("timeout_s", "expires_at"), [(60, "14:14:20"), (None, "14:43:20")])
async def test_admission_gives_the_sale_s_time_to_pay(road: Road, timeout_s: int | None, expires_at: str) -> None:
    put(road, payment_timeout_s=timeout_s)
    outcome = accepted(await road.place(body_=of_sale()))
    assert msgspec.json.decode(outcome.body)["expires_at"] == f"2026-09-21T{expires_at}.000Z"


@pytest.mark.parametrize(
    ("channel", "of_the_sale_s", "expires_at"),
    [
        ("tmall-1", None, "14:14:20"),
        ("tmall", None, "15:13:20"),
        ("app", None, "14:43:20"),
        ("tmall-1", 600, "14:23:20"),
    ],
)
async def test_admission_gives_the_channel_s_time_to_pay_unless_a_sale_has_its_own(
    channel: str, of_the_sale_s: int | None, expires_at: str
) -> None:
    rules = [{"channel": "tmall-*", "payment_timeout_s": 60}, {"channel": "t*", "payment_timeout_s": 3600}]
    async for road in running(orders={"rule": rules}):
        put(road, payment_timeout_s=of_the_sale_s)
        client = SHOP._replace(channels=frozenset({"*"}))
        outcome = accepted(await road.place(body_=of_sale(channel=channel), client=client))
        assert msgspec.json.decode(outcome.body)["expires_at"] == f"2026-09-21T{expires_at}.000Z"


async def test_admission_sold_out_shows_the_plain_sku(road: Road) -> None:
    put(road)
    outcome = await road.place(body_=of_sale(quantity=6))
    assert isinstance(outcome, Refusal)
    assert outcome.code == "sold_out"
    assert outcome.errors == ({"detail": f"5 of {SKU} are left", "pointer": "#/items/0/quantity", "available": 5},)


async def test_admission_of_a_limited_sale_needs_the_customer(road: Road) -> None:
    put(road, limits=[2])
    outcome = await road.place(body_=of_sale())
    assert (refused(outcome), entries(outcome)) == ("invalid", [("required", "#/customer_id")])


async def test_admission_counts_the_limit_under_the_sale(road: Road) -> None:
    put(road, limits=[2])
    accepted(await road.place(body_=of_sale(customer_id="u-1")))
    assert [tuple(limit) for limit in road.ledger.stored[0].limits] == [(KEY, "u-1", 1, 2)]


async def test_admission_parked_until_the_sale_is_over_is_sale_closed_and_gives_the_units_back(road: Road) -> None:
    put(road, open_for_s=1)
    parts = road.leases.try_reserve([(KEY, 5)])
    assert parts is not None
    waiting = road.send(body_=of_sale())
    await turns()
    assert not waiting.done()
    road.clock.at_s += 1
    road.leases.till.restore(parts)
    road.leases.returned()
    assert refused(await waiting) == "sale_closed"
    assert road.leases.till.free(KEY) == 5


@pytest.mark.parametrize("opens_in_s", [10, -7200], ids=["sale_not_open", "sale_closed"])
async def test_admission_known_key_beats_the_time_of_the_sale(road: Road, opens_in_s: float) -> None:
    put(road, opens_in_s)
    line = Line(1, SKU, "OLD TITLE", 1, 99, 99, stocked=True)
    order = Order(STORED_ID, 1, "app", "CNY", "pending_payment", 1, 99, [line], int(START_S * 1000), sale_id=SALE)
    road.book.orders[STORED_ID] = order
    road.book.known[road.key_hash()] = StoredKey(STORED_ID, road.hasher.fingerprint(of_sale()))
    outcome = await road.place(body_=of_sale())
    assert isinstance(outcome, Accepted)
    assert outcome.replayed


async def test_admission_counts_refusals_of_a_known_sale_by_code(road: Road) -> None:
    await road.place("k-1", of_sale())
    put(road, opens_in_s=1)
    await road.place("k-2", of_sale())
    put(road, version=2)
    accepted(await road.place("k-3", of_sale()))
    await road.place("k-4", of_sale(quantity=6))
    await road.place("k-5", of_sale(items=[{"sku": SERVICE, "quantity": 1}]))
    await road.place("k-6", body(quantity=11))
    await turns()
    await road.sales.flush()
    assert road.refusals.counts == {(SALE, "sale_not_open"): 1, (SALE, "sold_out"): 1, (SALE, "invalid"): 1}
