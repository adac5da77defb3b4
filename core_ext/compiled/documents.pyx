# cython: language_level=3
# cython: cdivision=True
"""The JSON of an order, compiled: see core_ext/reference/documents.py, which is the specification.

Every document is written into one buffer, field by field, and copied out once. `order_id` is always the first field,
so every other one writes the comma before itself.
"""

from core_ext import limits
from core_ext.reference.documents import MASK, MASKED, NONE, PLAIN

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t

from core_ext.compiled.buffer cimport Buffer, close_buffer, open_buffer, put, put_ascii, taken
from core_ext.compiled.json_text cimport put_escaped, put_number, put_string, put_time_text, put_uuid_text
from core_ext.compiled.uuid_text cimport UUID_BYTES, UUID_CHARS, write_uuid

__all__ = ["MASKED", "NONE", "PLAIN", "event_id", "event_json", "event_subject", "order_json"]

cdef int LEFT_OUT = NONE
cdef int AS_IT_IS = PLAIN
cdef str MASK_TEXT = MASK
cdef int64_t TIME_MS_MIN = limits.TIME_MS_MIN
cdef int64_t TIME_MS_MAX = limits.TIME_MS_MAX


def order_json(order, int personal) -> bytes:
    assert personal in (NONE, MASKED, PLAIN)
    cdef Buffer document
    open_buffer(&document)
    try:
        put_ascii(&document, b"{")
        put_order(&document, order, order.status, order.version, personal)
        put_ascii(&document, b"}")
        return taken(&document)
    finally:
        close_buffer(&document)


def event_json(order, change, str source not None) -> bytes:
    cdef Buffer document
    open_buffer(&document)
    try:
        put_envelope(&document, order.id, change, source)
        put_ascii(&document, b',"data":{')
        put_order(&document, order, change.status, change.version, LEFT_OUT)
        put_ascii(&document, b',"previous_status":')
        put_string_or_null(&document, change.previous_status)
        put_ascii(&document, b',"actor":')
        put_string_or_null(&document, change.actor)
        put_ascii(&document, b',"reason":')
        put_string_or_null(&document, change.reason)
        put_ascii(&document, b',"changed":[')
        put_names(&document, change.changed)
        put_ascii(&document, b"]}}")
        return taken(&document)
    finally:
        close_buffer(&document)


def event_subject(bytes order_id not None, str event not None, str channel not None) -> str:
    return f"orders.{event}.{channel}.{sixteen(order_id)[15] & 15:02d}"


def event_id(bytes order_id not None, int64_t version) -> str:
    cdef char[UUID_CHARS] text
    write_uuid(text, sixteen(order_id))
    return f"{text[:UUID_CHARS].decode('ascii')}.{version}"


cdef int put_envelope(Buffer* document, bytes order_id, change, str source) except -1:
    cdef const unsigned char* id = sixteen(order_id)
    cdef str event = change.event
    cdef int64_t version = change.version
    put_ascii(document, b'{"specversion":"1.0","id":"')
    put_uuid_text(document, id)
    put_ascii(document, b".")
    put_number(document, version)
    put_ascii(document, b'","source":')
    put_string(document, source)
    put_ascii(document, b',"type":"com.floodgate.order.')
    put_escaped(document, event)
    put_ascii(document, b'.v1","subject":"')
    put_uuid_text(document, id)
    put_ascii(document, b'"')
    put_optional_time(document, b',"time":"', change.at)
    put_ascii(document, b',"datacontenttype":"application/json","dataschema":"urn:floodgate:schema:order.')
    put_escaped(document, event)
    put_ascii(document, b'.v1","sequence":"')
    put_number(document, version, 10)
    put_ascii(document, b'","partitionkey":"')
    put_uuid_text(document, id)
    put_ascii(document, b'"')
    return put_optional(document, b',"traceparent":', change.traceparent)


cdef int put_order(Buffer* document, order, str status, int64_t version, int personal) except -1:
    cdef bytes order_id = order.id
    put_ascii(document, b'"order_id":"')
    put_uuid_text(document, sixteen(order_id))
    put_ascii(document, b'","status":')
    put_string(document, status)
    put_ascii(document, b',"version":')
    put_number(document, version)
    put_ascii(document, b',"channel":')
    put_string(document, order.channel)
    put_ascii(document, b',"currency":')
    put_string(document, order.currency)
    put_optional(document, b',"customer_id":', order.customer_id)
    put_optional(document, b',"external_id":', order.external_id)
    put_optional(document, b',"sale_id":', order.sale_id)
    put_ascii(document, b',"total":')
    put_number(document, order.total)
    put_lines(document, order.lines)
    put_raw(document, b',"adjustments":', order.adjustments)
    put_raw(document, b',"metadata":', order.metadata)
    put_optional_time(document, b',"placed_at":"', order.placed_at)
    put_paid(document, order.paid_reference, order.paid_at)
    if personal != LEFT_OUT:
        put_personal(document, b',"note":', order.note, personal)
        put_ship_to(document, order.ship_to, personal)
    put_optional_time(document, b',"created_at":"', order.created_at)
    return put_optional_time(document, b',"expires_at":"', order.expires_at)


cdef int put_lines(Buffer* document, list lines) except -1:
    cdef bint is_first = True
    put_ascii(document, b',"items":[')
    for line in lines:
        put_ascii(document, b'{"line":' if is_first else b',{"line":')
        is_first = False
        put_number(document, line.line)
        put_ascii(document, b',"sku":')
        put_string(document, line.sku)
        put_ascii(document, b',"title":')
        put_string(document, line.title)
        put_ascii(document, b',"quantity":')
        put_number(document, line.quantity)
        put_ascii(document, b',"unit_price":')
        put_number(document, line.unit_price)
        put_ascii(document, b',"amount":')
        put_number(document, line.amount)
        put_ascii(document, b"}")
    return put_ascii(document, b"]")


cdef int put_paid(Buffer* document, str reference, at) except -1:
    if reference is None:
        return 0
    put_ascii(document, b',"paid":{"reference":')
    put_string(document, reference)
    put_optional_time(document, b',"at":"', at)
    return put_ascii(document, b"}")


cdef int put_ship_to(Buffer* document, ship_to, int personal) except -1:
    cdef Py_ssize_t start
    if ship_to is None:
        return 0
    put_ascii(document, b',"ship_to":')
    start = document.used
    put_personal(document, b',"name":', ship_to.name, personal)
    put_personal(document, b',"phone":', ship_to.phone, personal)
    put_personal(document, b',"country":', ship_to.country, personal)
    put_personal(document, b',"province":', ship_to.province, personal)
    put_personal(document, b',"city":', ship_to.city, personal)
    put_personal(document, b',"district":', ship_to.district, personal)
    put_personal(document, b',"street":', ship_to.street, personal)
    put_personal(document, b',"postcode":', ship_to.postcode, personal)
    if document.used == start:
        return put_ascii(document, b"{}")
    # The comma of the first field, whichever it was, becomes the brace.
    document.data[start] = c"{"
    return put_ascii(document, b"}")


cdef int put_personal(Buffer* document, const char* name, str text, int personal) except -1:
    if text is None:
        return 0
    put_ascii(document, name)
    return put_string(document, text if personal == AS_IT_IS else MASK_TEXT)


cdef int put_names(Buffer* document, tuple names) except -1:
    cdef bint is_first = True
    for name in names:
        if not is_first:
            put_ascii(document, b",")
        put_string(document, name)
        is_first = False
    return 0


cdef int put_optional(Buffer* document, const char* name, str text) except -1:
    if text is None:
        return 0
    put_ascii(document, name)
    return put_string(document, text)


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


cdef int put_optional_time(Buffer* document, const char* name, value) except -1:
    """Writes a time; `name` ends with the opening quote."""
    cdef int64_t ms
    if value is None:
        return 0
    ms = value
    if ms < TIME_MS_MIN or ms > TIME_MS_MAX:
        raise OverflowError("an instant outside of the years 1 to 9999")
    put_ascii(document, name)
    put_time_text(document, ms)
    return put_ascii(document, b'"')


cdef const unsigned char* sixteen(bytes id) except NULL:
    if id is None or PyBytes_GET_SIZE(id) != UUID_BYTES:
        raise ValueError("an id has 16 bytes")
    return <const unsigned char*>PyBytes_AS_STRING(id)
