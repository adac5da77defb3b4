# The rows, for the pass over a whole order (admission.pyx). Each writes behind what the buffer holds.

from core_ext.compiled.buffer cimport Buffer
from core_ext.compiled.views cimport ChangeView, OrderView

# Where `personal` stands in a row of `orders`, counted from 0: what is before it, and what is behind it.
cdef int put_order_start(Buffer* row, const OrderView* order) except -1
cdef int put_order_end(Buffer* row, const OrderView* order) except -1
cdef int put_line(Buffer* row, bytes order_id, object line) except -1
cdef int put_history(Buffer* row, bytes order_id, const ChangeView* change) except -1
cdef int put_key_start(Buffer* row, bytes order_id, object master_version) except -1
