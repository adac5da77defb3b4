"""The bytes of PostgreSQL's extended protocol for one batch: prepared statements bound to binary arrays, and rows to
copy (PostgreSQL manual, "Message Formats" and "Extended Query").

Pure: it knows neither connection nor orders. A value that its type cannot hold raises EncodeError, before a byte is
sent.
"""

import struct
from collections.abc import Iterable, Sequence

UUID_OID, INT8_OID, TEXT_OID = 2950, 20, 25
UUID_LENGTHS = frozenset({16})
SYNC = b"S\x00\x00\x00\x04"
_EXECUTE = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"  # the unnamed portal, all rows
_COPY_DONE = b"c\x00\x00\x00\x04"
COPY_HEADER = bytes.fromhex("5047434f50590aff0d0a00") + bytes(8)
COPY_TRAILER = b"\xff\xff"
_ALL_BINARY = b"\x00\x01\x00\x01"  # one format for all parameters, and it is binary
_NO_FORMATS = b"\x00\x00"  # of results, which nobody reads
_INT8 = struct.Struct(">q")
_ARRAY = struct.Struct(">iiIii")  # dimensions, flags, type, length, lower bound


class EncodeError(Exception):
    """A value is none of its type."""


def call(statement: str, arguments: Sequence[bytes]) -> bytes:
    """Bind and Execute of a prepared statement; `arguments` as the functions below make them."""
    parts = [b"\x00", statement.encode(), b"\x00", _ALL_BINARY, len(arguments).to_bytes(2, "big")]
    for argument in arguments:
        parts += (len(argument).to_bytes(4, "big"), argument)
    parts.append(_NO_FORMATS)
    body = b"".join(parts)
    return b"".join((b"B", (len(body) + 4).to_bytes(4, "big"), body, _EXECUTE))


def copy(statement: str, rows: Iterable[bytes]) -> Sequence[bytes]:
    """The pieces of a COPY of these rows, by a prepared statement; none without rows."""
    pieces = [COPY_HEADER, *rows, COPY_TRAILER]
    if len(pieces) == 2:
        return ()
    size = sum(map(len, pieces))
    return (call(statement, ()), b"d", (size + 4).to_bytes(4, "big"), *pieces, _COPY_DONE)


def uuids(values: Sequence[bytes]) -> bytes:
    """A uuid[] of ids of 16 bytes."""
    if not UUID_LENGTHS.issuperset(map(len, values)):
        raise EncodeError("an id has 16 bytes")
    return _array(UUID_OID, len(values), b"\x00\x00\x00\x10".join((b"", *values)))


def int8s(values: Sequence[int]) -> bytes:
    """A bigint[]."""
    return _array(INT8_OID, len(values), b"\x00\x00\x00\x08".join((b"", *_packed(_INT8, values))))


def texts(values: Sequence[str]) -> bytes:
    """A text[]."""
    try:
        encoded = [value.encode() for value in values]
    except UnicodeEncodeError as error:
        raise EncodeError(str(error)) from error
    return _array(TEXT_OID, len(values), b"".join([len(one).to_bytes(4, "big") + one for one in encoded]))


def _packed(kind: struct.Struct, values: Sequence[int]) -> list[bytes]:
    try:
        return list(map(kind.pack, values))
    except struct.error as error:
        raise EncodeError(str(error)) from error


def _array(oid: int, count: int, elements: bytes) -> bytes:
    if not count:
        return _ARRAY.pack(0, 0, oid, 0, 0)[:12]
    return _ARRAY.pack(1, 0, oid, count, 1) + elements
