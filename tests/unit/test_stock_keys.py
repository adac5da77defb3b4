"""The key under which units are counted."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.stock_keys import sku_of, stock_key

printable = st.text(st.characters(blacklist_categories=["C", "Z"]), min_size=1, max_size=8)


def test_stock_key_without_a_sale_is_the_sku() -> None:
    assert stock_key(None, "85123A") == "85123A"


def test_stock_key_of_a_sale_is_the_sale_and_the_sku() -> None:
    assert stock_key("double-11", "85123A") == "double-11\x1f85123A"


@given(sale_id=st.none() | printable, sku=printable)
def test_sku_of_a_stock_key_is_the_plain_sku(sale_id: str | None, sku: str) -> None:
    assert sku_of(stock_key(sale_id, sku)) == sku
