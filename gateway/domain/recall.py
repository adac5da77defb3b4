"""What the event of a new order carries beside its payload, in headers, so that a ledger that was restored from a
backup can take the order back as it was: the key under which a retry comes, the client, and which lines hold units.

Nothing here is secret or personal: the key and the body stand there as keyed hashes.
"""

from collections.abc import Mapping

from msgspec import Struct

from core_ext import documents
from core_ext.shapes import Order

# What they look like: core_ext/reference/documents.py.
KEY_HEADER, ORDER_HEADER = documents.KEY_HEADER, documents.ORDER_HEADER
STOCKED, LIMITED = documents.STOCKED, documents.LIMITED


class Recall(Struct, frozen=True):
    """What the headers say; None and "" for what they do not."""

    key: tuple[bytes, bytes] | None = None  # hash and fingerprint
    client_id: int | None = None
    flags: str = ""

    def flags_of(self, line: int) -> int | None:
        """The digit of a line, counted from 1; None when nothing is known."""
        if not self.flags:
            return None
        return int(self.flags if len(self.flags) == 1 else self.flags[line - 1])


def headers_of(order: Order, key: tuple[bytes, bytes] | None) -> dict[str, str]:
    """The headers of the order's first event; `key` is None once it is forgotten."""
    key_hash, fingerprint = key or (None, None)
    return documents.created_headers(order.client_id, order.lines, key_hash, fingerprint)


def read_headers(headers: Mapping[str, str], lines: int) -> Recall:
    """What the headers of an event of an order with so many lines say. What is not as it should be says nothing."""
    client, _, flags = headers.get(ORDER_HEADER, "").partition(".")
    key_hash, _, fingerprint = headers.get(KEY_HEADER, "").partition(".")
    return Recall(
        key=(bytes.fromhex(key_hash), bytes.fromhex(fingerprint)) if _is_hash(key_hash, fingerprint) else None,
        client_id=int(client) if client.isdecimal() and client.isascii() else None,
        flags=flags if len(flags) in (1, lines) and set(flags) <= set("0123") else "",
    )


def _is_hash(*texts: str) -> bool:
    return all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in texts)
