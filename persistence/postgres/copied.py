"""Rows in binary COPY form that have been encoded already: taken apart into their columns, and changed where time or
fate has overtaken them. What is not named stays byte for byte.

A row of the format is the count of its columns (2 bytes), then for each the length of its value (4 bytes, -1 for NULL)
and the value. Source: PostgreSQL's documentation of COPY, "Binary Format".
"""

import struct
from collections.abc import Mapping, Sequence

from persistence.postgres.orders import HISTORY, ORDER

_ORDER = {name: at for at, name in enumerate(ORDER.split(", "))}
_HISTORY = {name: at for at, name in enumerate(HISTORY.split(", "))}
_US_PER_MS = 1000

Columns = list[bytes | None]


def split(row: bytes) -> Columns:
    """The columns of one row, None for NULL. Raises ValueError for bytes that are no row."""
    columns: Columns = []
    at = 2
    try:
        for _ in range(int.from_bytes(row[:2], "big")):
            (length,) = struct.unpack_from(">i", row, at)
            at += 4
            columns.append(None if length < 0 else row[at : at + length])
            at += max(length, 0)
    except struct.error as error:
        raise ValueError("a row that ends early") from error
    if at != len(row) or not columns:
        raise ValueError("not one row of binary COPY")
    return columns


def join(columns: Sequence[bytes | None]) -> bytes:
    """The row that has these columns."""
    pieces = [struct.pack(">h", len(columns))]
    for value in columns:
        pieces += (b"\xff\xff\xff\xff",) if value is None else (struct.pack(">i", len(value)), value)
    return b"".join(pieces)


def expiring_later(order_row: bytes, late_ms: int) -> bytes:
    """The row of an order that has as long to be paid from now on as it had when it was made, `late_ms` ago. Raises
    ValueError for bytes that are no such row.
    """
    columns = _row(order_row, _ORDER)
    expires_at = columns[_ORDER["expires_at"]]
    if expires_at is None or late_ms <= 0:
        return order_row
    columns[_ORDER["expires_at"]] = _moved(expires_at, late_ms)
    return join(columns)


def cancelled(order_row: bytes, history_row: bytes, at_ms: int, actor: str, reason: str) -> tuple[bytes, list[bytes]]:
    """The rows of a new order as they stand once it has been cancelled, `at_ms` after its creation: its own, and those
    of its history. Raises ValueError for bytes that are no such rows.
    """
    order, created = _row(order_row, _ORDER), _row(history_row, _HISTORY)
    status = order[_ORDER["status"]]
    order[_ORDER["status"]], order[_ORDER["version"]] = b"cancelled", _integer(2)
    change = list(created)
    change[_HISTORY["version"]] = _integer(2)
    change[_HISTORY["at"]] = _moved(created[_HISTORY["at"]] or b"", max(at_ms, 0))
    change[_HISTORY["event"]] = change[_HISTORY["status"]] = b"cancelled"
    change[_HISTORY["previous_status"]] = status
    change[_HISTORY["actor"]], change[_HISTORY["reason"]] = actor.encode(), reason.encode()
    change[_HISTORY["changed"]] = _texts(["status"])
    return join(order), [history_row, join(change)]


def _row(row: bytes, names: Mapping[str, int]) -> Columns:
    """The columns of a row of this table; an older or newer version's may have others."""
    columns = split(row)
    if len(columns) != len(names):
        raise ValueError(f"a row of {len(columns)} columns and not of {len(names)}")
    return columns


def _moved(time: bytes, by_ms: int) -> bytes:
    try:
        return struct.pack(">q", struct.unpack(">q", time)[0] + by_ms * _US_PER_MS)
    except struct.error as error:
        raise ValueError("a row whose time is none of PostgreSQL's") from error


def _integer(value: int) -> bytes:
    return struct.pack(">i", value)


def _texts(values: Sequence[str]) -> bytes:
    """An array of text with one dimension, as PostgreSQL's array_send writes it."""
    written = [value.encode() for value in values]
    header = struct.pack(">iiiii", 1, 0, 25, len(written), 1)
    return header + b"".join(struct.pack(">i", len(value)) + value for value in written)
