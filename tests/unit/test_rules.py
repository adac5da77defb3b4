"""Rules by SKU: the first whose pattern matches counts, however they are looked up."""

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rules import Rules
from gateway.domain.stock_keys import stock_key

TEXT = st.text("ABa-*?[]!", max_size=6)
SKUS = st.text("AB-", min_size=1, max_size=8)


def pattern_for(sku: str) -> st.SearchStrategy[str]:
    """Patterns that match a SKU, or nearly."""
    pieces = (st.sampled_from([one, one, "*", "?", f"[{one}]", f"[!{one}]", f"*{one}"]) for one in sku)
    return st.tuples(*pieces).map("".join)


@pytest.mark.parametrize(
    ("rules", "sku", "value"),
    [
        ([("A-1", 1)], "A-1", 1),
        ([("A-1", 1)], "A-10", None),
        ([("A-*", 1)], "a-1", None),
        ([("*", 1), ("A", 2)], "A", 1),
        ([("A", 1), ("*", 2)], "A", 1),
        ([("A*", 1), ("A-*", 2)], "A-1", 1),
        ([("A-*", 1), ("A*", 2)], "AB", 2),
        ([("A?[BC]", 1)], "AxC", 1),
        ([("A?[BC]", 1)], "AxD", None),
        ([("A", 1), ("A", 2)], "A", 1),
        ([("*-X", 1), ("A-*", 2)], "A-X", 1),
        ([("*-X*", 1), ("*-X", 2)], "A-X", 1),
        ([("AB*BC", 1), ("AB*", 2)], "ABC", 2),
        ([("*[!A]-X", 1), ("*-X", 2)], "A-X", 2),
        ([("A[B", 1)], "A[B", 1),
        ([("*]A", 1)], "[]A", 1),
        ([], "A", None),
    ],
)
def test_rules_of_a_sku_give_the_first_that_matches(rules: list[tuple[str, int]], sku: str, value: int | None) -> None:
    assert Rules(rules).find(sku) == value


@given(patterns=st.lists(TEXT, max_size=8), sku=TEXT)
def test_rules_of_any_sku_give_what_trying_them_in_order_gives(patterns: list[str], sku: str) -> None:
    expected = next((at for at, pattern in enumerate(patterns) if fnmatchcase(sku, pattern)), None)
    assert Rules([(pattern, at) for at, pattern in enumerate(patterns)]).find(sku) == expected


@given(rules=st.data(), skus=st.lists(SKUS, min_size=1, max_size=4))
def test_rules_made_of_a_sku_give_what_trying_them_in_order_gives(rules: st.DataObject, skus: list[str]) -> None:
    patterns = [rules.draw(pattern_for(sku)) for sku in skus]
    for sku in skus:
        expected = next((at for at, pattern in enumerate(patterns) if fnmatchcase(sku, pattern)), None)
        assert Rules([(pattern, at) for at, pattern in enumerate(patterns)]).find(sku) == expected


def test_rules_of_a_sales_stock_go_by_its_sku() -> None:
    rules = Rules([("double-11*", 1), ("TEA", 2)])
    assert rules.find(stock_key("double-11", "TEA")) == 2
