"""The events of the stream of stock, of levels and of products: CloudEvents 1.0 in structured JSON, like those of
orders. Whoever encodes a change, however often, gets the same id and bytes.
"""

import zlib
from typing import Any

import msgspec

from core_ext.times import text_of
from gateway.domain.event_types import EVENT_TYPES, PARTITIONS, EventType
from gateway.domain.stock_keys import SEPARATOR
from persistence.nats.stream import Event
from persistence.postgres.levels import LevelChange
from persistence.postgres.product_events import ProductChange


def event_of(change: LevelChange, source: str) -> Event:
    """The event of a change of level; its id names the stock key, so a sale's stock has ids of its own."""
    sale_id, _, sku = change.sku.rpartition(SEPARATOR)
    data = {
        "sku": sku,
        **({"sale_id": sale_id} if sale_id else {}),
        "level": change.level,
        "previous_level": change.previous,
        "available": change.available,
        "version": change.version,
    }
    event_id = f"{change.sku.encode().hex()}.{change.version}"
    return _event(EVENT_TYPES[f"stock.{change.event}"], event_id, sku, change.version, change.at_ms, data, source)


def product_event_of(change: ProductChange, source: str) -> Event:
    """The event of a change of a product. The word in its id keeps it apart from the levels of the same SKU, whose ids
    have a number there.
    """
    data = {
        "sku": change.sku,
        "title": change.title,
        "price": change.price,
        "currency": change.currency,
        "stocked": change.stocked,
        "active": change.active,
        **({} if change.limit is None else {"limit": change.limit}),
        "version": change.version,
        "changed": change.changed,
    }
    event_id = f"{change.sku.encode().hex()}.product.{change.version}"
    kind = EVENT_TYPES["stock.product_changed"]
    return _event(kind, event_id, change.sku, change.version, change.at_ms, data, source)


def _event(
    kind: EventType, event_id: str, sku: str, version: int, at_ms: int, data: dict[str, Any], source: str
) -> Event:
    """The partition of its subject is the CRC-32 of the SKU's UTF-8 modulo 16: all that is said about a SKU, in
    whichever sale, comes to one consumer.
    """
    document = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": kind.type,
        "subject": sku,
        "time": text_of(at_ms),
        "datacontenttype": "application/json",
        "dataschema": kind.dataschema,
        "sequence": f"{version:010d}",
        "partitionkey": sku,
        "data": data,
    }
    partition = zlib.crc32(sku.encode()) % PARTITIONS
    return Event(kind.subject.format(partition=f"{partition:02d}"), event_id, msgspec.json.encode(document))
