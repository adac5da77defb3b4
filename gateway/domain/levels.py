"""What the world is told about how much of a SKU is left. The ledger's function `stock_levels` draws the same lines."""

from typing import Literal

Level = Literal["in_stock", "low", "sold_out"]


def level_of(available: int, low_units: int) -> Level:
    """The level of a SKU of which `available` units are unsold; it is low at `low_units` or below."""
    if available <= 0:
        return "sold_out"
    return "low" if available <= low_units else "in_stock"
