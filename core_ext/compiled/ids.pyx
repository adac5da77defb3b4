# cython: language_level=3
"""Order ids, compiled: see core_ext/reference/ids.py, which is the specification.

The pool is a block of random bytes and a place in it. Taking from it cannot be interrupted by another thread (no
Python code runs in between), and a forked child starts with an empty pool.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from core_ext.reference.ids import POOL_BYTES

from core_ext.compiled.uuid_text cimport UUID_BYTES, UUID_CHARS, write_uuid

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(str text)
    const unsigned char* PyUnicode_1BYTE_DATA(str text)
    long long PyLong_AsLongLongAndOverflow(object number, int* overflow) except? -1

__all__ = ["floor_of", "format_id", "new_id", "parse_id", "partition_of", "time_of"]

cdef enum:
    TAKEN_BYTES = 10

cdef bytes pool = b""
cdef Py_ssize_t pool_at = 0


def _drop_pool():
    global pool, pool_at
    pool = b""
    pool_at = 0


os.register_at_fork(after_in_child=_drop_pool)


def new_id(ms) -> bytes:
    return made_id(ms)


cdef bytes made_id(object ms):
    global pool, pool_at
    cdef uint64_t time = checked(ms)
    if pool_at + TAKEN_BYTES > PyBytes_GET_SIZE(pool):
        pool = os.urandom(POOL_BYTES)
        pool_at = 0
    cdef bytes id = PyBytes_FromStringAndSize(NULL, UUID_BYTES)
    cdef unsigned char* target = <unsigned char*>PyBytes_AS_STRING(id)
    # Of the 80 bits drawn the two of the variant and the four above rand_a are overwritten.
    write_time(target, time)
    memcpy(target + 6, PyBytes_AS_STRING(pool) + pool_at, TAKEN_BYTES)
    pool_at += TAKEN_BYTES
    target[6] = 0x70 | (target[6] & 0x0F)
    target[8] = 0x80 | (target[8] & 0x3F)
    return id


def format_id(bytes id not None) -> str:
    cdef char[UUID_CHARS] text
    write_uuid(text, sixteen(id))
    return text[:UUID_CHARS].decode("ascii")


def parse_id(str text not None):
    if len(text) != UUID_CHARS or not PyUnicode_IS_ASCII(text):
        return None
    cdef const unsigned char* source = PyUnicode_1BYTE_DATA(text)
    cdef unsigned char[UUID_BYTES] id
    cdef int at, high, low
    for at in range(UUID_BYTES):
        if at == 4 or at == 6 or at == 8 or at == 10:
            if source[0] != c"-":
                return None
            source += 1
        high = digit_of(source[0])
        low = digit_of(source[1])
        if high < 0 or low < 0:
            return None
        id[at] = <unsigned char>(high << 4 | low)
        source += 2
    return PyBytes_FromStringAndSize(<char*>id, UUID_BYTES)


def time_of(bytes id not None) -> int:
    cdef const unsigned char* source = sixteen(id)
    cdef uint64_t time = 0
    cdef int at
    for at in range(6):
        time = time << 8 | source[at]
    return time


def floor_of(ms) -> bytes:
    cdef unsigned char[UUID_BYTES] id
    memset(id, 0, UUID_BYTES)
    write_time(id, checked(ms))
    return PyBytes_FromStringAndSize(<char*>id, UUID_BYTES)


def partition_of(bytes id not None) -> int:
    return sixteen(id)[15] & 15


cdef void write_time(unsigned char* target, uint64_t time) noexcept:
    cdef int at
    for at in range(6):
        target[at] = <unsigned char>(time >> (40 - 8 * at))


cdef int digit_of(unsigned char character) noexcept:
    if c"0" <= character <= c"9":
        return character - c"0"
    if c"a" <= character <= c"f":
        return character - c"a" + 10
    if c"A" <= character <= c"F":
        return character - c"A" + 10
    return -1


cdef uint64_t checked(ms) except? 0:
    cdef int overflow = 0
    cdef long long value = PyLong_AsLongLongAndOverflow(ms, &overflow)
    if overflow or value < 0 or value >= 1 << 48:
        raise ValueError("the time of an id has 48 bits")
    return value


cdef const unsigned char* sixteen(bytes id) except NULL:
    if PyBytes_GET_SIZE(id) != UUID_BYTES:
        raise ValueError("an id has 16 bytes")
    return <const unsigned char*>PyBytes_AS_STRING(id)
