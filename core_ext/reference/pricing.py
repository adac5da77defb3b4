"""Prices, amounts, the total and the demand of an order, from the catalogue as the worker holds it.

The order has passed `validation.check_order` with the same `may_price`. A price that a client may not name never
counts, whatever the order says. No sum may wrap around: a line's amount has up to 73 bits.
"""

from collections import Counter

from core_ext.codes import FAULTS
from core_ext.limits import MONEY_MAX
from core_ext.shapes import ItemIn, Line, OrderIn, Priced, Product

__all__ = ["price_order"]


def price_order(
    order: OrderIn,
    products: dict[str, Product],
    may_price: bool,  # noqa: FBT001 - called once per order, by position
) -> Priced | int:
    """The priced order, or the number (core_ext.codes.FAULTS) of the first fault: unknown_sku, inactive_sku,
    currency_mismatch of the lines in their order (with total_out_of_range for an amount beyond MONEY_MAX), then
    total_out_of_range of the whole.
    """
    lines = []
    for number, item in enumerate(order.items, 1):
        line = _line(number, item, products.get(item.sku), order.currency, may_price=may_price)
        if isinstance(line, str):
            return FAULTS[line].number
        lines.append(line)
    total = sum(line.amount for line in lines) + _adjusted(order, may_price=may_price)
    if not 0 <= total <= MONEY_MAX:
        return FAULTS["total_out_of_range"].number
    return Priced(lines, total, _demand(lines), _limits(lines, products))


def _line(number: int, item: ItemIn, product: Product | None, currency: str, *, may_price: bool) -> Line | str:
    own_price = item.unit_price if may_price else None
    if product is None:
        return "unknown_sku"
    if not product.active:
        return "inactive_sku"
    if own_price is None and product.currency != currency:
        return "currency_mismatch"
    unit_price = product.price if own_price is None else own_price
    amount = item.quantity * unit_price
    if amount > MONEY_MAX:
        return "total_out_of_range"
    limited = product.limit is not None
    return Line(number, item.sku, product.title, item.quantity, unit_price, amount, product.stocked, limited)


def _adjusted(order: OrderIn, *, may_price: bool) -> int:
    return sum(adjustment.amount for adjustment in order.adjustments or ()) if may_price else 0


def _demand(lines: list[Line]) -> list[tuple[str, int]]:
    units: Counter[str] = Counter()
    for line in lines:
        if line.stocked:
            units[line.sku] += line.quantity
    return sorted(units.items())


def _limits(lines: list[Line], products: dict[str, Product]) -> list[tuple[str, int, int]]:
    units: Counter[str] = Counter()
    for line in lines:
        if line.limited:
            units[line.sku] += line.quantity
    limits = ((sku, of_sku, products[sku].limit) for sku, of_sku in sorted(units.items()))
    return [(sku, of_sku, limit) for sku, of_sku, limit in limits if limit is not None]
