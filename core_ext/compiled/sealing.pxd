# Sealing, for the pass over a whole order (admission.pyx).

from core_ext.compiled.buffer cimport Buffer

cdef class Sealer:
    cdef readonly int master_version
    cdef readonly str way
    cdef object _public
    cdef void* _master
    cdef void* _own

    # Writes both parts behind what the buffers hold.
    cdef int put_sealed(self, Buffer* personal, Buffer* wrapped, bytes order_id, str note, object ship_to) except -1
