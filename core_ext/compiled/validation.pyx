# cython: language_level=3
"""The bounds of an order, compiled: see core_ext/reference/validation.py, which is the specification.

Each cdef function gives 0 or the number of the first fault, in the order of the specification; -1 is a Python
exception.
"""

from core_ext import limits
from core_ext.times import ms_of

from cpython.object cimport PyObject

from core_ext.compiled.views cimport ItemView, OrderInView, ShipToView, see_item, see_order_in, see_ship_to

include "codes.pxi"

__all__ = ["check_order"]

cdef extern from "Python.h":
    int PyUnicode_KIND(str text)
    void* PyUnicode_DATA(str text)
    Py_UCS4 PyUnicode_READ(int kind, void* data, Py_ssize_t at) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(str text)
    bint PyUnicode_IS_ASCII(str text)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

cdef Py_ssize_t ITEMS_MAX = limits.ITEMS_MAX
cdef Py_ssize_t ADJUSTMENTS_MAX = limits.ADJUSTMENTS_MAX
cdef Py_ssize_t SKU_CHARS_MAX = limits.SKU_CHARS_MAX
cdef Py_ssize_t CHANNEL_CHARS_MAX = limits.CHANNEL_CHARS_MAX
cdef Py_ssize_t CURRENCY_CHARS = limits.CURRENCY_CHARS
cdef Py_ssize_t REFERENCE_CHARS_MAX = limits.REFERENCE_CHARS_MAX
cdef Py_ssize_t NOTE_CHARS_MAX = limits.NOTE_CHARS_MAX
cdef Py_ssize_t ADDRESS_CHARS_MAX = limits.ADDRESS_CHARS_MAX
cdef Py_ssize_t LABEL_CHARS_MAX = limits.LABEL_CHARS_MAX
cdef Py_ssize_t METADATA_PAIRS_MAX = limits.METADATA_PAIRS_MAX
cdef Py_ssize_t METADATA_KEY_CHARS_MAX = limits.METADATA_KEY_CHARS_MAX
cdef Py_ssize_t METADATA_VALUE_CHARS_MAX = limits.METADATA_VALUE_CHARS_MAX
cdef long long QUANTITY_MAX = limits.QUANTITY_MAX
cdef long long MONEY_MAX = limits.MONEY_MAX
cdef long long TIME_MS_MIN = limits.TIME_MS_MIN
cdef long long TIME_MS_MAX = limits.TIME_MS_MAX


def check_order(order, bint may_price) -> int:
    cdef OrderInView sent
    see_order_in(&sent, order)
    cdef list items = <list?>sent.items
    cdef list adjustments = <list?>sent.adjustments
    cdef object placed_at = <object>sent.placed_at
    cdef object paid = <object>sent.paid
    cdef int fault = head_fault(&sent) or items_fault(items, may_price) or references_fault(&sent)
    fault = fault or ship_to_fault(<object>sent.ship_to) or metadata_fault(<dict?>sent.metadata)
    if fault:
        return fault
    if not may_price and not (adjustments is None and placed_at is None and paid is None):
        return SCOPE_REQUIRED
    return adjustments_fault(adjustments, len(items)) or time_fault(placed_at) or paid_fault(paid)


cdef int head_fault(const OrderInView* order) except -1:
    cdef str channel = <str?>order.channel
    cdef str currency = <str?>order.currency
    cdef int fault = text_fault(channel, 1, CHANNEL_CHARS_MAX)
    if fault == 0 and not is_channel(channel):
        fault = BAD_FORMAT
    fault = fault or text_fault(currency, CURRENCY_CHARS, CURRENCY_CHARS)
    if fault == 0 and not is_currency(currency):
        fault = BAD_FORMAT
    return fault


cdef int items_fault(list items, bint may_price) except -1:
    cdef ItemView item
    cdef int fault
    cdef str sku
    if not 1 <= len(items) <= ITEMS_MAX:
        return BAD_COUNT
    for entry in items:
        see_item(&item, entry)
        sku = <str?>item.sku
        fault = text_fault(sku, 1, SKU_CHARS_MAX)
        if fault:
            return fault
        # ASCII without control characters is printable.
        if not PyUnicode_IS_ASCII(sku) and not sku.isprintable():
            return BAD_FORMAT
        if is_outside(<object>item.quantity, 1, QUANTITY_MAX):
            return OUT_OF_RANGE
        if <object>item.unit_price is not None:
            if not may_price:
                return SCOPE_REQUIRED
            if is_outside(<object>item.unit_price, 0, MONEY_MAX):
                return OUT_OF_RANGE
    return 0


cdef int references_fault(const OrderInView* order) except -1:
    cdef int fault = optional_fault(order.customer_id, REFERENCE_CHARS_MAX)
    fault = fault or optional_fault(order.sale_id, REFERENCE_CHARS_MAX)
    fault = fault or optional_fault(order.external_id, REFERENCE_CHARS_MAX)
    return fault or optional_fault(order.note, NOTE_CHARS_MAX)


cdef int ship_to_fault(object ship_to) except -1:
    cdef ShipToView view
    if ship_to is None:
        return 0
    see_ship_to(&view, ship_to)
    return (
        optional_fault(view.name, ADDRESS_CHARS_MAX)
        or optional_fault(view.phone, ADDRESS_CHARS_MAX)
        or optional_fault(view.country, ADDRESS_CHARS_MAX)
        or optional_fault(view.province, ADDRESS_CHARS_MAX)
        or optional_fault(view.city, ADDRESS_CHARS_MAX)
        or optional_fault(view.district, ADDRESS_CHARS_MAX)
        or optional_fault(view.street, ADDRESS_CHARS_MAX)
        or optional_fault(view.postcode, ADDRESS_CHARS_MAX)
    )


cdef int metadata_fault(dict metadata) except -1:
    cdef int fault
    cdef str key, value
    if metadata is None:
        return 0
    if len(metadata) > METADATA_PAIRS_MAX:
        return BAD_COUNT
    for key, value in metadata.items():
        fault = text_fault(key, 1, METADATA_KEY_CHARS_MAX) or text_fault(value, 0, METADATA_VALUE_CHARS_MAX)
        if fault:
            return fault
    return 0


cdef int adjustments_fault(list adjustments, Py_ssize_t lines) except -1:
    cdef int fault
    cdef object line
    if adjustments is None:
        return 0
    if len(adjustments) > ADJUSTMENTS_MAX:
        return BAD_COUNT
    for adjustment in adjustments:
        if is_outside(adjustment.amount, -MONEY_MAX, MONEY_MAX):
            return OUT_OF_RANGE
        fault = text_fault(adjustment.label, 1, LABEL_CHARS_MAX)
        if fault:
            return fault
        line = adjustment.line
        if line is not None and is_outside(line, 1, lines):
            return UNKNOWN_LINE
    return 0


cdef int paid_fault(paid) except -1:
    if paid is None:
        return 0
    return text_fault(paid.reference, 1, REFERENCE_CHARS_MAX) or time_fault(paid.at)


cdef int time_fault(moment) except -1:
    if moment is not None and is_outside(ms_of(moment), TIME_MS_MIN, TIME_MS_MAX):
        return OUT_OF_RANGE
    return 0


cdef inline int optional_fault(PyObject* text, Py_ssize_t chars_max) except -1:
    return 0 if <object>text is None else text_fault(<str?>text, 1, chars_max)


cdef inline int text_fault(str text, Py_ssize_t chars_min, Py_ssize_t chars_max) except -1:
    if text is None:
        raise TypeError("a text is required")
    if not chars_min <= PyUnicode_GET_LENGTH(text) <= chars_max:
        return BAD_LENGTH
    return CONTROL_CHARACTER if has_control(text) else 0


cdef bint has_control(str text) noexcept:
    cdef int kind = PyUnicode_KIND(text)
    cdef void* data = PyUnicode_DATA(text)
    cdef Py_ssize_t at
    cdef unsigned int character
    for at in range(PyUnicode_GET_LENGTH(text)):
        character = PyUnicode_READ(kind, data, at)
        if character < 0x20 or 0x7F <= character <= 0x9F:
            return True
    return False


cdef bint is_channel(str text) noexcept:
    cdef Py_ssize_t at
    cdef Py_UCS4 character
    for at in range(PyUnicode_GET_LENGTH(text)):
        character = PyUnicode_READ(PyUnicode_KIND(text), PyUnicode_DATA(text), at)
        if not (0x61 <= character <= 0x7A or 0x30 <= character <= 0x39 or character == 0x2D):  # a-z, 0-9, hyphen
            return False
    return True


cdef bint is_currency(str text) noexcept:
    cdef Py_ssize_t at
    for at in range(PyUnicode_GET_LENGTH(text)):
        if not 0x41 <= PyUnicode_READ(PyUnicode_KIND(text), PyUnicode_DATA(text), at) <= 0x5A:  # A-Z
            return False
    return True


cdef bint is_outside(number, long long lowest, long long highest) except -1:
    """True also for integers that C cannot hold."""
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(number, &overflow)
    return overflow != 0 or value < lowest or value > highest
