# Ids, for the pass over a whole order (admission.pyx).

cdef bytes made_id(object ms)
