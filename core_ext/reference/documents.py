"""The JSON of an order: what the buyer is answered and what the event stream carries, to the byte the same whoever
encodes it.

Compact UTF-8, strings escaped as msgspec does, times in UTC with three decimals. What the order does not have is left
out. Personal data is shown only on request (PLAIN); an event can never carry it.
"""

import msgspec

from core_ext.reference.ids import format_id, partition_of
from core_ext.shapes import Change, Line, Order, ShipTo
from core_ext.times import text_of

__all__ = [
    "KEY_HEADER",
    "LIMITED",
    "MASKED",
    "NONE",
    "ORDER_HEADER",
    "PLAIN",
    "STOCKED",
    "created_headers",
    "event_id",
    "event_json",
    "event_subject",
    "order_json",
]

NONE, MASKED, PLAIN = 0, 1, 2  # how personal fields are shown: left out, as MASK, as they are
MASK = "***"
KEY_HEADER = "Floodgate-Key"  # <hash of the key>.<fingerprint of the body>, in hex
ORDER_HEADER = "Floodgate-Order"  # <client id>.<a digit for each line, one digit where all are the same>
STOCKED, LIMITED = 1, 2  # a line's digit is the sum of what it is


def order_json(order: Order, personal: int) -> bytes:
    """The order as the HTTP interface shows it; `personal` is NONE, MASKED or PLAIN."""
    assert personal in (NONE, MASKED, PLAIN)
    return _object(_order_fields(order, order.status, order.version, personal))


def event_json(order: Order, change: Change, source: str) -> bytes:
    """A change of the order as a CloudEvent 1.0 in structured JSON. `data` shows the order with the status and
    version of the change.
    """
    order_id = format_id(order.id)
    data = {
        **_order_fields(order, change.status, change.version, NONE),
        "previous_status": _json(change.previous_status),
        "actor": _json(change.actor),
        "reason": _json(change.reason),
        "changed": _json(change.changed),
    }
    return _object(
        {
            "specversion": b'"1.0"',
            "id": _json(event_id(order.id, change.version)),
            "source": _json(source),
            "type": _json(f"com.floodgate.order.{change.event}.v1"),
            "subject": _json(order_id),
            "time": _time(change.at),
            "datacontenttype": b'"application/json"',
            "dataschema": _json(f"urn:floodgate:schema:order.{change.event}.v1"),
            "sequence": _json(f"{change.version:010d}"),
            "partitionkey": _json(order_id),
            "traceparent": _optional(change.traceparent),
            "data": _object(data),
        }
    )


def event_subject(order_id: bytes, event: str, channel: str) -> str:
    """The subject in the stream: `orders.<event>.<channel>.<partition, two digits>`."""
    return f"orders.{event}.{channel}.{partition_of(order_id):02d}"


def event_id(order_id: bytes, version: int) -> str:
    """The id of the event of that version: the same whoever sends it, however often."""
    return f"{format_id(order_id)}.{version}"


def created_headers(
    client_id: int, lines: list[Line], key_hash: bytes | None, fingerprint: bytes | None
) -> dict[str, str]:
    """The headers of an order's first event, from which a restored ledger takes the order back; no KEY_HEADER once
    the key is forgotten (both hashes None).
    """
    flags = "".join([str(STOCKED * line.stocked + LIMITED * line.limited) for line in lines])
    if flags == flags[:1] * len(flags):
        flags = flags[:1]
    headers = {ORDER_HEADER: f"{client_id}.{flags}"}
    if key_hash is not None and fingerprint is not None:
        headers[KEY_HEADER] = f"{key_hash.hex()}.{fingerprint.hex()}"
    return headers


def _order_fields(order: Order, status: str, version: int, personal: int) -> dict[str, bytes | None]:
    return {
        "order_id": _json(format_id(order.id)),
        "status": _json(status),
        "version": _json(version),
        "channel": _json(order.channel),
        "currency": _json(order.currency),
        "customer_id": _optional(order.customer_id),
        "external_id": _optional(order.external_id),
        "sale_id": _optional(order.sale_id),
        "total": _json(order.total),
        "items": b"[" + b",".join(_line(line) for line in order.lines) + b"]",
        "adjustments": order.adjustments,
        "metadata": order.metadata,
        "placed_at": _time(order.placed_at),
        "paid": _paid(order),
        "note": _personal(order.note, personal),
        "ship_to": _ship_to(order.ship_to, personal),
        "created_at": _time(order.created_at),
        "expires_at": _time(order.expires_at),
    }


def _line(line: Line) -> bytes:
    fields = ("line", "sku", "title", "quantity", "unit_price", "amount")
    return _object({field: _json(getattr(line, field)) for field in fields})


def _paid(order: Order) -> bytes | None:
    if order.paid_reference is None:
        return None
    return _object({"reference": _json(order.paid_reference), "at": _time(order.paid_at)})


def _personal(text: str | None, personal: int) -> bytes | None:
    if text is None or personal == NONE:
        return None
    return _json(text if personal == PLAIN else MASK)


def _ship_to(ship_to: ShipTo | None, personal: int) -> bytes | None:
    if ship_to is None or personal == NONE:
        return None
    return _object({field: _personal(getattr(ship_to, field), personal) for field in ShipTo.__struct_fields__})


def _object(fields: dict[str, bytes | None]) -> bytes:
    """An object of values that are JSON already; those that are None are left out."""
    return (
        b"{"
        + b",".join(b'"%s":%s' % (name.encode(), value) for name, value in fields.items() if value is not None)
        + b"}"
    )


def _time(ms: int | None) -> bytes | None:
    return None if ms is None else _json(text_of(ms))


def _optional(text: str | None) -> bytes | None:
    return None if text is None else _json(text)


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
