"""The bounds of an order: each edge from both sides, and numbers and times that no C type holds."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from core_ext.shapes import OrderIn
from tests.ext.twins import FAULT_NAMES, Twin, body, order_in

MONEY_MAX = 2**53 - 1
HUGE = 10**4299

ADJUSTMENT = {"type": "fee", "amount": 1, "label": "x"}


def items(**changes: Any) -> list[dict[str, Any]]:
    return [{"sku": "A", "quantity": 1} | changes]


def adjustment(**changes: Any) -> list[dict[str, Any]]:
    return [ADJUSTMENT | changes]


def fault(twin: Twin, order: OrderIn, *, may_price: bool = True) -> str | None:
    number = twin.validation.check_order(order, may_price)
    return FAULT_NAMES[number] if number else None


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"channel": "x"},
    {"channel": "a-z0-9-" + "b" * 25},
    {"items": items(sku="字" * 64)},
    {"items": items(sku=" ~")},
    {"items": items(quantity=1_000_000)},
    {"items": items(unit_price=0)},
    {"items": items(unit_price=MONEY_MAX)},
    {"items": items() * 1000},
    {"customer_id": "c" * 128, "external_id": None},
    {"sale_id": "double-11"},
    {"sale_id": "s" * 128},
    {"note": "注" * 1000},
    {"note": ...},
    {"ship_to": {}},
    {"ship_to": {"street": "s" * 200}},
    {"metadata": {}},
    {"metadata": {str(number).rjust(64, "k"): "v" * 500 for number in range(20)}},
    {"metadata": {"k": ""}},
    {"adjustments": []},
    {"adjustments": adjustment(amount=-MONEY_MAX, label="l" * 200, line=1)},
    {"adjustments": adjustment() * 1000},
    {"placed_at": "0001-01-01T00:00:00Z"},
    {"placed_at": "9999-12-31T23:59:59.999999Z"},
    {"paid": {"reference": "r" * 128}},
    {"paid": {"reference": "r", "at": "2026-11-11T00:00:00+08:00"}},
]

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("bad_length", {"channel": ""}),
    ("bad_length", {"channel": "c" * 33}),
    ("bad_format", {"channel": "App"}),
    ("bad_format", {"channel": "é"}),
    ("bad_length", {"currency": "CN"}),
    ("bad_format", {"currency": "cny"}),
    ("bad_count", {"items": []}),
    ("bad_count", {"items": items() * 1001}),
    ("bad_length", {"items": items(sku="")}),
    ("bad_length", {"items": items(sku="s" * 65)}),
    ("bad_format", {"items": items(sku="a\u00a0b")}),
    ("bad_format", {"items": items(sku="a\u200bb")}),
    ("out_of_range", {"items": items(quantity=0)}),
    ("out_of_range", {"items": items(quantity=1_000_001)}),
    ("out_of_range", {"items": items(quantity=HUGE)}),
    ("out_of_range", {"items": items(quantity=-HUGE)}),
    ("out_of_range", {"items": items(quantity=2**63)}),
    ("out_of_range", {"items": items(unit_price=-1)}),
    ("out_of_range", {"items": items(unit_price=MONEY_MAX + 1)}),
    ("out_of_range", {"items": items(unit_price=HUGE)}),
    ("bad_length", {"customer_id": ""}),
    ("bad_length", {"customer_id": "c" * 129}),
    ("bad_length", {"external_id": "c" * 129}),
    ("bad_length", {"sale_id": ""}),
    ("bad_length", {"sale_id": "s" * 129}),
    ("bad_length", {"note": ""}),
    ("bad_length", {"note": "n" * 1001}),
    *[("bad_length", {"ship_to": {field: "s" * 201}}) for field in ("name", "phone", "country", "province")],
    *[("bad_length", {"ship_to": {field: ""}}) for field in ("city", "district", "street", "postcode")],
    ("bad_count", {"metadata": {str(number): "" for number in range(21)}}),
    ("bad_length", {"metadata": {"": "v"}}),
    ("bad_length", {"metadata": {"k" * 65: "v"}}),
    ("bad_length", {"metadata": {"k": "v" * 501}}),
    ("bad_count", {"adjustments": adjustment() * 1001}),
    ("out_of_range", {"adjustments": adjustment(amount=MONEY_MAX + 1)}),
    ("out_of_range", {"adjustments": adjustment(amount=-HUGE)}),
    ("bad_length", {"adjustments": adjustment(label="")}),
    ("bad_length", {"adjustments": adjustment(label="l" * 201)}),
    ("unknown_line", {"adjustments": adjustment(line=0)}),
    ("unknown_line", {"adjustments": adjustment(line=2)}),
    ("unknown_line", {"adjustments": adjustment(line=HUGE)}),
    ("out_of_range", {"placed_at": "0001-01-01T00:00:00+00:01"}),
    ("out_of_range", {"placed_at": "9999-12-31T23:59:59-00:01"}),
    ("bad_length", {"paid": {"reference": ""}}),
    ("bad_length", {"paid": {"reference": "r" * 129}}),
    ("out_of_range", {"paid": {"reference": "r", "at": "0001-01-01T00:00:00+14:00"}}),
]

TEXT_FIELDS: list[Callable[[str], dict[str, Any]]] = [
    lambda text: {"channel": text},
    lambda text: {"currency": "C" + text + "Y"},
    lambda text: {"items": items(sku=text)},
    lambda text: {"customer_id": text},
    lambda text: {"external_id": text},
    lambda text: {"sale_id": text},
    lambda text: {"note": text},
    lambda text: {"ship_to": {"postcode": text}},
    lambda text: {"metadata": {text: "v"}},
    lambda text: {"metadata": {"k": text}},
    lambda text: {"adjustments": adjustment(label=text)},
    lambda text: {"paid": {"reference": text}},
]


@pytest.mark.parametrize("changes", ACCEPTED)
def test_order_within_bounds_has_no_fault(twin: Twin, changes: dict[str, Any]) -> None:
    assert fault(twin, order_in(**changes)) is None


@pytest.mark.parametrize(("code", "changes"), REFUSED)
def test_order_out_of_bounds_has_the_fault(twin: Twin, code: str, changes: dict[str, Any]) -> None:
    assert fault(twin, order_in(**changes)) == code


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize("control", ["\x00", "\x1f", "\x7f", "\x80", "\x9f"])
def test_control_character_anywhere_is_a_fault(
    twin: Twin, field: Callable[[str], dict[str, Any]], control: str
) -> None:
    assert fault(twin, order_in(**field(control))) == "control_character"


@pytest.mark.parametrize("text", ["\x00字", "字\x9f", "😀\x7f"])
def test_control_character_in_wide_text_is_a_fault(twin: Twin, text: str) -> None:
    assert fault(twin, order_in(note=text)) == "control_character"


@pytest.mark.parametrize("text", [" ~", "\u00a0ÿ", "字\uffff", "😀\U0010ffff", "\u2028"])
def test_note_without_control_characters_has_no_fault(twin: Twin, text: str) -> None:
    assert fault(twin, order_in(note=text)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"items": items(unit_price=1)},
        {"adjustments": []},
        {"adjustments": adjustment()},
        {"placed_at": "2026-11-11T00:00:00Z"},
        {"paid": {"reference": "r"}},
    ],
)
def test_price_field_without_scope_is_a_fault(twin: Twin, changes: dict[str, Any]) -> None:
    assert fault(twin, order_in(**changes), may_price=False) == "scope_required"
    assert fault(twin, order_in(**changes), may_price=True) is None


def test_price_fields_that_are_null_need_no_scope(twin: Twin) -> None:
    nothing = {"adjustments": None, "placed_at": None, "paid": None, "items": items(unit_price=None)}
    assert fault(twin, order_in(**nothing), may_price=False) is None


def test_check_order_of_a_decoded_body_with_a_number_of_4300_digits_has_the_fault(twin: Twin) -> None:
    text = b'{"channel":"a","currency":"CNY","items":[{"sku":"A","quantity":' + b"9" * 4300 + b"}]}"
    assert fault(twin, msgspec.json.decode(text, type=OrderIn)) == "out_of_range"


def test_check_order_with_two_faults_names_the_first_field(twin: Twin) -> None:
    assert fault(twin, order_in(items=[], note="")) == "bad_count"
    assert fault(twin, msgspec.convert(body(channel="", items=[]), OrderIn)) == "bad_length"
