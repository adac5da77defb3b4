"""Prices, totals and demands; sums that would wrap around in 64 bits; both twins on any order."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.faults import pricing_faults
from core_ext.shapes import AdjustmentIn, ItemIn, Line, OrderIn, Priced, Product
from tests.ext.twins import COMPILED, FAULT_NAMES, REFERENCE, Twin, order_in, product

MONEY_MAX = 2**53 - 1


def priced(twin: Twin, products: list[Product], *, may_price: bool = True, **changes: Any) -> Any:
    """What pricing gives; the name instead of the number of a fault."""
    result = twin.pricing.price_order(order_in(**changes), {each.sku: each for each in products}, may_price)
    return FAULT_NAMES[result] if isinstance(result, int) else result


def item(sku: str = "A", quantity: int = 1, unit_price: int | None = None) -> dict[str, Any]:
    return {"sku": sku, "quantity": quantity, "unit_price": unit_price}


def adjusted(*amounts: int) -> list[dict[str, Any]]:
    return [{"type": "fee", "amount": amount, "label": "x"} for amount in amounts]


def test_price_order_takes_prices_and_titles_from_the_catalogue(twin: Twin) -> None:
    line = Line(1, "85123A", "HEART T-LIGHT", 6, 255, 1530, stocked=True)
    result = priced(twin, [product()])
    assert result == Priced([line], 1530, [("85123A", 6)], [])
    assert isinstance(result, Priced)


def test_price_order_keeps_lines_and_sums_demand_by_sku_in_order(twin: Twin) -> None:
    items = [item("b", 2), item("B", 3), item("gift", 9), item("b", 4)]
    result = priced(twin, [product("b"), product("B"), product("gift", stocked=False)], items=items)
    assert [(line.line, line.sku, line.quantity, line.stocked) for line in result.lines] == [
        (1, "b", 2, True),
        (2, "B", 3, True),
        (3, "gift", 9, False),
        (4, "b", 4, True),
    ]
    assert result.demand == [("B", 3), ("b", 6)]


def test_price_order_without_stocked_lines_has_no_demand(twin: Twin) -> None:
    assert priced(twin, [product("A", stocked=False)], items=[item()]).demand == []


def test_price_order_marks_limited_lines_and_sums_their_units_by_sku_in_order(twin: Twin) -> None:
    items = [item("b", 2), item("free", 9), item("B", 3), item("b", 4)]
    result = priced(twin, [product("b", limit=5), product("B", limit=1, stocked=False), product("free")], items=items)
    assert [line.limited for line in result.lines] == [True, False, True, True]
    assert result.limits == [("B", 3, 1), ("b", 6, 5)]


def test_own_price_beats_the_catalogue_in_any_currency(twin: Twin) -> None:
    result = priced(twin, [product("A", 100, currency="EUR")], items=[item(unit_price=0), item(unit_price=7)])
    assert ([line.unit_price for line in result.lines], result.total) == ([0, 7], 7)


def test_own_price_and_adjustments_without_scope_do_not_count(twin: Twin) -> None:
    result = priced(twin, [product("A", 100)], items=[item(unit_price=1)], adjustments=adjusted(-50), may_price=False)
    assert result.total == 100


def test_adjustments_change_the_total(twin: Twin) -> None:
    assert priced(twin, [product("A", 100)], items=[item()], adjustments=adjusted(-30, 5)).total == 75


@pytest.mark.parametrize(
    ("fault", "changes"),
    [
        ("unknown_sku", {"items": [item("none"), item("off")]}),
        ("inactive_sku", {"items": [item("A"), item("off"), item("none")]}),
        ("currency_mismatch", {"items": [item("euro")]}),
        ("total_out_of_range", {"items": [item("A", 2, MONEY_MAX)]}),
        ("total_out_of_range", {"items": [item("A", 1, MONEY_MAX), item("A", 1, 1)]}),
        ("total_out_of_range", {"items": [item()], "adjustments": adjusted(-101)}),
        ("total_out_of_range", {"items": [item()], "adjustments": adjusted(MONEY_MAX)}),
    ],
)
def test_price_order_with_a_fault_names_the_first(twin: Twin, fault: str, changes: dict[str, Any]) -> None:
    products = [product("A", 100), product("off", active=False), product("euro", currency="EUR")]
    assert priced(twin, products, **changes) == fault


def test_total_at_its_bounds_is_accepted(twin: Twin) -> None:
    assert priced(twin, [], items=[item()]) == "unknown_sku"
    assert priced(twin, [product("A", 100)], items=[item()], adjustments=adjusted(-100)).total == 0
    assert priced(twin, [product("A", MONEY_MAX)], items=[item()]).total == MONEY_MAX


def test_total_of_the_largest_order_does_not_wrap_around(twin: Twin) -> None:
    items, products = [item("A", 1, MONEY_MAX)] * 1000, [product("A")]
    assert priced(twin, products, items=items, adjustments=adjusted(*[MONEY_MAX] * 1000)) == "total_out_of_range"
    assert priced(twin, products, items=items, adjustments=adjusted(*[-MONEY_MAX] * 1000)).total == 0
    assert priced(twin, products, items=[item("A", 1_000_000, MONEY_MAX)]) == "total_out_of_range"


money = st.integers(0, 300) | st.integers(0, MONEY_MAX)
skus = st.sampled_from(["a", "A", "字", "😀"])
item_shapes = st.builds(ItemIn, sku=skus, quantity=st.integers(1, 1_000_000), unit_price=st.none() | money)
adjustment_shapes = st.builds(
    AdjustmentIn, type=st.just("fee"), amount=money | money.map(int.__neg__), label=st.just("x")
)
order_shapes = st.builds(
    OrderIn,
    channel=st.just("app"),
    currency=st.just("CNY"),
    items=st.lists(item_shapes, min_size=1, max_size=5),
    adjustments=st.none() | st.lists(adjustment_shapes, max_size=3),
)
catalogues = st.dictionaries(
    skus,
    st.builds(
        Product,
        sku=st.just(""),
        title=st.text(max_size=3),
        price=money,
        currency=st.sampled_from(["CNY", "CNY", "CNY", "EUR"]),
        stocked=st.booleans(),
        active=st.sampled_from([True, True, True, False]),
        limit=st.none() | st.integers(1, 10),
    ),
)


@given(order=order_shapes, products=catalogues, may_price=st.booleans())
def test_price_order_of_twins_is_equal_and_agrees_with_its_list_of_faults(
    order: OrderIn, products: dict[str, Product], *, may_price: bool
) -> None:
    reference = REFERENCE.pricing.price_order(order, products, may_price)
    assert reference == COMPILED.pricing.price_order(order, products, may_price)
    codes = [fault.code for fault in pricing_faults(order, products, may_price)]
    assert FAULT_NAMES[reference] in codes if isinstance(reference, int) else codes == []


def test_price_order_leaves_the_order_unchanged(twin: Twin) -> None:
    before = msgspec.json.encode(order_in())
    order = order_in()
    twin.pricing.price_order(order, {"85123A": product()}, False)
    assert msgspec.json.encode(order) == before
