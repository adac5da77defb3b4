# Pieces of JSON text, as msgspec.json.encode writes them. Header only: each module compiles its own copy.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from core_ext.compiled.buffer cimport Buffer, claim, put, put_ascii
from core_ext.compiled.uuid_text cimport UUID_CHARS, write_uuid

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(str text, Py_ssize_t* count) except NULL
    bint PyUnicode_IS_COMPACT_ASCII(str text)
    int PyUnicode_KIND(str text)
    void* PyUnicode_DATA(str text)
    uint32_t PyUnicode_READ(int kind, const void* data, Py_ssize_t at) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(str text)

cdef enum:
    DIGITS_MAX = 20  # of a 64-bit integer
    DAY_MS = 86_400_000
    TIME_CHARS = 24


cdef inline int put_escape(Buffer* buffer, unsigned char character) except -1:
    cdef const char* digits = b"0123456789abcdef"
    cdef char* target
    if character == c'"':
        return put_ascii(buffer, b'\\"')
    if character == c"\\":
        return put_ascii(buffer, b"\\\\")
    if character == 8:
        return put_ascii(buffer, b"\\b")
    if character == 9:
        return put_ascii(buffer, b"\\t")
    if character == 10:
        return put_ascii(buffer, b"\\n")
    if character == 12:
        return put_ascii(buffer, b"\\f")
    if character == 13:
        return put_ascii(buffer, b"\\r")
    put_ascii(buffer, b"\\u00")
    target = claim(buffer, 2)
    target[0] = digits[character >> 4]
    target[1] = digits[character & 15]
    return 0


cdef inline Py_ssize_t plain_run(const unsigned char* source, Py_ssize_t count) noexcept:
    """How many bytes at the start need no escape. Eight at a time: the three terms are those of "has a byte less than"
    and "has a byte equal to" (Anderson, Bit Twiddling Hacks), of which a false alarm costs the slow loop and no more.
    """
    cdef uint64_t word, quotes, slashes
    cdef Py_ssize_t at = 0
    while count - at >= 8:
        memcpy(&word, source + at, 8)
        quotes = word ^ 0x2222222222222222u
        slashes = word ^ 0x5C5C5C5C5C5C5C5Cu
        if (
            ((word - 0x2020202020202020u) & ~word)
            | ((quotes - 0x0101010101010101u) & ~quotes)
            | ((slashes - 0x0101010101010101u) & ~slashes)
        ) & 0x8080808080808080u:
            break
        at += 8
    while at < count and source[at] >= 0x20 and source[at] != c'"' and source[at] != c"\\":
        at += 1
    return at


cdef inline int put_escaped_ascii(Buffer* buffer, const unsigned char* source, Py_ssize_t count) except -1:
    """Whole runs of plain bytes, and escapes between them."""
    cdef Py_ssize_t run = plain_run(source, count)
    put(buffer, <const char*>source, run)
    while run < count:
        put_escape(buffer, source[run])
        source += run + 1
        count -= run + 1
        run = plain_run(source, count)
        put(buffer, <const char*>source, run)
    return 0


cdef inline int put_escaped_wide(Buffer* buffer, str text) except -1:
    """As UTF-8, written at once: CPython's own would stay with the text as a second copy of it."""
    cdef int kind = PyUnicode_KIND(text)
    cdef const void* data = PyUnicode_DATA(text)
    cdef uint32_t character
    cdef Py_ssize_t at
    cdef char* target
    for at in range(PyUnicode_GET_LENGTH(text)):
        character = PyUnicode_READ(kind, data, at)
        if character >= 0x10000:
            target = claim(buffer, 4)
            target[0] = <char>(0xF0 | character >> 18)
            target[1] = <char>(0x80 | (character >> 12 & 0x3F))
            target[2] = <char>(0x80 | (character >> 6 & 0x3F))
            target[3] = <char>(0x80 | (character & 0x3F))
        elif character >= 0x800:
            if 0xD800 <= character <= 0xDFFF:
                PyUnicode_AsUTF8AndSize(text, NULL)  # Raises UnicodeEncodeError, in CPython's words.
            target = claim(buffer, 3)
            target[0] = <char>(0xE0 | character >> 12)
            target[1] = <char>(0x80 | (character >> 6 & 0x3F))
            target[2] = <char>(0x80 | (character & 0x3F))
        elif character >= 0x80:
            target = claim(buffer, 2)
            target[0] = <char>(0xC0 | character >> 6)
            target[1] = <char>(0x80 | (character & 0x3F))
        elif character < 0x20 or character == c'"' or character == c"\\":
            put_escape(buffer, <unsigned char>character)
        else:
            claim(buffer, 1)[0] = <char>character
    return 0


cdef inline int put_escaped(Buffer* buffer, str text) except -1:
    """Writes the inside of a string."""
    if text is None:
        raise TypeError("a text is required")
    if PyUnicode_IS_COMPACT_ASCII(text):
        return put_escaped_ascii(buffer, <const unsigned char*>PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text))
    return put_escaped_wide(buffer, text)


cdef inline int put_utf8(Buffer* buffer, str text) except -1:
    """Writes a text as it is."""
    cdef Py_ssize_t count
    cdef const char* source = PyUnicode_AsUTF8AndSize(text, &count)
    return put(buffer, source, count)


cdef inline int put_string(Buffer* buffer, str text) except -1:
    put_ascii(buffer, b'"')
    put_escaped(buffer, text)
    return put_ascii(buffer, b'"')


cdef inline int put_number(Buffer* buffer, int64_t number, int digits_min = 1) except -1:
    """Writes an integer, with leading zeros up to `digits_min`."""
    cdef char[DIGITS_MAX] digits
    cdef int at = DIGITS_MAX
    cdef uint64_t rest = <uint64_t>number
    if number < 0:
        rest = 0 - rest
        put_ascii(buffer, b"-")
    while rest or DIGITS_MAX - at < digits_min:
        at -= 1
        digits[at] = <char>(c"0" + rest % 10)
        rest //= 10
    return put(buffer, digits + at, DIGITS_MAX - at)


cdef inline int put_uuid_text(Buffer* buffer, const unsigned char* id) except -1:
    write_uuid(claim(buffer, UUID_CHARS), id)
    return 0


cdef inline char* write_digits(char* target, int number, int count, char separator) noexcept:
    """Writes `count` digits and the character after them; returns the place behind both."""
    cdef int at
    for at in range(count - 1, -1, -1):
        target[at] = <char>(c"0" + number % 10)
        number //= 10
    target[count] = separator
    return target + count + 1


cdef inline int put_time_text(Buffer* buffer, int64_t ms) except -1:
    """Writes `2026-11-23T01:02:03.456Z` without quotes; `ms` lies in the years 1 to 9999.

    The date is Howard Hinnant's civil_from_days: years begin in March, eras have 400 years, and all terms are
    positive from year 0 on.
    """
    cdef int64_t since_march_0 = ms + 719_468 * <int64_t>DAY_MS
    cdef int days = <int>(since_march_0 // DAY_MS)
    cdef int day_ms = <int>(since_march_0 % DAY_MS)
    cdef int era = days // 146_097
    cdef int day_of_era = days % 146_097
    cdef int year_of_era = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    cdef int day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef int month_from_march = (5 * day_of_year + 2) // 153
    cdef int day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    cdef int month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    cdef char* target = claim(buffer, TIME_CHARS)
    target = write_digits(target, era * 400 + year_of_era + (1 if month <= 2 else 0), 4, c"-")
    target = write_digits(target, month, 2, c"-")
    target = write_digits(target, day, 2, c"T")
    target = write_digits(target, day_ms // 3_600_000, 2, c":")
    target = write_digits(target, day_ms // 60_000 % 60, 2, c":")
    target = write_digits(target, day_ms // 1_000 % 60, 2, c".")
    write_digits(target, day_ms % 1_000, 3, c"Z")
    return 0
