"""Admission: admitted, refused with a code, or parked; a known key beats every refusal; and nothing ever leaks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from core_ext import admission
from core_ext.limits import ITEMS_MAX, SKU_CHARS_MAX, TITLE_CHARS_MAX
from core_ext.shapes import Change, Line, Order, OrderIn, Priced, Product
from gateway import batch, lookup
from gateway.admission import Request
from gateway.domain.access import Client
from gateway.domain.outcomes import Accepted, Promise, Refusal
from gateway.orders import body_of, event_of
from persistence.errors import LedgerUnavailableError, PoisonError
from persistence.postgres.ledger import COPY_BYTES_MAX, Limit
from persistence.postgres.orders import StoredKey
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import SERVICE, SHOP, SKU, Road, accepted, body, refused, settings, turns

STORED_ID = bytes.fromhex("019ac4d4e0007abc8123456789abcdef")
BUYER = Client(2, "buyer", frozenset({"orders:write"}), frozenset({"app"}))


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    """A worker with 10 units in its hand and none elsewhere, its loops running."""
    async for made in running(10):
        yield made


def fail(*_: object) -> None:
    """A bug of ours."""
    raise ZeroDivisionError


async def running(units: int, **sections: dict[str, Any]) -> AsyncIterator[Road]:
    made = Road({SKU: 0}, settings(**sections))
    if units:
        made.hold(units)
    made.start()
    yield made
    made.publisher.close()
    await made.close()
    made.assert_balanced(units)


@pytest.fixture
async def impatient() -> AsyncIterator[Road]:
    """A worker whose waits for stock and for a first request are over at once."""
    async for made in running(10, stock={"park_ms_max": 1}, orders={"key_wait_ms_max": 1}):
        yield made


def store(road: Road, key: str = "k-1", body_: bytes = b"") -> Order:
    """An order that the ledger knows under a key, placed with `body_`."""
    line = Line(1, SKU, "OLD TITLE", 1, 99, 99, stocked=True)
    order = Order(STORED_ID, 1, "app", "CNY", "pending_payment", 1, 99, [line], int(START_S * 1000))
    road.book.orders[STORED_ID] = order
    road.book.known[road.key_hash(key)] = StoredKey(STORED_ID, road.hasher.fingerprint(body_ or body()))
    return order


def document_of(outcome: object) -> dict[str, Any]:
    assert isinstance(outcome, Accepted)
    document: dict[str, Any] = msgspec.json.decode(outcome.body)
    return document


async def test_admission_valid_order_is_accepted(road: Road) -> None:
    outcome = accepted(await road.place())
    assert not outcome.replayed
    assert document_of(outcome)["items"][0]["amount"] == 255
    assert [entry.order_id for entry in road.ledger.stored] == [outcome.order_id]


async def test_admission_order_has_the_time_of_the_ledger_s_clock(road: Road) -> None:
    outcome = accepted(await road.place())
    assert int.from_bytes(outcome.order_id[:6], "big") == int(START_S * 1000)


async def test_admission_order_has_to_be_paid_within_the_setting(road: Road) -> None:
    assert document_of(await road.place())["expires_at"] == "2026-09-21T14:43:20.000Z"


@pytest.mark.parametrize(
    "changes", [{"paid": {"reference": "wx-1"}}, {"items": [{"sku": SERVICE, "quantity": 1, "unit_price": 0}]}]
)
async def test_admission_order_that_needs_no_payment_is_paid(road: Road, changes: dict[str, Any]) -> None:
    document = document_of(await road.place(body_=body(**changes)))
    assert document["status"] == "paid"
    assert "expires_at" not in document


async def test_admission_order_without_stocked_lines_needs_no_stock(road: Road) -> None:
    accepted(await road.place(body_=body(SERVICE)))
    assert road.ledger.stored[0].parts == []


async def test_admission_lines_of_a_sku_are_taken_as_their_sum(road: Road) -> None:
    items = [{"sku": SKU, "quantity": 4}, {"sku": SERVICE, "quantity": 1}, {"sku": SKU, "quantity": 5}]
    accepted(await road.place(body_=body(items=items)))
    assert sum(units for _, units in road.ledger.stored[0].parts) == 9


async def test_admission_event_has_no_personal_data_and_the_answer_has(road: Road) -> None:
    outcome = accepted(await road.place(body_=body(note="请放门口", ship_to={"name": "张三"})))
    road.publisher.close()
    await road.publisher.run()
    [[event]] = road.stream.batches
    assert "请放门口" not in event.payload.decode()
    assert document_of(outcome)["note"] == "请放门口"


async def test_admission_answer_masks_personal_data_without_the_scope(road: Road) -> None:
    outcome = await road.place(body_=body(note="请放门口"), client=BUYER)
    assert document_of(outcome)["note"] == "***"


async def test_admission_event_carries_the_traceparent(road: Road) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await road.admission.place(Request(SHOP, b"k-1", body(), trace))
    road.publisher.close()
    await road.publisher.run()
    assert msgspec.json.decode(road.stream.batches[0][0].payload)["traceparent"] == trace


async def test_admission_same_key_50_times_at_once_is_one_order_and_one_body(road: Road) -> None:
    outcomes = [accepted(outcome) for outcome in await asyncio.gather(*(road.place() for _ in range(50)))]
    assert len(road.ledger.stored) == 1
    assert len({outcome.body for outcome in outcomes}) == 1
    assert [outcome.replayed for outcome in outcomes].count(False) == 1


async def test_admission_other_body_under_a_key_in_flight_is_key_reused(road: Road) -> None:
    road.ledger.held.clear()
    first = road.send()
    await turns()
    assert refused(await road.place(body_=body(quantity=2))) == "key_reused"
    road.ledger.held.set()
    accepted(await first)


async def test_admission_second_request_that_waits_too_long_is_key_in_flight(impatient: Road) -> None:
    impatient.ledger.held.clear()
    first = impatient.send()
    await turns()
    assert refused(await impatient.place()) == "key_in_flight"
    impatient.ledger.held.set()
    accepted(await first)


async def test_admission_same_key_of_another_client_is_another_order(road: Road) -> None:
    first, second = accepted(await road.place()), accepted(await road.place(client=BUYER))
    assert first.order_id != second.order_id


async def test_admission_key_whose_order_is_committed_is_asked_of_the_ledger_again(road: Road) -> None:
    accepted(await road.place())
    await turns()
    assert road.admission.in_flight == 0


async def test_admission_buyer_who_goes_away_leaves_his_order(road: Road) -> None:
    road.ledger.held.clear()
    first = road.send()
    await turns()
    first.cancel()
    await turns()
    assert road.admission.in_flight == 1
    road.ledger.held.set()
    await turns()
    assert len(road.ledger.stored) == 1


@pytest.mark.parametrize(
    ("body_", "code"),
    [
        (b"", "malformed_json"),
        (b"{", "malformed_json"),
        (b"\xff", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'{"channel":5,"channel":"app","currency":"CNY","items":[{"sku":"85123A","quantity":1}]}', "malformed_json"),
        (b"[]", "invalid"),
        (b"{}", "invalid"),
        (body(odd=1), "invalid"),
        (body(quantity=0), "invalid"),
        (b'{"channel":"app","currency":"CNY","items":[{"sku":"85123A","quantity":' + b"9" * 4000 + b"}]}", "invalid"),
        (body(items=[]), "invalid"),
        (body(note="a\x00b"), "invalid"),
        (body("UNKNOWN"), "invalid"),
        (body(currency="EUR"), "invalid"),
        (body(sale_id="double-11"), "invalid"),
        (body(channel="web"), "channel_forbidden"),
    ],
)
async def test_admission_bad_order_is_refused_and_takes_nothing(road: Road, body_: bytes, code: str) -> None:
    outcome = await road.admission.place(Request(SHOP, b"k-1", body_))
    assert refused(outcome) == code
    assert road.leases.till.free(SKU) == 10


async def test_admission_refusal_names_every_fault_at_once(road: Road) -> None:
    outcome = await road.place(body_=body(quantity=0, odd=1, channel="?"))
    assert isinstance(outcome, Refusal)
    assert {error["pointer"] for error in outcome.errors} == {"#/odd", "#/channel", "#/items/0/quantity"}


async def test_admission_price_without_the_scope_is_refused(road: Road) -> None:
    outcome = await road.place(body_=body(items=[{"sku": SKU, "quantity": 1, "unit_price": 1}]), client=BUYER)
    assert isinstance(outcome, Refusal)
    assert outcome.errors[0]["code"] == "scope_required"


async def test_admission_large_body_is_for_orders_of_many_items_alone(road: Road) -> None:
    metadata = {f"k-{number}": "v" * 500 for number in range(20)}
    wide = body(metadata=metadata, adjustments=[{"type": "fee", "amount": 0, "label": "长" * 200}] * 100)
    assert len(wide) > road.settings.http.body_max_bytes
    assert refused(await road.place(body_=wide)) == "body_too_large"
    many = body(items=[{"sku": SERVICE, "quantity": 1}] * 101, metadata=metadata, adjustments=[
        {"type": "fee", "amount": 0, "label": "长" * 200}] * 100)  # fmt: skip
    accepted(await road.place("k-2", many))


@pytest.mark.parametrize("state", ["draining", "closed", "clock unknown", "catalogue not loaded"])
async def test_admission_that_takes_no_orders_is_ledger_away(road: Road, state: str) -> None:
    road.admission.draining = state == "draining"
    road.catalogue.revision = -1 if state == "catalogue not loaded" else 0
    road.admission.open = state != "closed"
    road.clock.is_known = state != "clock unknown"
    refusal = road.admission.try_admit(Request(SHOP, b"k", body()), Promise())
    assert isinstance(refusal, Refusal)
    assert refusal.code == "ledger_away"
    assert not road.admission.is_crowded()


async def test_admission_with_a_full_queue_is_overloaded_and_takes_nothing() -> None:
    async for road in running(10, batch={"queue_rows_max": 1}):
        road.ledger.held.clear()
        first = road.send("k-1")
        await turns()
        second = road.send("k-2")
        await turns()
        assert refused(await road.place("k-3")) == "overloaded"
        assert road.admission.is_crowded()
        assert road.promised() == 2
        road.ledger.held.set()
        accepted(await first)
        accepted(await second)


async def test_admission_with_too_many_parked_is_overloaded(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.parking.PARKED_MAX", 0)
    assert refused(await road.place(body_=body(quantity=11))) == "overloaded"


async def test_admission_event_larger_than_the_stream_takes_is_refused_and_takes_nothing(road: Road) -> None:
    road.admission.event_bytes_max = 10
    assert refused(await road.place()) == "body_too_large"


async def test_admission_exception_takes_nothing_and_frees_the_key(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "tell", fail)
    with pytest.raises(ZeroDivisionError):
        await road.place()
    await turns()
    assert (road.promised(), road.admission.in_flight) == (0, 0)


async def test_admission_exception_after_parking_answers_and_takes_nothing(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "tell", fail)
    parts = road.leases.try_reserve([(SKU, 10)])
    assert parts is not None
    waiting = road.send()
    await turns()
    road.leases.till.restore(parts)
    road.leases.returned()
    assert refused(await waiting) == "internal"
    assert (road.promised(), road.admission.in_flight) == (0, 0)


async def test_admission_more_than_exists_is_sold_out_with_what_is_left(road: Road) -> None:
    outcome = await road.place(body_=body(quantity=11))
    assert isinstance(outcome, Refusal)
    assert outcome.code == "sold_out"
    assert outcome.errors == ({"detail": "10 of 85123A are left", "pointer": "#/items/0/quantity", "available": 10},)


async def test_admission_orders_of_one_line_that_lack_the_same_are_refused_as_one(road: Road) -> None:
    first, second = await road.place("k-1", body(quantity=11)), await road.place("k-2", body(quantity=12))
    assert first is second
    accepted(await road.place("k-3", body(quantity=4)))
    road.leases.restocked(SKU)  # Of what exists, nothing is known any more.
    later = await road.place("k-4", body(quantity=11))
    assert isinstance(later, Refusal)
    assert [error["available"] for error in later.errors] == [6]


async def test_admission_sold_out_names_each_line_of_what_is_short(road: Road) -> None:
    items = [{"sku": sku, "quantity": quantity} for sku, quantity in ((SERVICE, 1), (SKU, 6), (SKU, 5))]
    outcome = await road.place(body_=body(items=items))
    assert isinstance(outcome, Refusal)
    assert [(error["pointer"], error["available"]) for error in outcome.errors] == [
        ("#/items/1/quantity", 10),
        ("#/items/2/quantity", 10),
    ]


async def test_admission_smaller_quantity_is_served_after_a_larger_was_sold_out(road: Road) -> None:
    assert refused(await road.place("k-1", body(quantity=11))) == "sold_out"
    accepted(await road.place("k-2", body(quantity=10)))


async def test_admission_all_units_sold_is_sold_out(road: Road) -> None:
    accepted(await road.place("k-1", body(quantity=10)))
    assert refused(await road.place("k-2")) == "sold_out"


async def test_admission_units_in_a_commit_under_way_are_not_sold_out(impatient: Road) -> None:
    impatient.ledger.held.clear()
    first = impatient.send("k-1", body(quantity=10))
    await turns()
    assert refused(await impatient.place("k-2")) == "stock_returning"
    impatient.ledger.held.set()
    accepted(await first)


async def test_admission_parked_order_is_served_when_units_come_back(road: Road) -> None:
    road.ledger.held.clear()
    road.ledger.answers = [PoisonError("a row that is refused")]
    first = road.send("k-1", body(quantity=10))
    await turns()
    second = road.send("k-2", body(quantity=3))
    await turns()
    assert not second.done()
    road.ledger.held.set()
    assert refused(await first) == "internal"
    accepted(await second)


@pytest.mark.parametrize("refusal", ["sold_out", "inactive", "re-priced", "unknown", "stock_returning"])
async def test_admission_known_key_beats_the_refusal(impatient: Road, refusal: str) -> None:
    road = impatient
    wanted = body(quantity=11 if refusal == "sold_out" else 1)
    order = store(road, body_=wanted)
    product = Product(SKU, "NEW TITLE", 255, "CNY")
    if refusal == "inactive":
        product.active = False
    if refusal == "re-priced":
        product.currency = "EUR"
    road.catalogue.products = {} if refusal == "unknown" else {SKU: product}
    parts = road.leases.try_reserve([(SKU, 10)]) if refusal == "stock_returning" else []
    outcome = accepted(await road.place(body_=wanted))
    assert outcome == Accepted(STORED_ID, body_of(order, SHOP), replayed=True)
    road.leases.till.restore(parts or [])


async def test_admission_known_key_beats_a_limit_that_has_come_since_and_needs_a_customer(road: Road) -> None:
    order = store(road)
    road.catalogue.products[SKU].limit = 1
    assert accepted(await road.place()) == Accepted(STORED_ID, body_of(order, SHOP), replayed=True)


async def test_admission_limited_sku_without_a_customer_is_refused_and_takes_nothing(road: Road) -> None:
    road.catalogue.products[SKU].limit = 2
    outcome = await road.place()
    assert isinstance(outcome, Refusal)
    assert (outcome.code, [(error["code"], error["pointer"]) for error in outcome.errors]) == (
        "invalid",
        [("required", "#/customer_id")],
    )
    assert "no more than 2 of 85123A" in outcome.errors[0]["detail"]
    assert road.leases.till.free(SKU) == 10


async def test_admission_order_tells_the_ledger_its_limits_summed_by_sku(road: Road) -> None:
    road.catalogue.products[SKU].limit, road.catalogue.products[SERVICE].limit = 9, 2
    items = [{"sku": SKU, "quantity": 4}, {"sku": SERVICE, "quantity": 1}, {"sku": SKU, "quantity": 5}]
    accepted(await road.place(body_=body(items=items, customer_id="u-1")))
    assert list(road.ledger.stored[0].limits) == [Limit(SKU, "u-1", 9, 9), Limit(SERVICE, "u-1", 1, 2)]


async def test_admission_order_without_limits_needs_no_customer_and_tells_none(road: Road) -> None:
    accepted(await road.place())
    assert list(road.ledger.stored[0].limits) == []


async def test_admission_buyer_behind_whom_too_many_wait_is_overloaded(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BEHIND_MAX", 1)
    road.catalogue.products[SKU].limit = 9
    road.ledger.held.clear()
    blocker = road.send("blocker", body(SERVICE))
    await turns()
    sent = [road.send(key, body(customer_id="u-1")) for key in ("a", "b")]
    await turns()
    assert refused(await road.place("c", body(customer_id="u-1"))) == "overloaded"
    sent.append(road.send("d", body(customer_id="u-2")))
    road.ledger.held.set()
    for task in (blocker, *sent):
        accepted(await task)


async def test_admission_known_key_with_another_body_is_key_reused_though_sold_out(road: Road) -> None:
    store(road)
    assert refused(await road.place(body_=body(quantity=11))) == "key_reused"


async def test_admission_unknown_key_is_not_refused_while_another_worker_may_have_it_in_its_journal(
    impatient: Road,
) -> None:
    impatient.journaling.others_may_hold = True
    impatient.catalogue.products = {}
    assert refused(await impatient.place()) == "ledger_away"
    impatient.journaling.others_may_hold = False
    assert refused(await impatient.place()) == "invalid"


async def test_admission_sold_out_is_said_whoever_has_a_journal(road: Road) -> None:
    """The units of an order in a journal count as unsold in the ledger: they are not said to be gone."""
    road.journaling.others_may_hold = True
    assert refused(await road.place(body_=body(quantity=11))) == "sold_out"


async def test_admission_unknown_key_is_refused_after_the_ledger_was_asked(road: Road) -> None:
    assert refused(await road.place(body_=body(quantity=11))) == "sold_out"
    assert road.book.asked == [[road.key_hash()]]


async def test_admission_that_cannot_ask_about_the_key_does_not_say_sold_out(road: Road) -> None:
    road.book.error = LedgerUnavailableError("away")
    assert refused(await road.place(body_=body(quantity=11))) == "ledger_away"


async def test_admission_with_too_many_keys_to_ask_about_is_overloaded(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "WAITING_MAX", 0)
    assert refused(await road.place(body_=body(quantity=11))) == "overloaded"


async def test_admission_replay_that_fails_answers_and_frees_the_key(road: Road) -> None:
    store(road)
    del road.book.orders[STORED_ID]
    assert refused(await road.place(body_=body("UNKNOWN"))) == "key_reused"
    road.book.known[road.key_hash()] = StoredKey(STORED_ID, road.hasher.fingerprint(body("UNKNOWN")))
    assert refused(await road.place(body_=body("UNKNOWN"))) == "internal"
    await turns()
    assert road.admission.in_flight == 0


async def test_admission_worker_that_ends_answers_who_waits_for_stock() -> None:
    async for road in running(10):
        parts = road.leases.try_reserve([(SKU, 10)])
        waiting = road.send()
        await turns()
        road.leases.close()
        assert refused(await waiting) == "ledger_away"
        road.leases.till.restore(parts or [])


async def test_admission_event_of_the_answer_is_the_event_of_the_order(road: Road) -> None:
    accepted(await road.place())
    road.publisher.close()
    await road.publisher.run()
    [[event]] = road.stream.batches
    order = Order(
        road.ledger.stored[0].order_id,
        1,
        "app",
        "CNY",
        "pending_payment",
        1,
        255,
        [Line(1, SKU, "HEART T-LIGHT", 1, 255, 255, stocked=True)],
        int(START_S * 1000),
        expires_at=int(START_S * 1000) + 1_800_000,
    )
    change = Change(1, int(START_S * 1000), "created", "pending_payment", "client:shop")
    entry = road.ledger.stored[0]
    assert event == event_of(order, change, "/floodgate/local", (entry.key_hash, entry.fingerprint))


async def test_line_rows_of_the_largest_order_are_pieces_that_one_copy_takes(road: Road) -> None:
    sku, title = "\U0010ffff" * SKU_CHARS_MAX, "\U0010ffff" * TITLE_CHARS_MAX
    lines = [Line(at, sku, title, 1, 1, 1, stocked=True) for at in range(1, ITEMS_MAX + 1)]
    order = OrderIn("app", "CNY", [])
    written = admission.write(order, Priced(lines, 1, [], []), 1, "a", 0, 1, None, road.vault.sealer)
    assert max(map(len, written.line_rows)) < COPY_BYTES_MAX
