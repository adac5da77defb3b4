# cython: language_level=3
"""One pass over a new order, compiled: see core_ext/reference/admission.py, which is the specification.

No Order and no Change are built: views of them are filled with what the order that came in and its pricing hold, and
the encoders of `rows` and `documents` write from those. The JSON that event and answer share is written once.
"""

import msgspec

from core_ext.reference.admission import CREATED, PAID, PENDING_PAYMENT
from core_ext.reference.documents import MASKED, NONE, PLAIN
from core_ext.reference.rows import PIECE_LINES_MAX
from core_ext.shapes import Priced, Told, Written
from core_ext.times import ms_of

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_GET_ITEM
from libc.stdint cimport int64_t

from core_ext.compiled.buffer cimport (
    Buffer,
    close_buffer,
    open_buffer,
    put,
    put_ascii,
    put_length,
    taken,
    write_big_endian_4,
)
from core_ext.compiled.documents cimport (
    event_id_of,
    headers_of,
    put_change,
    put_envelope,
    put_order_head,
    put_order_tail,
    put_personal_fields,
    subject_of,
)
from core_ext.compiled.ids cimport made_id
from core_ext.compiled.named cimport new_named, set_entry
from core_ext.compiled.rows cimport put_history, put_key_start, put_line, put_order_end, put_order_start
from core_ext.compiled.sealing cimport Sealer
from core_ext.compiled.views cimport ChangeView, LineView, OrderInView, OrderView, see_line, see_order_in

__all__ = ["CREATED", "PAID", "PENDING_PAYMENT", "tell", "write"]

cdef enum:
    NULL_LENGTH = -1

cdef object encode_json = msgspec.json.Encoder().encode
cdef object FIRST_VERSION = 1
cdef str EVENT = CREATED
cdef tuple NOTHING = ()
cdef Py_ssize_t PIECE_LINES = PIECE_LINES_MAX


cdef class Kept:
    """What a view borrows and nobody else keeps."""

    cdef bytes metadata, adjustments
    cdef object placed_at, paid_reference, paid_at


def write(
    order,
    priced,
    client_id,
    str actor not None,
    now_ms,
    payment_ms,
    str traceparent,
    Sealer sealer not None,
):
    cdef OrderInView sent
    cdef OrderView view
    cdef ChangeView change
    cdef list lines = <list?>entry_of(priced, Priced, 0)
    cdef object total = entry_of(priced, Priced, 1)
    cdef str status = PENDING_PAYMENT
    cdef object expires_at = None
    cdef bytes order_id = made_id(now_ms)
    cdef bytes order_row, key_row, history_row
    cdef Py_ssize_t size
    cdef list line_rows
    see_order_in(&sent, order)
    if <object>sent.paid is not None or total == 0:
        status = PAID
    else:
        expires_at = <int64_t>now_ms + <int64_t>payment_ms
    _kept = fill_order(&view, &sent, lines, total, order_id, client_id, status, now_ms, expires_at)
    fill_change(&change, status, actor, now_ms, traceparent)
    order_row, key_row = sealed_rows(&view, order_id, sealer)
    line_rows = pieces_of(order_id, lines)
    history_row = history_of(order_id, &change)
    size = PyBytes_GET_SIZE(order_row) + PyBytes_GET_SIZE(history_row) + PyBytes_GET_SIZE(key_row)
    for piece in line_rows:
        size += PyBytes_GET_SIZE(piece)
    made = new_named(Written, 9)
    set_entry(made, 0, order_id)
    set_entry(made, 1, status)
    set_entry(made, 2, expires_at)
    set_entry(made, 3, order_row)
    set_entry(made, 4, line_rows)
    set_entry(made, 5, history_row)
    set_entry(made, 6, key_row)
    set_entry(made, 7, size)
    set_entry(made, 8, units_of(lines))
    return made


def tell(
    order,
    priced,
    written,
    client_id,
    str actor not None,
    now_ms,
    str traceparent,
    str source not None,
    bytes key_hash not None,
    bytes fingerprint not None,
    int personal,
):
    assert personal in (NONE, MASKED, PLAIN)
    cdef OrderInView sent
    cdef OrderView view
    cdef ChangeView change
    cdef list lines = <list?>entry_of(priced, Priced, 0)
    cdef object total = entry_of(priced, Priced, 1)
    cdef bytes order_id = <bytes?>entry_of(written, Written, 0)
    cdef str status = <str?>entry_of(written, Written, 1)
    cdef object expires_at = entry_of(written, Written, 2)
    cdef const unsigned char* id = <const unsigned char*>PyBytes_AS_STRING(order_id)
    cdef Buffer event, body
    cdef Py_ssize_t start
    see_order_in(&sent, order)
    _kept = fill_order(&view, &sent, lines, total, order_id, client_id, status, now_ms, expires_at)
    fill_change(&change, status, actor, now_ms, traceparent)
    open_buffer(&event)
    open_buffer(&body)
    try:
        put_envelope(&event, id, &change, source)
        start = event.used
        put_order_head(&event, &view, status, FIRST_VERSION)
        put_ascii(&body, b"{")
        put(&body, event.data + start, event.used - start)
        put_personal_fields(&body, &view, personal)
        start = event.used
        put_order_tail(&event, &view)
        put(&body, event.data + start, event.used - start)
        put_ascii(&body, b"}")
        put_change(&event, &change)
        subject = subject_of(id, EVENT, <str?>sent.channel)
        event_id = event_id_of(id, 1)
        headers = headers_of(client_id, lines, key_hash, fingerprint)
        payload, answer = taken(&event), taken(&body)
    finally:
        close_buffer(&event)
        close_buffer(&body)
    made = new_named(Told, 5)
    set_entry(made, 0, subject)
    set_entry(made, 1, event_id)
    set_entry(made, 2, payload)
    set_entry(made, 3, headers)
    set_entry(made, 4, answer)
    return made


cdef inline object entry_of(object entries, object shape, Py_ssize_t at):
    """An entry of a NamedTuple, by its place."""
    if type(entries) is not shape:
        raise TypeError(f"a {shape.__name__} is needed, not {type(entries).__name__}")
    return <object>PyTuple_GET_ITEM(entries, at)


cdef Kept fill_order(
    OrderView* view,
    const OrderInView* sent,
    list lines,
    object total,
    bytes order_id,
    object client_id,
    str status,
    object now_ms,
    object expires_at,
):
    """Fills the view of the order as `_order` of the specification builds it. What is returned has to outlive it, as
    all arguments have to; None where nothing had to be made.
    """
    cdef PyObject* none = <PyObject*>None
    cdef Kept kept = None
    view.id = <PyObject*>order_id
    view.client_id = <PyObject*>client_id
    view.channel = sent.channel
    view.currency = sent.currency
    view.status = <PyObject*>status
    view.version = <PyObject*>FIRST_VERSION
    view.total = <PyObject*>total
    view.lines = <PyObject*>lines
    view.created_at = <PyObject*>now_ms
    view.customer_id = sent.customer_id
    view.external_id = sent.external_id
    view.sale_id = sent.sale_id
    view.expires_at = <PyObject*>expires_at
    view.note = sent.note
    view.ship_to = sent.ship_to
    view.metadata = view.adjustments = view.placed_at = view.paid_reference = view.paid_at = none
    if not (sent.metadata == none and sent.adjustments == none and sent.placed_at == none and sent.paid == none):
        kept = kept_of(sent)
        view.metadata = <PyObject*>kept.metadata
        view.adjustments = <PyObject*>kept.adjustments
        view.placed_at = <PyObject*>kept.placed_at
        view.paid_reference = <PyObject*>kept.paid_reference
        view.paid_at = <PyObject*>kept.paid_at
    return kept


cdef Kept kept_of(const OrderInView* sent):
    """What few orders have, in the form in which it is stored."""
    cdef Kept kept = Kept.__new__(Kept)
    if <object>sent.metadata is not None:
        kept.metadata = encode_json(<object>sent.metadata)
    if <object>sent.adjustments is not None:
        kept.adjustments = encode_json(<object>sent.adjustments)
    if <object>sent.placed_at is not None:
        kept.placed_at = ms_of(<object>sent.placed_at)
    if <object>sent.paid is not None:
        paid = <object>sent.paid
        kept.paid_reference = paid.reference
        kept.paid_at = None if paid.at is None else ms_of(paid.at)
    return kept


cdef int fill_change(ChangeView* view, str status, str actor, object now_ms, str traceparent) except -1:
    cdef PyObject* none = <PyObject*>None
    view.version = <PyObject*>FIRST_VERSION
    view.at = <PyObject*>now_ms
    view.event = <PyObject*>EVENT
    view.status = <PyObject*>status
    view.actor = <PyObject*>actor
    view.previous_status = view.reason = none
    view.changed = <PyObject*>NOTHING
    view.traceparent = <PyObject*>traceparent
    return 0


cdef tuple sealed_rows(const OrderView* view, bytes order_id, Sealer sealer):
    """The row of `orders` and the one of `order_key`, which is empty without personal data."""
    cdef Buffer row, key
    cdef Py_ssize_t personal_at, wrapped_at
    open_buffer(&row)
    open_buffer(&key)
    try:
        put_order_start(&row, view)
        if <object>view.note is None and <object>view.ship_to is None:
            put_length(&row, NULL_LENGTH)
        else:
            put_key_start(&key, order_id, sealer.master_version)
            personal_at = keep_length(&row)
            wrapped_at = keep_length(&key)
            sealer.put_sealed(&row, &key, order_id, <str?>view.note, <object>view.ship_to)
            write_length(&row, personal_at)
            write_length(&key, wrapped_at)
        put_order_end(&row, view)
        return taken(&row), taken(&key)
    finally:
        close_buffer(&row)
        close_buffer(&key)


cdef Py_ssize_t keep_length(Buffer* row) except -1:
    """Keeps the place of the length of a field that is known only afterwards."""
    put_length(row, 0)
    return row.used


cdef int write_length(Buffer* row, Py_ssize_t start) noexcept:
    write_big_endian_4(row.data + start - 4, <unsigned int>(row.used - start))
    return 0


cdef list pieces_of(bytes order_id, list lines):
    """The rows of the lines in pieces that the ledger may copy apart: one for nearly every order."""
    cdef Buffer rows
    cdef list pieces = []
    cdef Py_ssize_t at = 0
    open_buffer(&rows)
    try:
        for line in lines:
            if at and at % PIECE_LINES == 0:
                pieces.append(taken(&rows))
                rows.used = 0
            put_line(&rows, order_id, line)
            at += 1
        if at:
            pieces.append(taken(&rows))
        return pieces
    finally:
        close_buffer(&rows)


cdef int64_t units_of(list lines) except -1:
    cdef LineView view
    cdef int64_t units = 0
    for line in lines:
        see_line(&view, line)
        units += <int64_t><object>view.quantity
    return units


cdef bytes history_of(bytes order_id, const ChangeView* change):
    cdef Buffer row
    open_buffer(&row)
    try:
        put_history(&row, order_id, change)
        return taken(&row)
    finally:
        close_buffer(&row)
