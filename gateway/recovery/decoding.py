"""Events turned back into what the ledger stores. Whatever an event says comes back exactly: encoded again from the
rows, it is the same bytes.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

from core_ext import documents, ids
from core_ext.shapes import Change, Line, Order
from core_ext.times import ms_of
from gateway.domain.event_types import ProductChanged, StockLevelChanged
from gateway.domain.recall import LIMITED, STOCKED, Recall, read_headers
from gateway.domain.stock_keys import stock_key
from persistence.postgres.recovery import Version, instant

CLIENT = "client:"  # how an actor's name starts that is a client
ABSENT = Raw()


class Item(Struct):
    line: int
    sku: str
    title: str
    quantity: int
    unit_price: int
    amount: int


class Paid(Struct):
    reference: str
    at: datetime | None = None


class OrderData(Struct):
    order_id: str
    status: str
    version: int
    channel: str
    currency: str
    total: int
    items: list[Item]
    created_at: datetime
    previous_status: str | None
    actor: str
    reason: str | None
    changed: tuple[str, ...]
    customer_id: str | None = None
    external_id: str | None = None
    sale_id: str | None = None
    adjustments: Raw = ABSENT
    metadata: Raw = ABSENT
    placed_at: datetime | None = None
    paid: Paid | None = None
    expires_at: datetime | None = None


class Envelope(Struct):
    """What is needed of a CloudEvent."""

    source: str
    type: str
    time: datetime
    data: Raw
    traceparent: str | None = None


_decode = msgspec.json.Decoder(Envelope).decode
_decode_order = msgspec.json.Decoder(OrderData).decode
_decode_level = msgspec.json.Decoder(StockLevelChanged).decode
_decode_product = msgspec.json.Decoder(ProductChanged).decode


class UnreadableError(Exception):
    """Not an event of a kind that this release knows."""


def read_order(payload: bytes, headers: Mapping[str, str]) -> tuple[Version, bool]:
    """A version of an order, and whether the ledger's rows will give the same bytes again. Raises UnreadableError."""
    envelope = _envelope(payload, "order")
    try:
        data = _decode_order(envelope.data)
        order_id = ids.parse_id(data.order_id)
        change = _change(envelope, data)
    except (msgspec.DecodeError, ValueError) as error:
        raise UnreadableError(str(error)) from error
    if order_id is None:
        raise UnreadableError(f"{data.order_id} is not the id of an order")
    recall = read_headers(headers, len(data.items))
    order = _order(order_id, data, recall)
    exact = documents.event_json(order, change, envelope.source) == payload
    return _version(order, change, recall), exact


def read_level(payload: bytes) -> tuple[str, int, str] | None:
    """(stock key, version, level) of an event of stock, None for one of something else. Raises UnreadableError."""
    envelope = _envelope(payload, "stock")
    if envelope.type.startswith("com.floodgate.stock.product_changed."):
        return None
    try:
        data = _decode_level(envelope.data)
    except msgspec.DecodeError as error:
        raise UnreadableError(str(error)) from error
    return stock_key(data.sale_id or None, data.sku), data.version, data.level


def read_product(payload: bytes) -> tuple[Any, ...]:
    """(SKU, version, title, price, currency, stocked, active, limit) of an event of a product. Raises
    UnreadableError.
    """
    try:
        data = _decode_product(_envelope(payload, "stock").data)
    except msgspec.DecodeError as error:
        raise UnreadableError(str(error)) from error
    limit = data.limit or None
    return data.sku, data.version, data.title, data.price, data.currency, data.stocked, data.active, limit


def _envelope(payload: bytes, what: str) -> Envelope:
    try:
        envelope = _decode(payload)
    except msgspec.DecodeError as error:
        raise UnreadableError(str(error)) from error
    if not (envelope.type.startswith(f"com.floodgate.{what}.") and envelope.type.endswith(".v1")):
        raise UnreadableError(f"events of type {envelope.type} are not known")
    return envelope


def _order(order_id: bytes, data: OrderData, recall: Recall) -> Order:
    return Order(
        id=order_id,
        client_id=recall.client_id or 0,
        channel=data.channel,
        currency=data.currency,
        status=data.status,
        version=data.version,
        total=data.total,
        lines=[
            Line(
                item.line,
                item.sku,
                item.title,
                item.quantity,
                item.unit_price,
                item.amount,
                stocked=bool((recall.flags_of(item.line) or 0) & STOCKED),
                limited=bool((recall.flags_of(item.line) or 0) & LIMITED),
            )
            for item in data.items
        ],
        created_at=ms_of(data.created_at),
        customer_id=data.customer_id,
        external_id=data.external_id,
        sale_id=data.sale_id,
        metadata=bytes(data.metadata) or None,
        adjustments=bytes(data.adjustments) or None,
        placed_at=_ms(data.placed_at),
        paid_reference=data.paid.reference if data.paid else None,
        paid_at=_ms(data.paid.at) if data.paid else None,
        expires_at=_ms(data.expires_at),
    )


def _change(envelope: Envelope, data: OrderData) -> Change:
    return Change(
        version=data.version,
        at=ms_of(envelope.time),
        event=envelope.type.split(".")[3],
        status=data.status,
        actor=data.actor,
        previous_status=data.previous_status,
        reason=data.reason,
        changed=data.changed,
        traceparent=envelope.traceparent,
    )


def _version(order: Order, change: Change, recall: Recall) -> Version:
    order_id = ids.format_id(order.id)
    fields = msgspec.structs.asdict(order)
    for name in ("id", "lines", "note", "ship_to"):
        del fields[name]
    for name in ("created_at", "placed_at", "paid_at", "expires_at"):
        fields[name] = instant(fields[name])
    for name in ("metadata", "adjustments"):
        fields[name] = fields[name].decode() if fields[name] is not None else None
    lines = [{"order_id": order_id} | msgspec.structs.asdict(line) for line in order.lines]
    if not recall.flags:
        lines = [{name: line[name] for name in line if name not in ("stocked", "limited")} for line in lines]
    history = {"order_id": order_id} | msgspec.structs.asdict(change)
    history["at"] = instant(change.at)
    history["changed"] = list(change.changed)
    client = change.actor.removeprefix(CLIENT) if change.actor.startswith(CLIENT) else ""
    return Version(
        order.id,
        change.version,
        fields | {"order_id": order_id},
        lines,
        history,
        client,
        recall.client_id,
        recall.key,
    )


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else ms_of(moment)
