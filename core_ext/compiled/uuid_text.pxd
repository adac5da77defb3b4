# The canonical text of a UUID, shared by the modules that write ids. Header only: each module compiles its own copy.

cdef enum:
    UUID_BYTES = 16
    UUID_CHARS = 36


cdef inline void write_uuid(char* target, const unsigned char* id) noexcept nogil:
    """Writes the 36 characters of `id`, lower case, without a terminating NUL."""
    cdef const char* digits = b"0123456789abcdef"
    cdef int at
    for at in range(UUID_BYTES):
        if at == 4 or at == 6 or at == 8 or at == 10:
            target[0] = c"-"
            target += 1
        target[0] = digits[id[at] >> 4]
        target[1] = digits[id[at] & 15]
        target += 2
