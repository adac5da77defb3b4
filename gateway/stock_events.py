"""The event of a change of a SKU's level: CloudEvents 1.0 in structured JSON, like those of orders. Whoever encodes a
change, however often, gets the same id and bytes.
"""

import zlib

import msgspec

from core_ext.times import text_of
from gateway.domain.stock_keys import SEPARATOR
from persistence.nats.stream import Event
from persistence.postgres.levels import LevelChange

PARTITIONS = 16


def event_of(change: LevelChange, source: str) -> Event:
    """The event and its subject, `stock.<event>.<partition>`. The partition is the CRC-32 of the SKU's UTF-8 modulo 16:
    all that is said about a SKU, in whichever sale, comes to one consumer.
    """
    sale_id, _, sku = change.sku.rpartition(SEPARATOR)
    event_id = f"{change.sku.encode().hex()}.{change.version}"
    data = {
        "sku": sku,
        **({"sale_id": sale_id} if sale_id else {}),
        "level": change.level,
        "previous_level": change.previous,
        "available": change.available,
        "version": change.version,
    }
    document = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": f"com.floodgate.stock.{change.event}.v1",
        "subject": sku,
        "time": text_of(change.at_ms),
        "datacontenttype": "application/json",
        "dataschema": f"urn:floodgate:schema:stock.{change.event}.v1",
        "sequence": f"{change.version:010d}",
        "partitionkey": sku,
        "data": data,
    }
    partition = zlib.crc32(sku.encode()) % PARTITIONS
    return Event(f"stock.{change.event}.{partition:02d}", event_id, msgspec.json.encode(document))
