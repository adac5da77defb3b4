"""The faults of a small body: all at once, each with its code and place, and none exactly when msgspec takes the
body.
"""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.codes import FAULTS
from gateway.api.faults import find_faults
from gateway.api.sale_shapes import SaleIn, SaleItemIn
from gateway.api.shapes import ProductChange, ProductIn, StockIn

ITEM = {"sku": "A", "price": 1, "units": 1}
SALE = {"title": "Double 11", "starts_at": "2026-11-11T00:00:00Z", "ends_at": "2026-11-12T00:00:00Z", "items": [ITEM]}
PRODUCT = {"title": "Lamp", "price": 1, "currency": "CNY"}
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from(
        [1.5, 2**53 - 1, 2**53, -1, 10**400, "", "CNY", "cny", "CNY\n", "CNYX", "x" * 201, "a\x00", [], {}, "商品"]
    ),
    st.sampled_from(
        ["2026-11-11T00:00:00Z", "2026-11-11T00:00:00", "2026-11-11", [ITEM], [{}], [ITEM, 7], [ITEM | {"x": 1}]]
    ),
)
SHAPES: list[type[msgspec.Struct]] = [ProductIn, ProductChange, StockIn, SaleIn, SaleItemIn]
shapes = st.sampled_from(SHAPES)
names = st.sampled_from(sorted({field for shape in SHAPES for field in shape.__struct_fields__} | {"other"}))


@given(document=st.dictionaries(names, junk), shape=shapes)
def test_find_faults_agrees_with_msgspec(document: dict[str, Any], shape: type[msgspec.Struct]) -> None:
    faults = find_faults(document, shape)
    assert all(fault.code in FAULTS for fault in faults)
    try:
        msgspec.convert(document, shape)
    except msgspec.ValidationError:
        assert faults
    else:
        assert all(fault.code in {"control_character", "bad_format"} for fault in faults)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"title": ""}, [("bad_length", "#/title")]),
        ({"title": "x" * 200}, []),
        ({"title": "x" * 201}, [("bad_length", "#/title")]),
        ({"title": "a\x7f"}, [("control_character", "#/title")]),
        ({"price": -1}, [("out_of_range", "#/price")]),
        ({"price": 2**53}, [("out_of_range", "#/price")]),
        ({"price": "1"}, [("wrong_type", "#/price")]),
        ({"currency": "cny"}, [("bad_format", "#/currency")]),
        ({"stocked": 1}, [("wrong_type", "#/stocked")]),
        ({"title": None}, [("wrong_type", "#/title")]),
        ({"a/b~ü": 1}, [("unknown_field", "#/a~1b~0%C3%BC")]),
        ({"x" * 999: 1}, [("unknown_field", "#")]),
    ],
)
def test_find_faults_of_a_product_names_code_and_place(change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert [(fault.code, fault.pointer) for fault in find_faults(PRODUCT | change, ProductIn)] == expected


def test_find_faults_of_a_bad_body_names_every_one() -> None:
    faults = find_faults({"price": "x", "stocked": 0, "more": 1}, ProductIn)
    assert {(fault.code, fault.pointer) for fault in faults} == {
        ("unknown_field", "#/more"),
        ("required", "#/title"),
        ("wrong_type", "#/price"),
        ("required", "#/currency"),
        ("wrong_type", "#/stocked"),
    }


@pytest.mark.parametrize("document", [None, [], "x", 1])
def test_find_faults_of_no_object_is_one_fault(document: object) -> None:
    assert [(fault.code, fault.pointer) for fault in find_faults(document, StockIn)] == [("wrong_type", "#")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"starts_at": "2026-11-11T00:00:00+08:00"}, []),
        ({"starts_at": "2026-11-11T00:00:00"}, [("bad_format", "#/starts_at")]),
        ({"ends_at": None}, [("wrong_type", "#/ends_at")]),
        ({"ends_at": "9999-12-31T23:59:59-00:01"}, [("out_of_range", "#/ends_at")]),
        ({"items": []}, [("bad_count", "#/items")]),
        ({"items": {}}, [("wrong_type", "#/items")]),
        ({"items": [ITEM] * 500}, []),
        ({"items": [7] * 5000}, [("bad_count", "#/items"), *[("wrong_type", f"#/items/{at}") for at in range(99)]]),
        ({"items": [ITEM, {"sku": ""}]}, [("bad_length", "#/items/1/sku"), ("required", "#/items/1/price"),
                                          ("required", "#/items/1/units")]),
        ({"items": [ITEM | {"a/b": 1, "limit": 0}]}, [("unknown_field", "#/items/0/a~1b"),
                                                      ("out_of_range", "#/items/0/limit")]),
    ],
)  # fmt: skip
def test_find_faults_of_a_sale_names_code_and_place(change: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert [(fault.code, fault.pointer) for fault in find_faults(SALE | change, SaleIn)] == expected
