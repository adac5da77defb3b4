# A growing buffer of bytes, shared by the encoders. Header only: each module compiles its own copy.
#
# It starts on the caller's stack, so that a usual row costs no allocation, and is never copied, since `data` may point
# into it. `open_buffer` and `close_buffer` are a pair (try/finally); `taken` copies what was written into bytes.

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, strlen

cdef enum:
    FIRST_BYTES = 2048

cdef struct Buffer:
    char* data
    Py_ssize_t used
    Py_ssize_t room
    char[FIRST_BYTES] first


cdef inline void open_buffer(Buffer* buffer) noexcept:
    buffer.data = buffer.first
    buffer.used = 0
    buffer.room = FIRST_BYTES


cdef inline void close_buffer(Buffer* buffer) noexcept:
    if buffer.data != buffer.first:
        PyMem_Free(buffer.data)


cdef inline bytes taken(Buffer* buffer):
    return PyBytes_FromStringAndSize(buffer.data, buffer.used)


cdef inline int grow(Buffer* buffer, Py_ssize_t count) except -1:
    """Makes room for `count` more bytes; the buffer is as it was when there is no memory."""
    cdef Py_ssize_t room = buffer.room
    cdef char* data
    while room - buffer.used < count:
        room *= 2
    if buffer.data == buffer.first:
        data = <char*>PyMem_Malloc(room)
    else:
        data = <char*>PyMem_Realloc(buffer.data, room)
    if data == NULL:
        raise MemoryError
    if buffer.data == buffer.first:
        memcpy(data, buffer.first, buffer.used)
    buffer.data = data
    buffer.room = room
    return 0


cdef inline char* claim(Buffer* buffer, Py_ssize_t count) except NULL:
    """The place of the next `count` bytes, which the caller has to write before the next call."""
    if buffer.room - buffer.used < count:
        grow(buffer, count)
    buffer.used += count
    return buffer.data + buffer.used - count


cdef inline int put(Buffer* buffer, const char* data, Py_ssize_t count) except -1:
    memcpy(claim(buffer, count), data, count)
    return 0


cdef inline int put_ascii(Buffer* buffer, const char* literal) except -1:
    """Writes a literal; the compiler knows its length."""
    return put(buffer, literal, strlen(literal))


cdef inline int put_big_endian(Buffer* buffer, uint64_t number, int count) except -1:
    """Writes the lowest `count` bytes of `number`, the highest of them first."""
    cdef char* target = claim(buffer, count)
    cdef int at
    for at in range(count):
        target[at] = <char>(number >> (8 * (count - 1 - at)))
    return 0


cdef inline void write_big_endian_4(char* target, uint32_t number) noexcept:
    """Written out, so that the compiler makes one instruction of it."""
    target[0] = <char>(number >> 24)
    target[1] = <char>(number >> 16)
    target[2] = <char>(number >> 8)
    target[3] = <char>number


cdef inline void write_big_endian_8(char* target, uint64_t number) noexcept:
    write_big_endian_4(target, <uint32_t>(number >> 32))
    write_big_endian_4(target + 4, <uint32_t>number)


cdef inline int put_length(Buffer* buffer, Py_ssize_t length) except -1:
    """Writes the length of a field of COPY; -1 is NULL."""
    write_big_endian_4(claim(buffer, 4), <uint32_t>length)
    return 0
