# cython: language_level=3
"""Rows of PostgreSQL's binary COPY, compiled: see core_ext/reference/rows.py, which is the specification.

Every function writes into one buffer on its stack and copies it out once.
"""

from core_ext import limits
from core_ext.reference.rows import HEADER, HISTORY_COLUMNS, KEY_COLUMNS, LINE_COLUMNS, ORDER_COLUMNS, TRAILER

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t

from core_ext.compiled.buffer cimport Buffer, close_buffer, open_buffer, put, put_big_endian, taken

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(str text, Py_ssize_t* count) except NULL

__all__ = [
    "HEADER", "HISTORY_COLUMNS", "KEY_COLUMNS", "LINE_COLUMNS", "ORDER_COLUMNS", "TRAILER",
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
    open_buffer(&row)
    try:
        put_big_endian(&row, 18, 2)
        put_uuid(&row, order.id)
        put_int4(&row, order.client_id)
        put_text(&row, order.channel)
        put_text(&row, order.currency)
        put_text(&row, order.customer_id)
        put_text(&row, order.external_id)
        put_text(&row, order.sale_id)
        put_text(&row, order.status)
        put_int4(&row, order.version)
        put_int8(&row, order.total)
        put_bytes(&row, order.metadata)
        put_bytes(&row, order.adjustments)
        put_time(&row, order.placed_at)
        put_text(&row, order.paid_reference)
        put_time(&row, order.paid_at)
        put_bytes(&row, personal)
        put_time(&row, order.created_at)
        put_time(&row, order.expires_at)
        return taken(&row)
    finally:
        close_buffer(&row)


def line_rows(order) -> bytes:
    cdef Buffer rows
    cdef bytes order_id = order.id
    cdef list lines = order.lines
    open_buffer(&rows)
    try:
        for line in lines:
            put_line(&rows, order_id, line)
        return taken(&rows)
    finally:
        close_buffer(&rows)


def history_row(bytes order_id not None, change) -> bytes:
    cdef Buffer row
    open_buffer(&row)
    try:
        put_big_endian(&row, 10, 2)
        put_uuid(&row, order_id)
        put_int4(&row, change.version)
        put_time(&row, change.at)
        put_text(&row, change.event)
        put_text(&row, change.status)
        put_text(&row, change.previous_status)
        put_text(&row, change.actor)
        put_text(&row, change.reason)
        put_texts(&row, change.changed)
        put_text(&row, change.traceparent)
        return taken(&row)
    finally:
        close_buffer(&row)


def key_row(bytes order_id not None, master_version, bytes wrapped not None) -> bytes:
    cdef Buffer row
    open_buffer(&row)
    try:
        put_big_endian(&row, 3, 2)
        put_uuid(&row, order_id)
        put_int4(&row, master_version)
        put_bytes(&row, wrapped)
        return taken(&row)
    finally:
        close_buffer(&row)


cdef int put_line(Buffer* row, bytes order_id, line) except -1:
    put_big_endian(row, 9, 2)
    put_uuid(row, order_id)
    put_int4(row, line.line)
    put_text(row, line.sku)
    put_text(row, line.title)
    put_int4(row, line.quantity)
    put_int8(row, line.unit_price)
    put_int8(row, line.amount)
    put_bool(row, line.stocked)
    put_bool(row, line.limited)
    return 0


cdef int put_bool(Buffer* row, bint value) except -1:
    put_length(row, 1)
    return put_big_endian(row, value, 1)


cdef int put_length(Buffer* row, Py_ssize_t length) except -1:
    put_big_endian(row, length, 4)
    return 0


cdef int put_bytes(Buffer* row, bytes value) except -1:
    if value is None:
        return put_length(row, NULL_LENGTH)
    put_length(row, PyBytes_GET_SIZE(value))
    return put(row, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef int put_text(Buffer* row, str value) except -1:
    cdef Py_ssize_t count
    cdef const char* text
    if value is None:
        return put_length(row, NULL_LENGTH)
    text = PyUnicode_AsUTF8AndSize(value, &count)
    put_length(row, count)
    return put(row, text, count)


cdef int put_uuid(Buffer* row, bytes value) except -1:
    assert value is not None and len(value) == 16
    return put_bytes(row, value)


cdef int put_int4(Buffer* row, int32_t number) except -1:
    put_length(row, 4)
    return put_big_endian(row, number, 4)


cdef int put_int8(Buffer* row, int64_t number) except -1:
    put_length(row, 8)
    return put_big_endian(row, number, 8)


cdef int put_time(Buffer* row, value) except -1:
    cdef int64_t ms
    if value is None:
        return put_length(row, NULL_LENGTH)
    ms = value
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
        put_text(row, value)
    end = row.used
    row.used = start - 4
    put_length(row, end - start)
    row.used = end
    return 0
