# The pieces of a document, for the pass over a whole order (admission.pyx). Each writes behind what the buffer holds.

from libc.stdint cimport int64_t

from core_ext.compiled.buffer cimport Buffer
from core_ext.compiled.views cimport ChangeView, OrderView

cdef int put_envelope(Buffer* document, const unsigned char* id, const ChangeView* change, str source) except -1
cdef int put_order_head(Buffer* document, const OrderView* order, object status, object version) except -1
cdef int put_personal_fields(Buffer* document, const OrderView* order, int personal) except -1
cdef int put_order_tail(Buffer* document, const OrderView* order) except -1
cdef int put_change(Buffer* document, const ChangeView* change) except -1
cdef int put_ship_to(Buffer* document, object ship_to, int personal) except -1
cdef str subject_of(const unsigned char* id, str event, str channel)
cdef str event_id_of(const unsigned char* id, int64_t version)
cdef dict headers_of(object client_id, list lines, bytes key_hash, bytes fingerprint)
