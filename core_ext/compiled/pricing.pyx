# cython: language_level=3
"""Prices, total and demand of an order, compiled: see core_ext/reference/pricing.py, which is the specification.

Sums are 128 bits wide: 1,000 amounts of 53 bits and 1,000 adjustments do not fit into 64. What leaves here fits.
"""

from core_ext import limits
from core_ext.shapes import Line, Priced

from core_ext.compiled.named cimport new_named, set_entry
from core_ext.compiled.views cimport (
    ItemView,
    OrderInView,
    ProductView,
    see_item,
    see_order_in,
    see_product,
)

include "codes.pxi"

__all__ = ["price_order"]

cdef extern from *:
    """
    typedef __int128 wide_t;
    """
    ctypedef long long wide_t  # Cython only has to know that it is an integer.

cdef long long MONEY_MAX = limits.MONEY_MAX


def price_order(order, dict products not None, bint may_price):
    cdef OrderInView sent
    cdef ItemView item
    cdef ProductView product
    cdef list lines = []
    cdef list stocked = []
    cdef list limited = []
    cdef wide_t total = 0
    cdef wide_t amount
    cdef object own_price, found, entry, priced
    cdef list demand, bounds
    cdef str sku
    cdef bint has_limit
    see_order_in(&sent, order)
    if may_price:
        total = adjusted(<list?>sent.adjustments)
    for entry in <list?>sent.items:
        see_item(&item, entry)
        sku = <str?>item.sku
        found = products.get(sku)
        if found is None:
            return UNKNOWN_SKU
        see_product(&product, found)
        if not <object>product.active:
            return INACTIVE_SKU
        own_price = <object>item.unit_price if may_price else None
        if own_price is None:
            if <str?>product.currency != <str?>sent.currency:
                return CURRENCY_MISMATCH
            own_price = <object>product.price
        amount = <wide_t><long long><object>item.quantity * <long long>own_price
        if amount > MONEY_MAX:
            return TOTAL_OUT_OF_RANGE
        total += amount
        has_limit = <object>product.limit is not None
        lines.append(
            Line(
                len(lines) + 1,
                sku,
                <object>product.title,
                <object>item.quantity,
                own_price,
                <long long>amount,
                <object>product.stocked,
                has_limit,
            )
        )
        if <object>product.stocked:
            stocked.append((sku, <object>item.quantity))
        if has_limit:
            limited.append((sku, <object>item.quantity))
    if not 0 <= total <= MONEY_MAX:
        return TOTAL_OUT_OF_RANGE
    demand = summed(stocked)
    bounds = limits_of(summed(limited), products)
    priced = new_named(Priced, 4)
    set_entry(priced, 0, lines)
    set_entry(priced, 1, <long long>total)
    set_entry(priced, 2, demand)
    set_entry(priced, 3, bounds)
    return priced


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
