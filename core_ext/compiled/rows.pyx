# cython: language_level=3
"""Rows of PostgreSQL's binary COPY, compiled: see core_ext/reference/rows.py, which is the specification.

Every function writes into one buffer on its stack and copies it out once.
"""

from core_ext import limits
from core_ext.reference.rows import (
    HEADER,
    HISTORY_COLUMNS,
    KEY_COLUMNS,
    LINE_COLUMNS,
    ORDER_COLUMNS,
    PIECE_LINES_MAX,
    TRAILER,
)

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t

from core_ext.compiled.buffer cimport (
    Buffer,
    claim,
    close_buffer,
    open_buffer,
    put,
    put_big_endian,
    put_length,
    taken,
    write_big_endian_4,
    write_big_endian_8,
)
from core_ext.compiled.views cimport ChangeView, LineView, OrderView, see_change, see_line, see_order

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(str text, Py_ssize_t* count) except NULL
    bint PyUnicode_Check(object text)
    bint PyUnicode_IS_COMPACT_ASCII(object text)
    void* PyUnicode_DATA(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)

__all__ = [
    "HEADER", "HISTORY_COLUMNS", "KEY_COLUMNS", "LINE_COLUMNS", "ORDER_COLUMNS", "PIECE_LINES_MAX", "TRAILER",
    "history_row", "key_row", "line_rows", "order_row",
]

cdef int64_t TIME_MS_MIN = limits.TIME_MS_MIN
cdef int64_t TIME_MS_MAX = limits.TIME_MS_MAX
cdef int64_t POSTGRES_EPOCH_MS = 946_684_800_000

cdef enum:
    NULL_LENGTH = -1
    TEXT_OID = 25


def order_row(order, bytes personal) -> bytes:
    cdef Buffer row
    cdef OrderView view
    see_order(&view, order)
    open_buffer(&row)
    try:
        put_order_start(&row, &view)
        put_bytes(&row, personal)
        put_order_end(&row, &view)
        return taken(&row)
    finally:
        close_buffer(&row)


def line_rows(order) -> bytes:
    cdef Buffer rows
    cdef OrderView view
    see_order(&view, order)
    open_buffer(&rows)
    try:
        for line in <list?>view.lines:
            put_line(&rows, <bytes?>view.id, line)
        return taken(&rows)
    finally:
        close_buffer(&rows)


def history_row(bytes order_id not None, change) -> bytes:
    cdef Buffer row
    cdef ChangeView view
    see_change(&view, change)
    open_buffer(&row)
    try:
        put_history(&row, order_id, &view)
        return taken(&row)
    finally:
        close_buffer(&row)


def key_row(bytes order_id not None, master_version, bytes wrapped not None) -> bytes:
    cdef Buffer row
    open_buffer(&row)
    try:
        put_key_start(&row, order_id, master_version)
        put_bytes(&row, wrapped)
        return taken(&row)
    finally:
        close_buffer(&row)


cdef int put_order_start(Buffer* row, const OrderView* order) except -1:
    put_big_endian(row, 18, 2)
    put_uuid(row, <bytes?>order.id)
    put_int4(row, <object>order.client_id)
    put_text(row, order.channel)
    put_text(row, order.currency)
    put_text(row, order.customer_id)
    put_text(row, order.external_id)
    put_text(row, order.sale_id)
    put_text(row, order.status)
    put_int4(row, <object>order.version)
    put_int8(row, <object>order.total)
    put_bytes(row, <bytes?>order.metadata)
    put_bytes(row, <bytes?>order.adjustments)
    put_time(row, order.placed_at)
    put_text(row, order.paid_reference)
    return put_time(row, order.paid_at)


cdef int put_order_end(Buffer* row, const OrderView* order) except -1:
    put_time(row, order.created_at)
    return put_time(row, order.expires_at)


cdef int put_line(Buffer* row, bytes order_id, object line) except -1:
    cdef LineView view
    see_line(&view, line)
    put_big_endian(row, 9, 2)
    put_uuid(row, order_id)
    put_int4(row, <object>view.line)
    put_text(row, view.sku)
    put_text(row, view.title)
    put_int4(row, <object>view.quantity)
    put_int8(row, <object>view.unit_price)
    put_int8(row, <object>view.amount)
    put_bool(row, <object>view.stocked)
    return put_bool(row, <object>view.limited)


cdef int put_history(Buffer* row, bytes order_id, const ChangeView* change) except -1:
    put_big_endian(row, 10, 2)
    put_uuid(row, order_id)
    put_int4(row, <object>change.version)
    put_time(row, change.at)
    put_text(row, change.event)
    put_text(row, change.status)
    put_text(row, change.previous_status)
    put_text(row, change.actor)
    put_text(row, change.reason)
    put_texts(row, <tuple?>change.changed)
    return put_text(row, change.traceparent)


cdef int put_key_start(Buffer* row, bytes order_id, object master_version) except -1:
    put_big_endian(row, 3, 2)
    put_uuid(row, order_id)
    return put_int4(row, master_version)


cdef inline int put_bool(Buffer* row, bint value) except -1:
    put_length(row, 1)
    return put_big_endian(row, value, 1)


cdef inline int put_bytes(Buffer* row, bytes value) except -1:
    if value is None:
        return put_length(row, NULL_LENGTH)
    put_length(row, PyBytes_GET_SIZE(value))
    return put(row, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef inline int put_text(Buffer* row, PyObject* value) except -1:
    cdef Py_ssize_t count
    cdef const char* text
    if <object>value is None:
        return put_length(row, NULL_LENGTH)
    if PyUnicode_Check(<object>value) and PyUnicode_IS_COMPACT_ASCII(<object>value):
        count = PyUnicode_GET_LENGTH(<object>value)
        put_length(row, count)
        return put(row, <const char*>PyUnicode_DATA(<object>value), count)
    text = PyUnicode_AsUTF8AndSize(<str?>value, &count)
    put_length(row, count)
    return put(row, text, count)


cdef inline int put_uuid(Buffer* row, bytes value) except -1:
    assert value is not None and len(value) == 16
    return put_bytes(row, value)


cdef inline int put_int4(Buffer* row, int32_t number) except -1:
    cdef char* target = claim(row, 8)
    write_big_endian_4(target, 4)
    write_big_endian_4(target + 4, <unsigned int>number)
    return 0


cdef inline int put_int8(Buffer* row, int64_t number) except -1:
    cdef char* target = claim(row, 12)
    write_big_endian_4(target, 8)
    write_big_endian_8(target + 4, <unsigned long long>number)
    return 0


cdef inline int put_time(Buffer* row, PyObject* value) except -1:
    cdef int64_t ms
    if <object>value is None:
        return put_length(row, NULL_LENGTH)
    ms = <object>value
    if ms < TIME_MS_MIN or ms > TIME_MS_MAX:
        raise OverflowError("an instant outside of the years 1 to 9999")
    return put_int8(row, (ms - POSTGRES_EPOCH_MS) * 1000)


cdef int put_texts(Buffer* row, tuple values) except -1:
    """A text[]; its length is known only afterwards, so it is written over the place kept for it."""
    cdef Py_ssize_t start, end
    put_length(row, 0)
    start = row.used
    put_big_endian(row, 1 if values else 0, 4)
    put_big_endian(row, 0, 4)
    put_big_endian(row, TEXT_OID, 4)
    if values:
        put_big_endian(row, len(values), 4)
        put_big_endian(row, 1, 4)
    for value in values:
        put_text(row, <PyObject*>value)
    end = row.used
    row.used = start - 4
    put_length(row, end - start)
    row.used = end
    return 0
