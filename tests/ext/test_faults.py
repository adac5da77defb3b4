"""The list of all faults agrees with the fast checks, names every place, and repeats nothing that was sent."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_ext.codes import FAULTS
from core_ext.faults import (
    ADJUSTMENT,
    FAULTS_MAX,
    ITEM,
    ORDER,
    PAID,
    SHIP_TO,
    FaultAt,
    Field,
    find_faults,
    pricing_faults,
)
from core_ext.shapes import AdjustmentIn, ItemIn, OrderIn, PaidIn, ShipTo
from tests.ext.twins import COMPILED, FAULT_NAMES, REFERENCE, Twin, body, order_in, product

junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([1.0, 0.5, 0, 1_000_001, 10**30, 10**4299, [], {}, [[]], {"a": {}}]),
    st.sampled_from(["", "\x00", "\x9f", "\u00a0", "x" * 300, "App", "cny", "CN", "gift", "sale-1"]),
    st.sampled_from(["2026-11-11T00:00:00", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"]),
    st.text(max_size=5),
)
texts = st.text(alphabet="ab-9Z字", min_size=1, max_size=4)
times = st.sampled_from(["2026-11-11T00:00:00Z", "2026-11-11T00:00:00.5+08:00", "9999-12-31T23:59:59.999Z"])


def mostly(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    # The odd die is no bound of its range, which hypothesis draws far too often.
    return st.integers(0, 40).flatmap(lambda die: junk if die == 23 else value)


def objects(
    required: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[Any]:
    """Objects of these fields, now and then with a required one missing, an unknown one more, or something else
    altogether.
    """
    whole = st.fixed_dictionaries({name: mostly(value) for name, value in required.items()}, optional=optional)
    without = st.sampled_from(sorted(required)) if required else st.just("")
    broken = st.tuples(whole, without).map(
        lambda pair: {name: value for name, value in pair[0].items() if name != pair[1]}
    )
    extended = whole.map(lambda value: value | {"stray/~é": 1})
    return st.integers(0, 80).flatmap(lambda die: {23: broken, 31: extended, 57: junk}.get(die, whole))


item_documents = objects({"sku": texts, "quantity": st.integers(1, 5)}, {"unit_price": mostly(st.integers(0, 5))})
adjustment_documents = objects(
    {"type": st.sampled_from(["discount", "fee"]), "amount": st.integers(-5, 5), "label": texts},
    {"line": mostly(st.just(1))},
)
documents = objects(
    {
        "channel": st.sampled_from(["app", "a-1"]),
        "currency": st.sampled_from(["CNY", "EUR"]),
        "items": st.lists(item_documents, min_size=1, max_size=3),
    },
    {
        "customer_id": mostly(texts),
        "sale_id": mostly(texts),
        "external_id": mostly(texts),
        "note": mostly(texts),
        "ship_to": objects({}, dict.fromkeys(["name", "city"], mostly(texts))),
        "metadata": mostly(st.dictionaries(texts, mostly(texts), max_size=3)),
        "adjustments": mostly(st.lists(adjustment_documents, max_size=2)),
        "placed_at": mostly(times),
        "paid": objects({"reference": texts}, {"at": mostly(times)}),
    },
)


def fast_result(twin: Twin, text: bytes, *, may_price: bool) -> int | None:
    """0, the number of the first fault, or None when the text is no OrderIn."""
    try:
        return int(twin.validation.check_order(msgspec.json.decode(text, type=OrderIn), may_price))
    except msgspec.ValidationError:
        return None


def faults_of(*, may_price: bool = True, **changes: Any) -> list[tuple[str, str]]:
    return [(fault.code, fault.pointer) for fault in find_faults(body(**changes), may_price)]


@settings(max_examples=500)
@given(document=documents, may_price=st.booleans())
def test_find_faults_of_any_document_agrees_with_both_fast_checks(document: Any, *, may_price: bool) -> None:
    text = json.dumps(document).encode()
    fast = fast_result(COMPILED, text, may_price=may_price)
    assert fast == fast_result(REFERENCE, text, may_price=may_price)
    found = find_faults(msgspec.json.decode(text), may_price)
    assert (found == []) == (fast == 0)
    assert not fast or FAULT_NAMES[fast] in {fault.code for fault in found}


@given(document=documents, may_price=st.booleans())
def test_find_faults_of_any_document_uses_registered_codes_and_pointers_that_lead_there(
    document: Any, *, may_price: bool
) -> None:
    for fault in find_faults(document, may_price):
        assert fault.code in FAULTS
        assert fault.pointer.isascii()
        assert fault.pointer == "#" or fault.pointer.startswith("#/")


@pytest.mark.parametrize(
    ("fields", "shape"),
    [(ITEM, ItemIn), (ADJUSTMENT, AdjustmentIn), (PAID, PaidIn), (SHIP_TO, ShipTo), (ORDER, OrderIn)],
)
def test_field_table_names_the_fields_of_its_shape(fields: dict[str, Field], shape: type[msgspec.Struct]) -> None:
    assert sorted(fields) == sorted(shape.__struct_fields__)
    required = {field.name for field in msgspec.structs.fields(shape) if field.required}
    assert {name for name, field in fields.items() if field.required} == required


@pytest.mark.parametrize("document", [None, 1, "x", [], True])
def test_document_that_is_no_object_has_one_fault(document: object) -> None:
    assert find_faults(document, False) == [FaultAt("wrong_type", "#", "must be an object")]


def test_find_faults_names_every_fault_at_once() -> None:
    found = faults_of(
        channel=...,
        currency="cny",
        items=[{"sku": "a\x00", "quantity": True, "colour": 1}, 7, {"quantity": 1.0}],
        note=5,
        metadata={"a/b~c d": 1},
        adjustments=[{"type": "gift", "amount": 0, "label": "x", "line": 4}],
        placed_at="yesterday",
        extra=None,
    )
    assert found == [
        ("unknown_field", "#/extra"),
        ("required", "#/channel"),
        ("bad_format", "#/currency"),
        ("unknown_field", "#/items/0/colour"),
        ("control_character", "#/items/0/sku"),
        ("wrong_type", "#/items/0/quantity"),
        ("wrong_type", "#/items/1"),
        ("required", "#/items/2/sku"),
        ("wrong_type", "#/items/2/quantity"),
        ("wrong_type", "#/note"),
        ("wrong_type", "#/metadata/a~1b~0c%20d"),
        ("bad_format", "#/adjustments/0/type"),
        ("unknown_line", "#/adjustments/0/line"),
        ("bad_format", "#/placed_at"),
    ]


def test_find_faults_without_scope_names_each_price_field() -> None:
    found = faults_of(
        may_price=False,
        items=[{"sku": "A", "quantity": 1, "unit_price": 1}],
        adjustments=[],
        placed_at="2026-11-11T00:00:00Z",
        paid={"reference": "r"},
    )
    assert found == [
        ("scope_required", f"#/{place}") for place in ("items/0/unit_price", "adjustments", "placed_at", "paid")
    ]


def test_text_with_two_faults_has_both() -> None:
    assert faults_of(customer_id="\x00" * 129) == [
        ("bad_length", "#/customer_id"),
        ("control_character", "#/customer_id"),
    ]


def test_required_field_that_is_null_has_the_wrong_type() -> None:
    assert faults_of(currency=None) == [("wrong_type", "#/currency")]


def test_find_faults_returns_no_more_than_its_bound() -> None:
    assert len(find_faults(body(items=[None] * 5000), False)) == FAULTS_MAX


def test_find_faults_of_absurd_nesting_ends() -> None:
    nested: Any = []
    for _ in range(100_000):
        nested = [nested]
    assert faults_of(items=nested, metadata={"k": nested}, deep=nested) == [
        ("unknown_field", "#/deep"),
        ("wrong_type", "#/items/0"),
        ("wrong_type", "#/metadata/k"),
    ]


def test_name_beyond_its_bound_is_not_repeated() -> None:
    document = body() | {"x" * 129: 1}
    assert [(fault.code, fault.pointer) for fault in find_faults(document, False)] == [("unknown_field", "#")]


def test_details_never_repeat_a_value() -> None:
    secret = "SECRET\x00"
    found = find_faults(
        body(note=secret, ship_to={"name": secret}, customer_id=secret, placed_at=secret, channel=secret), True
    )
    assert len(found) == 5
    assert not any("SECRET" in part for fault in found for part in fault)


@pytest.mark.parametrize(
    ("code", "pointer", "changes"),
    [
        ("unknown_sku", "#/items/0/sku", {"items": [{"sku": "none", "quantity": 1}]}),
        ("inactive_sku", "#/items/0/sku", {"items": [{"sku": "off", "quantity": 1}]}),
        ("currency_mismatch", "#/items/0/sku", {"currency": "EUR"}),
        ("total_out_of_range", "#", {"items": [{"sku": "85123A", "quantity": 2, "unit_price": 2**53 - 1}]}),
        ("total_out_of_range", "#", {"adjustments": [{"type": "discount", "amount": -1531, "label": "x"}]}),
    ],
)
def test_pricing_faults_of_one_fault_name_it(code: str, pointer: str, changes: dict[str, Any]) -> None:
    products = {"85123A": product(), "off": product("off", active=False)}
    found = pricing_faults(order_in(**changes), products, True)
    assert [(fault.code, fault.pointer) for fault in found] == [(code, pointer)]
    assert FAULT_NAMES[REFERENCE.pricing.price_order(order_in(**changes), products, True)] == code


def test_pricing_faults_name_every_line() -> None:
    items = [{"sku": sku, "quantity": 1} for sku in ("none", "85123A", "off", "other")]
    products = {"85123A": product(), "off": product("off", active=False)}
    found = pricing_faults(order_in(items=items), products, False)
    assert [(fault.code, fault.pointer) for fault in found] == [
        ("unknown_sku", "#/items/0/sku"),
        ("inactive_sku", "#/items/2/sku"),
        ("unknown_sku", "#/items/3/sku"),
    ]


def test_pricing_faults_return_no_more_than_their_bound() -> None:
    assert len(pricing_faults(order_in(items=[{"sku": "none", "quantity": 1}] * 500), {}, False)) == FAULTS_MAX
