# cython: language_level=3
# cython: cdivision=True
"""The JSON of an order, compiled: see core_ext/reference/documents.py, which is the specification.

Every document is written into one buffer, field by field, and copied out once. `order_id` is always the first field,
so every other one writes the comma before itself.
"""

from core_ext import limits
from core_ext.reference.documents import KEY_HEADER, LIMITED, MASK, MASKED, NONE, ORDER_HEADER, PLAIN, STOCKED

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcpy

from core_ext.compiled.buffer cimport Buffer, claim, close_buffer, open_buffer, put, put_ascii, taken
from core_ext.compiled.json_text cimport (
    TIME_CHARS,
    put_escaped,
    put_number,
    put_string,
    put_time_text,
    put_utf8,
    put_uuid_text,
)
from core_ext.compiled.uuid_text cimport UUID_BYTES, UUID_CHARS, write_uuid
from core_ext.compiled.views cimport (
    ChangeView,
    LineView,
    OrderView,
    ShipToView,
    see_change,
    see_line,
    see_order,
    see_ship_to,
)

cdef extern from "Python.h":
    str PyUnicode_FromStringAndSize(const char* text, Py_ssize_t count)

__all__ = [
    "KEY_HEADER", "LIMITED", "MASKED", "NONE", "ORDER_HEADER", "PLAIN", "STOCKED",
    "created_headers", "event_id", "event_json", "event_subject", "order_json",
]

cdef enum:
    TIMES = 16  # remembered texts, by the lowest bits of their instant

cdef struct TimeText:
    int64_t ms
    bint known
    char[TIME_CHARS] text

cdef TimeText[TIMES] times
cdef int LEFT_OUT = NONE
cdef int AS_IT_IS = PLAIN
cdef int STOCKED_FLAG = STOCKED
cdef int LIMITED_FLAG = LIMITED
cdef str MASK_TEXT = MASK
cdef int64_t TIME_MS_MIN = limits.TIME_MS_MIN
cdef int64_t TIME_MS_MAX = limits.TIME_MS_MAX


def order_json(order, int personal) -> bytes:
    assert personal in (NONE, MASKED, PLAIN)
    cdef Buffer document
    cdef OrderView view
    see_order(&view, order)
    open_buffer(&document)
    try:
        put_ascii(&document, b"{")
        put_order_head(&document, &view, <object>view.status, <object>view.version)
        put_personal_fields(&document, &view, personal)
        put_order_tail(&document, &view)
        put_ascii(&document, b"}")
        return taken(&document)
    finally:
        close_buffer(&document)


def event_json(order, change, str source not None) -> bytes:
    cdef Buffer document
    cdef OrderView view
    cdef ChangeView made
    see_order(&view, order)
    see_change(&made, change)
    open_buffer(&document)
    try:
        put_envelope(&document, sixteen(<object>view.id), &made, source)
        put_order_head(&document, &view, <object>made.status, <object>made.version)
        put_order_tail(&document, &view)
        put_change(&document, &made)
        return taken(&document)
    finally:
        close_buffer(&document)


def event_subject(bytes order_id not None, str event not None, str channel not None) -> str:
    return subject_of(sixteen(order_id), event, channel)


def event_id(bytes order_id not None, int64_t version) -> str:
    return event_id_of(sixteen(order_id), version)


def created_headers(client_id, list lines not None, bytes key_hash, bytes fingerprint) -> dict:
    return headers_of(client_id, lines, key_hash, fingerprint)


cdef str subject_of(const unsigned char* id, str event, str channel):
    cdef Buffer text
    cdef int partition = id[UUID_BYTES - 1] & 15
    open_buffer(&text)
    try:
        put_ascii(&text, b"orders.")
        put_utf8(&text, event)
        put_ascii(&text, b".")
        put_utf8(&text, channel)
        put_ascii(&text, b".")
        put_number(&text, partition, 2)
        return PyUnicode_FromStringAndSize(text.data, text.used)
    finally:
        close_buffer(&text)


cdef str event_id_of(const unsigned char* id, int64_t version):
    cdef Buffer text
    open_buffer(&text)
    try:
        put_uuid_text(&text, id)
        put_ascii(&text, b".")
        put_number(&text, version)
        return PyUnicode_FromStringAndSize(text.data, text.used)
    finally:
        close_buffer(&text)


cdef dict headers_of(object client_id, list lines, bytes key_hash, bytes fingerprint):
    cdef Buffer text
    cdef dict headers
    open_buffer(&text)
    try:
        put_number(&text, client_id)
        put_ascii(&text, b".")
        put_flags(&text, lines)
        headers = {ORDER_HEADER: PyUnicode_FromStringAndSize(text.data, text.used)}
        if key_hash is not None:
            text.used = 0
            put_hexadecimal(&text, key_hash)
            put_ascii(&text, b".")
            put_hexadecimal(&text, fingerprint)
            headers[KEY_HEADER] = PyUnicode_FromStringAndSize(text.data, text.used)
        return headers
    finally:
        close_buffer(&text)


cdef int put_flags(Buffer* text, list lines) except -1:
    """Writes a digit for each line, or a single one where all are the same."""
    cdef LineView view
    cdef Py_ssize_t start = text.used
    cdef Py_ssize_t at
    cdef char[1] digit
    for line in lines:
        see_line(&view, line)
        digit[0] = c"0"
        if <object>view.stocked:
            digit[0] += STOCKED_FLAG
        if <object>view.limited:
            digit[0] += LIMITED_FLAG
        put(text, digit, 1)
    for at in range(start + 1, text.used):
        if text.data[at] != text.data[start]:
            return 0
    text.used = min(text.used, start + 1)
    return 0


cdef int put_hexadecimal(Buffer* text, bytes value) except -1:
    cdef const char* digits = b"0123456789abcdef"
    cdef const unsigned char* source
    cdef char* target
    cdef Py_ssize_t at
    if value is None:
        raise TypeError("a hash is required")
    source = <const unsigned char*>PyBytes_AS_STRING(value)
    target = claim(text, 2 * PyBytes_GET_SIZE(value))
    for at in range(PyBytes_GET_SIZE(value)):
        target[2 * at] = digits[source[at] >> 4]
        target[2 * at + 1] = digits[source[at] & 15]
    return 0


cdef int put_envelope(Buffer* document, const unsigned char* id, const ChangeView* change, str source) except -1:
    """Writes an event up to the brace that opens its data."""
    cdef str event = <str?>change.event
    cdef int64_t version = <object>change.version
    cdef char[UUID_CHARS] id_text
    write_uuid(id_text, id)
    put_ascii(document, b'{"specversion":"1.0","id":"')
    put(document, id_text, UUID_CHARS)
    put_ascii(document, b".")
    put_number(document, version)
    put_ascii(document, b'","source":')
    put_string(document, source)
    put_ascii(document, b',"type":"com.floodgate.order.')
    put_escaped(document, event)
    put_ascii(document, b'.v1","subject":"')
    put(document, id_text, UUID_CHARS)
    put_ascii(document, b'"')
    put_optional_time(document, b',"time":"', change.at)
    put_ascii(document, b',"datacontenttype":"application/json","dataschema":"urn:floodgate:schema:order.')
    put_escaped(document, event)
    put_ascii(document, b'.v1","sequence":"')
    put_number(document, version, 10)
    put_ascii(document, b'","partitionkey":"')
    put(document, id_text, UUID_CHARS)
    put_ascii(document, b'"')
    put_optional(document, b',"traceparent":', change.traceparent)
    return put_ascii(document, b',"data":{')


cdef int put_change(Buffer* document, const ChangeView* change) except -1:
    """Writes what an event's data says of the change, and closes both objects."""
    put_ascii(document, b',"previous_status":')
    put_string_or_null(document, <str?>change.previous_status)
    put_ascii(document, b',"actor":')
    put_string_or_null(document, <str?>change.actor)
    put_ascii(document, b',"reason":')
    put_string_or_null(document, <str?>change.reason)
    put_ascii(document, b',"changed":[')
    put_names(document, <tuple?>change.changed)
    return put_ascii(document, b"]}}")


cdef int put_order_head(Buffer* document, const OrderView* order, object status, object version) except -1:
    """Writes the fields of an order up to the personal ones."""
    put_ascii(document, b'"order_id":"')
    put_uuid_text(document, sixteen(<object>order.id))
    put_ascii(document, b'","status":')
    put_string(document, status)
    put_ascii(document, b',"version":')
    put_number(document, version)
    put_ascii(document, b',"channel":')
    put_string(document, <str?>order.channel)
    put_ascii(document, b',"currency":')
    put_string(document, <str?>order.currency)
    put_optional(document, b',"customer_id":', order.customer_id)
    put_optional(document, b',"external_id":', order.external_id)
    put_optional(document, b',"sale_id":', order.sale_id)
    put_ascii(document, b',"total":')
    put_number(document, <object>order.total)
    put_lines(document, <list?>order.lines)
    put_raw(document, b',"adjustments":', <bytes?>order.adjustments)
    put_raw(document, b',"metadata":', <bytes?>order.metadata)
    put_optional_time(document, b',"placed_at":"', order.placed_at)
    return put_paid(document, order)


cdef int put_personal_fields(Buffer* document, const OrderView* order, int personal) except -1:
    if personal == LEFT_OUT:
        return 0
    put_personal(document, b',"note":', order.note, personal)
    if <object>order.ship_to is None:
        return 0
    put_ascii(document, b',"ship_to":')
    return put_ship_to(document, <object>order.ship_to, personal)


cdef int put_order_tail(Buffer* document, const OrderView* order) except -1:
    """Writes the fields behind the personal ones."""
    put_optional_time(document, b',"created_at":"', order.created_at)
    return put_optional_time(document, b',"expires_at":"', order.expires_at)


cdef int put_lines(Buffer* document, list lines) except -1:
    cdef LineView view
    cdef bint is_first = True
    put_ascii(document, b',"items":[')
    for line in lines:
        see_line(&view, line)
        put_ascii(document, b'{"line":' if is_first else b',{"line":')
        is_first = False
        put_number(document, <object>view.line)
        put_ascii(document, b',"sku":')
        put_string(document, <str?>view.sku)
        put_ascii(document, b',"title":')
        put_string(document, <str?>view.title)
        put_ascii(document, b',"quantity":')
        put_number(document, <object>view.quantity)
        put_ascii(document, b',"unit_price":')
        put_number(document, <object>view.unit_price)
        put_ascii(document, b',"amount":')
        put_number(document, <object>view.amount)
        put_ascii(document, b"}")
    return put_ascii(document, b"]")


cdef int put_paid(Buffer* document, const OrderView* order) except -1:
    if <object>order.paid_reference is None:
        return 0
    put_ascii(document, b',"paid":{"reference":')
    put_string(document, <str?>order.paid_reference)
    put_optional_time(document, b',"at":"', order.paid_at)
    return put_ascii(document, b"}")


cdef int put_ship_to(Buffer* document, object ship_to, int personal) except -1:
    cdef ShipToView view
    cdef Py_ssize_t start = document.used
    see_ship_to(&view, ship_to)
    put_personal(document, b',"name":', view.name, personal)
    put_personal(document, b',"phone":', view.phone, personal)
    put_personal(document, b',"country":', view.country, personal)
    put_personal(document, b',"province":', view.province, personal)
    put_personal(document, b',"city":', view.city, personal)
    put_personal(document, b',"district":', view.district, personal)
    put_personal(document, b',"street":', view.street, personal)
    put_personal(document, b',"postcode":', view.postcode, personal)
    if document.used == start:
        return put_ascii(document, b"{}")
    # The comma of the first field, whichever it was, becomes the brace.
    document.data[start] = c"{"
    return put_ascii(document, b"}")


cdef inline int put_personal(Buffer* document, const char* name, PyObject* text, int personal) except -1:
    if <object>text is None:
        return 0
    put_ascii(document, name)
    return put_string(document, <str?>text if personal == AS_IT_IS else MASK_TEXT)


cdef int put_names(Buffer* document, tuple names) except -1:
    cdef bint is_first = True
    for name in names:
        if not is_first:
            put_ascii(document, b",")
        put_string(document, name)
        is_first = False
    return 0


cdef inline int put_optional(Buffer* document, const char* name, PyObject* text) except -1:
    if <object>text is None:
        return 0
    put_ascii(document, name)
    return put_string(document, <str?>text)


cdef int put_string_or_null(Buffer* document, str text) except -1:
    if text is None:
        return put_ascii(document, b"null")
    return put_string(document, text)


cdef int put_raw(Buffer* document, const char* name, bytes text) except -1:
    """Writes JSON that is text already."""
    if text is None:
        return 0
    put_ascii(document, name)
    return put(document, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef inline int put_optional_time(Buffer* document, const char* name, PyObject* value) except -1:
    """Writes a time; `name` ends with the opening quote."""
    cdef int64_t ms
    if <object>value is None:
        return 0
    ms = <object>value
    if ms < TIME_MS_MIN or ms > TIME_MS_MAX:
        raise OverflowError("an instant outside of the years 1 to 9999")
    put_ascii(document, name)
    put_time(document, ms)
    return put_ascii(document, b'"')


cdef int put_time(Buffer* document, int64_t ms) except -1:
    """Writes a time. An order names three, of which two are alike; orders of one millisecond name the same."""
    cdef int at = <int>(<unsigned long long>ms & (TIMES - 1))
    cdef Py_ssize_t start
    if times[at].ms != ms or not times[at].known:
        start = document.used
        put_time_text(document, ms)
        times[at].ms, times[at].known = ms, True
        memcpy(times[at].text, document.data + start, TIME_CHARS)
        return 0
    return put(document, times[at].text, TIME_CHARS)


cdef const unsigned char* sixteen(bytes id) except NULL:
    if id is None or PyBytes_GET_SIZE(id) != UUID_BYTES:
        raise ValueError("an id has 16 bytes")
    return <const unsigned char*>PyBytes_AS_STRING(id)
