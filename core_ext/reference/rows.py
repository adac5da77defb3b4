"""Rows of PostgreSQL's binary COPY (PostgreSQL manual, COPY, "Binary Format"): big-endian, a count of fields, then each
length and value.

A COPY is HEADER, rows, TRAILER. The fields stand in the order of the column tuples, which the COPY statement has to
name. A value that the column's type cannot hold raises OverflowError here, before a transaction could fail on it.
"""

from core_ext.shapes import Change, Line, Order
from core_ext.times import checked

__all__ = [
    "HEADER",
    "HISTORY_COLUMNS",
    "KEY_COLUMNS",
    "LINE_COLUMNS",
    "ORDER_COLUMNS",
    "PIECE_LINES_MAX",
    "TRAILER",
    "history_row",
    "key_row",
    "line_rows",
    "order_row",
]

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(4) + bytes(4)  # signature, flags, length of the header's extension
TRAILER = b"\xff\xff"

# fmt: off
ORDER_COLUMNS = (
    "order_id", "client_id", "channel", "currency", "customer_id", "external_id", "sale_id", "status", "version",
    "total", "metadata", "adjustments", "placed_at", "paid_reference", "paid_at", "personal", "created_at",
    "expires_at",
)
LINE_COLUMNS = ("order_id", "line", "sku", "title", "quantity", "unit_price", "amount", "stocked", "limited")
HISTORY_COLUMNS = (
    "order_id", "version", "at", "event", "status", "previous_status", "actor", "reason", "changed", "traceparent",
)
KEY_COLUMNS = ("order_id", "master_version", "wrapped")
# fmt: on

# A row of order_lines has at most 64 x 4 bytes of SKU, 200 x 4 of title and 76 of the rest, with lengths; so many of
# them stay well under the 512 KiB of one COPY, and are handed on in one piece.
PIECE_LINES_MAX = 250

POSTGRES_EPOCH_MS = 946_684_800_000  # 2000-01-01T00:00:00Z; a timestamptz counts microseconds from there
TEXT_OID = 25
NULL = b"\xff\xff\xff\xff"


def order_row(order: Order, personal: bytes | None) -> bytes:
    """The row of `orders`; `personal` is the ciphertext of what stands in `note` and `ship_to`."""
    return _row(
        _uuid(order.id),
        _int4(order.client_id),
        _text(order.channel),
        _text(order.currency),
        _text(order.customer_id),
        _text(order.external_id),
        _text(order.sale_id),
        _text(order.status),
        _int4(order.version),
        _int8(order.total),
        _bytes(order.metadata),
        _bytes(order.adjustments),
        _time(order.placed_at),
        _text(order.paid_reference),
        _time(order.paid_at),
        _bytes(personal),
        _time(order.created_at),
        _time(order.expires_at),
    )


def line_rows(order: Order) -> bytes:
    """The rows of `order_lines`, all of them, joined."""
    return b"".join(_line_row(order.id, line) for line in order.lines)


def history_row(order_id: bytes, change: Change) -> bytes:
    """The row of `order_history`."""
    return _row(
        _uuid(order_id),
        _int4(change.version),
        _time(change.at),
        _text(change.event),
        _text(change.status),
        _text(change.previous_status),
        _text(change.actor),
        _text(change.reason),
        _texts(change.changed),
        _text(change.traceparent),
    )


def key_row(order_id: bytes, master_version: int, wrapped: bytes) -> bytes:
    """The row of `order_key`."""
    return _row(_uuid(order_id), _int4(master_version), _bytes(wrapped))


def _line_row(order_id: bytes, line: Line) -> bytes:
    return _row(
        _uuid(order_id),
        _int4(line.line),
        _text(line.sku),
        _text(line.title),
        _int4(line.quantity),
        _int8(line.unit_price),
        _int8(line.amount),
        _bool(line.stocked),
        _bool(line.limited),
    )


def _row(*fields: bytes) -> bytes:
    return len(fields).to_bytes(2, "big") + b"".join(fields)


def _bytes(value: bytes | None) -> bytes:
    return NULL if value is None else len(value).to_bytes(4, "big") + value


def _bool(value: bool) -> bytes:  # noqa: FBT001 - a field like the others
    return _bytes(b"\1" if value else b"\0")


def _text(value: str | None) -> bytes:
    return _bytes(None if value is None else value.encode())


def _uuid(value: bytes) -> bytes:
    assert len(value) == 16
    return _bytes(value)


def _int4(value: int) -> bytes:
    return _bytes(value.to_bytes(4, "big", signed=True))


def _int8(value: int) -> bytes:
    return _bytes(value.to_bytes(8, "big", signed=True))


def _time(ms: int | None) -> bytes:
    return NULL if ms is None else _int8((checked(ms) - POSTGRES_EPOCH_MS) * 1000)


def _texts(values: tuple[str, ...]) -> bytes:
    """A text[]: dimensions, has-nulls flag, type of the elements; then for its one dimension length and lower bound;
    then the elements.
    """
    head = [1 if values else 0, 0, TEXT_OID, *([len(values), 1] if values else [])]
    return _bytes(b"".join(number.to_bytes(4, "big") for number in head) + b"".join(map(_text, values)))
