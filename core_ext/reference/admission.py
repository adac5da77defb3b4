"""One pass over a new order: from what the client sent and what pricing made of it to all that is stored and told.

What it gives is what `rows` and `documents` give for the Order and the Change of its creation, to the byte; whoever
encodes the order again from the tables gets the same. The instant is an argument, the id is made here.
"""

import msgspec

from core_ext.reference import documents, ids, rows
from core_ext.reference.sealing import Sealer
from core_ext.shapes import Change, Order, OrderIn, Priced, Told, Written
from core_ext.times import ms_of

__all__ = ["CREATED", "PAID", "PENDING_PAYMENT", "tell", "write"]

CREATED = "created"  # the event
PENDING_PAYMENT, PAID = "pending_payment", "paid"  # the status that an order starts with


def write(
    order: OrderIn,
    priced: Priced,
    client_id: int,
    actor: str,
    now_ms: int,
    payment_ms: int,
    traceparent: str | None,
    sealer: Sealer,
) -> Written:
    """The rows of a new order, created at `now_ms`, that has to be paid within `payment_ms`. An order that says that it
    is paid, or costs nothing, is paid.
    """
    is_paid = order.paid is not None or priced.total == 0
    status, expires_at = (PAID, None) if is_paid else (PENDING_PAYMENT, now_ms + payment_ms)
    made = _order(order, priced, client_id, ids.new_id(now_ms), status, now_ms, expires_at)
    change = Change(1, now_ms, CREATED, status, actor, traceparent=traceparent)
    sealed = sealer.seal(made.id, order.note, order.ship_to)
    order_row = rows.order_row(made, sealed.personal if sealed else None)
    line_rows = _line_rows(made)
    history_row = rows.history_row(made.id, change)
    key_row = rows.key_row(made.id, sealed.master_version, sealed.wrapped) if sealed else b""
    size = sum(map(len, (order_row, *line_rows, history_row, key_row)))
    units = sum(line.quantity for line in priced.lines)
    return Written(made.id, status, expires_at, order_row, line_rows, history_row, key_row, size, units)


def tell(
    order: OrderIn,
    priced: Priced,
    written: Written,
    client_id: int,
    actor: str,
    now_ms: int,
    traceparent: str | None,
    source: str,
    key_hash: bytes,
    fingerprint: bytes,
    personal: int,
) -> Told:
    """What is told of an order that `write` has written with the same arguments: its event, for whoever listens, and
    the answer to its buyer, with personal fields as `personal` says (documents.MASKED or PLAIN).
    """
    made = _order(order, priced, client_id, written.order_id, written.status, now_ms, written.expires_at)
    change = Change(1, now_ms, CREATED, written.status, actor, traceparent=traceparent)
    return Told(
        documents.event_subject(made.id, CREATED, order.channel),
        documents.event_id(made.id, 1),
        documents.event_json(made, change, source),
        documents.created_headers(client_id, priced.lines, key_hash, fingerprint),
        documents.order_json(made, personal),
    )


def _order(
    order: OrderIn,
    priced: Priced,
    client_id: int,
    order_id: bytes,
    status: str,
    now_ms: int,
    expires_at: int | None,
) -> Order:
    paid = order.paid
    return Order(
        id=order_id,
        client_id=client_id,
        channel=order.channel,
        currency=order.currency,
        status=status,
        version=1,
        total=priced.total,
        lines=priced.lines,
        created_at=now_ms,
        customer_id=order.customer_id,
        external_id=order.external_id,
        sale_id=order.sale_id,
        metadata=None if order.metadata is None else msgspec.json.encode(order.metadata),
        adjustments=None if order.adjustments is None else msgspec.json.encode(order.adjustments),
        placed_at=None if order.placed_at is None else ms_of(order.placed_at),
        paid_reference=paid.reference if paid else None,
        paid_at=ms_of(paid.at) if paid and paid.at else None,
        expires_at=expires_at,
        note=order.note,
        ship_to=order.ship_to,
    )


def _line_rows(order: Order) -> list[bytes]:
    """The rows of the lines in pieces that the ledger may copy apart: one for nearly every order."""
    starts = range(0, len(order.lines), rows.PIECE_LINES_MAX)
    pieces = (order.lines[start : start + rows.PIECE_LINES_MAX] for start in starts)
    return [rows.line_rows(msgspec.structs.replace(order, lines=lines)) for lines in pieces]
