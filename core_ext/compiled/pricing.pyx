# cython: language_level=3
"""Prices, total and demand of an order, compiled: see core_ext/reference/pricing.py, which is the specification.

Sums are 128 bits wide: 1,000 amounts of 53 bits and 1,000 adjustments do not fit into 64. What leaves here fits.
"""

from core_ext import limits
from core_ext.shapes import Line, Priced

include "codes.pxi"

__all__ = ["price_order"]

cdef extern from *:
    """
    typedef __int128 wide_t;
    """
    ctypedef long long wide_t  # Cython only has to know that it is an integer.

cdef long long MONEY_MAX = limits.MONEY_MAX


def price_order(order, dict products not None, bint may_price):
    cdef str currency = order.currency
    cdef list items = order.items
    cdef list lines = []
    cdef list stocked = []
    cdef list limited = []
    cdef wide_t total = adjusted(order.adjustments) if may_price else 0
    cdef wide_t amount
    cdef object item, own_price, product
    cdef str sku
    cdef long long quantity, unit_price
    cdef bint has_limit
    for item in items:
        sku = item.sku
        product = products.get(sku)
        if product is None:
            return UNKNOWN_SKU
        if not product.active:
            return INACTIVE_SKU
        own_price = item.unit_price if may_price else None
        if own_price is None and <str>product.currency != currency:
            return CURRENCY_MISMATCH
        quantity = item.quantity
        unit_price = product.price if own_price is None else own_price
        amount = <wide_t>quantity * unit_price
        if amount > MONEY_MAX:
            return TOTAL_OUT_OF_RANGE
        total += amount
        has_limit = product.limit is not None
        lines.append(
            Line(len(lines) + 1, sku, product.title, quantity, unit_price, <long long>amount, product.stocked, has_limit)
        )
        if product.stocked:
            stocked.append((sku, quantity))
        if has_limit:
            limited.append((sku, quantity))
    if not 0 <= total <= MONEY_MAX:
        return TOTAL_OUT_OF_RANGE
    # A NamedTuple's own constructor is a Python function, and costs three times as much.
    return tuple.__new__(Priced, (lines, <long long>total, summed(stocked), limits_of(summed(limited), products)))


cdef wide_t adjusted(list adjustments) except? -1:
    cdef wide_t total = 0
    if adjustments is not None:
        for adjustment in adjustments:
            total += <long long>adjustment.amount
    return total


cdef list limits_of(list limited, dict products):
    return [(sku, units, products[sku].limit) for sku, units in limited] if limited else limited


cdef list summed(list stocked):
    """One entry per SKU, in code point order. Nearly every order has one line, which is its own sum."""
    cdef dict units = {}
    cdef str sku
    cdef long long quantity
    if len(stocked) < 2:
        return stocked
    for sku, quantity in stocked:
        units[sku] = <long long>units.get(sku, 0) + quantity
    return sorted(units.items())
