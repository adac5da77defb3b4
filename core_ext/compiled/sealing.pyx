# cython: language_level=3
"""Personal data at rest, compiled: see core_ext/reference/sealing.py, which is the specification.

A new key per order makes `cryptography` build two Python objects and fetch its cipher anew, 2 us in all. The libcrypto
that CPython's own hashlib is linked with does the same in a quarter of it, called here by its stable interface of
version 3. It is loaded at run time, so no headers are needed; where it is missing, older, or does not pass a known
answer, the specification's way is taken.
"""

import os

from core_ext.reference import sealing as reference
from core_ext.reference.documents import PLAIN
from core_ext.reference.sealing import FORMAT, KEY_BYTES, NONCE_BYTES, NOISE_BYTES, PERSONAL_PURPOSE, WRAPPED_PURPOSE
from core_ext.shapes import Sealed

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.string cimport memcmp, memcpy, memset

from core_ext.compiled.buffer cimport Buffer, claim, close_buffer, open_buffer, put, put_ascii, taken
from core_ext.compiled.documents cimport put_ship_to
from core_ext.compiled.json_text cimport put_string

cdef extern from "dlfcn.h":
    void* dlopen(const char* name, int flags)
    void* dlsym(void* library, const char* name)
    int RTLD_NOW, RTLD_LOCAL

__all__ = ["FORMAT", "KEY_BYTES", "NONCE_BYTES", "PERSONAL_PURPOSE", "WAYS", "WRAPPED_PURPOSE", "Sealer"]

cdef enum:
    KEY = 32
    NONCE = 12
    TAG = 16
    ID = 16
    NOISE = KEY + 2 * NONCE
    POOL = 73 * NOISE  # just under 4 KiB
    GET_TAG = 0x10  # EVP_CTRL_AEAD_GET_TAG

assert (KEY, NONCE, NOISE) == (KEY_BYTES, NONCE_BYTES, NOISE_BYTES)

cdef struct Libcrypto:
    unsigned long (*version)() noexcept
    const void* (*aes_256_gcm)() noexcept
    void* (*new_context)() noexcept
    void (*free_context)(void*) noexcept
    int (*begin)(void*, const void*, void*, const unsigned char*, const unsigned char*) noexcept
    int (*update)(void*, unsigned char*, int*, const unsigned char*, int) noexcept
    int (*finish)(void*, unsigned char*, int*) noexcept
    int (*control)(void*, int, int, void*) noexcept

cdef Libcrypto libcrypto
cdef int PLAIN_VIEW = PLAIN
cdef bytes PERSONAL_START = PERSONAL_PURPOSE
cdef bytes WRAPPED_START = WRAPPED_PURPOSE
cdef unsigned char[POOL] pool
cdef Py_ssize_t pool_at = POOL


def _drop_pool():
    global pool_at
    pool_at = POOL


os.register_at_fork(after_in_child=_drop_pool)


cdef class Sealer:
    def __cinit__(self, bytes master_key not None, int master_version, str way=None):
        self._master = NULL
        self._own = NULL
        way = WAYS[0] if way is None else way
        if PyBytes_GET_SIZE(master_key) != KEY:
            raise ValueError("a master key has 32 bytes")
        if way not in WAYS:
            raise ValueError(f"AES-GCM cannot be had by way of {way}")
        self.master_version, self.way = master_version, way
        if way != "libcrypto":
            self._public = reference.Sealer(master_key, master_version)
            return
        self._master = context(<const unsigned char*>PyBytes_AS_STRING(master_key))
        self._own = context(NULL)

    def __dealloc__(self):
        if self._master != NULL:
            libcrypto.free_context(self._master)
        if self._own != NULL:
            libcrypto.free_context(self._own)

    def seal(self, bytes order_id not None, str note, ship_to):
        cdef Buffer personal, wrapped
        if note is None and ship_to is None:
            return None
        open_buffer(&personal)
        open_buffer(&wrapped)
        try:
            self.put_sealed(&personal, &wrapped, order_id, note, ship_to)
            return Sealed(taken(&personal), self.master_version, taken(&wrapped))
        finally:
            close_buffer(&personal)
            close_buffer(&wrapped)

    cdef int put_sealed(self, Buffer* personal, Buffer* wrapped, bytes order_id, str note, object ship_to) except -1:
        cdef unsigned char[NOISE] noise
        cdef Buffer plain
        if self._public is not None:
            sealed = self._public.seal(order_id, note, ship_to)
            put_bytes(personal, sealed.personal)
            return put_bytes(wrapped, sealed.wrapped)
        draw(noise)
        open_buffer(&plain)
        try:
            put_plain(&plain, note, ship_to)
            put_bytes(personal, FORMAT)
            put(personal, <const char*>noise + KEY, NONCE)
            encrypt(personal, self._own, noise, noise + KEY, PERSONAL_START, order_id, plain.data, plain.used)
        finally:
            close_buffer(&plain)
        put(wrapped, <const char*>noise + KEY + NONCE, NONCE)
        return encrypt(
            wrapped, self._master, NULL, noise + KEY + NONCE, WRAPPED_START, order_id, <const char*>noise, KEY
        )


cdef int put_plain(Buffer* plain, str note, object ship_to) except -1:
    """Writes the JSON of both, of which at least one is there."""
    if note is not None:
        put_ascii(plain, b'{"note":')
        put_string(plain, note)
    if ship_to is not None:
        put_ascii(plain, b'{"ship_to":' if note is None else b',"ship_to":')
        put_ship_to(plain, ship_to, PLAIN_VIEW)
    return put_ascii(plain, b"}")


cdef int put_bytes(Buffer* target, bytes value) except -1:
    return put(target, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))


cdef int encrypt(
    Buffer* target,
    void* context,
    const unsigned char* key,
    const unsigned char* nonce,
    bytes purpose,
    bytes order_id,
    const char* plain,
    Py_ssize_t count,
) except -1:
    """Writes ciphertext and tag. Without a key, that of the last time is used."""
    cdef unsigned char[64] bound
    cdef Py_ssize_t purpose_bytes = PyBytes_GET_SIZE(purpose)
    cdef unsigned char* place
    cdef int written = 0
    if PyBytes_GET_SIZE(order_id) != ID:
        raise ValueError("an id has 16 bytes")
    memcpy(bound, PyBytes_AS_STRING(purpose), purpose_bytes)
    memcpy(bound + purpose_bytes, PyBytes_AS_STRING(order_id), ID)
    place = <unsigned char*>claim(target, count + TAG)
    if (
        libcrypto.begin(context, NULL, NULL, key, nonce) != 1
        or libcrypto.update(context, NULL, &written, bound, <int>purpose_bytes + ID) != 1
        or libcrypto.update(context, place, &written, <const unsigned char*>plain, <int>count) != 1
        or written != count
        or libcrypto.finish(context, place + count, &written) != 1
        or libcrypto.control(context, GET_TAG, TAG, place + count) != 1
    ):
        raise RuntimeError("libcrypto does not encrypt")
    return 0


cdef int draw(unsigned char* noise) except -1:
    """Random bytes that nobody else gets: nothing runs in between, and a forked child starts with an empty pool."""
    global pool_at
    cdef bytes drawn
    if pool_at + NOISE > POOL:
        drawn = os.urandom(POOL)
        memcpy(pool, PyBytes_AS_STRING(drawn), POOL)
        pool_at = 0
    memcpy(noise, pool + pool_at, NOISE)
    pool_at += NOISE
    return 0


cdef void* context(const unsigned char* key) except NULL:
    """A context of AES-256-GCM, with its key or still without one."""
    cdef void* made = libcrypto.new_context()
    if made == NULL:
        raise MemoryError
    if libcrypto.begin(made, libcrypto.aes_256_gcm(), NULL, key, NULL) != 1:
        libcrypto.free_context(made)
        raise RuntimeError("libcrypto has no AES-256-GCM")
    return made


cdef bint load() except -1:
    """Whether there is a libcrypto that can be used."""
    cdef void* library = dlopen(b"libcrypto.so.3", RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        return False
    libcrypto.version = <unsigned long (*)() noexcept>dlsym(library, b"OpenSSL_version_num")
    libcrypto.aes_256_gcm = <const void* (*)() noexcept>dlsym(library, b"EVP_aes_256_gcm")
    libcrypto.new_context = <void* (*)() noexcept>dlsym(library, b"EVP_CIPHER_CTX_new")
    libcrypto.free_context = <void (*)(void*) noexcept>dlsym(library, b"EVP_CIPHER_CTX_free")
    libcrypto.begin = <int (*)(void*, const void*, void*, const unsigned char*, const unsigned char*) noexcept>dlsym(
        library, b"EVP_EncryptInit_ex"
    )
    libcrypto.update = <int (*)(void*, unsigned char*, int*, const unsigned char*, int) noexcept>dlsym(
        library, b"EVP_EncryptUpdate"
    )
    libcrypto.finish = <int (*)(void*, unsigned char*, int*) noexcept>dlsym(library, b"EVP_EncryptFinal_ex")
    libcrypto.control = <int (*)(void*, int, int, void*) noexcept>dlsym(library, b"EVP_CIPHER_CTX_ctrl")
    if (
        libcrypto.version == NULL
        or libcrypto.aes_256_gcm == NULL
        or libcrypto.new_context == NULL
        or libcrypto.free_context == NULL
        or libcrypto.begin == NULL
        or libcrypto.update == NULL
        or libcrypto.finish == NULL
        or libcrypto.control == NULL
    ):
        return False
    return libcrypto.version() >> 28 == 3 and knows_the_answer()


cdef bint knows_the_answer() noexcept:
    """Test case 14 of the GCM specification (McGrew and Viega): key, nonce and one block of plain text all zeros."""
    cdef const char* answer = b"\xce\xa7\x40\x3d\x4d\x60\x6b\x6e\x07\x4e\xc5\xd3\xba\xf3\x9d\x18"
    cdef const char* tag = b"\xd0\xd1\xc8\xa7\x99\x99\x6b\xf0\x26\x5b\x98\xb5\xd4\x8a\xb9\x19"
    cdef unsigned char[KEY] zeros
    cdef unsigned char[2 * TAG] place
    cdef int written = 0
    cdef bint known
    cdef void* made = libcrypto.new_context()
    memset(zeros, 0, KEY)
    known = (
        made != NULL
        and libcrypto.begin(made, libcrypto.aes_256_gcm(), NULL, zeros, zeros) == 1
        and libcrypto.update(made, place, &written, zeros, TAG) == 1
        and libcrypto.finish(made, place + TAG, &written) == 1
        and libcrypto.control(made, GET_TAG, TAG, place + TAG) == 1
        and memcmp(place, answer, TAG) == 0
        and memcmp(place + TAG, tag, TAG) == 0
    )
    libcrypto.free_context(made)
    return known


WAYS = ("libcrypto", *reference.WAYS) if load() else reference.WAYS
