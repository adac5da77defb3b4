"""What the event of a new order carries beside its payload, in headers, so that a ledger that was restored from a
backup can take the order back as it was: the key under which a retry comes, the client, and which lines hold units.

Nothing here is secret or personal: the key and the body stand there as keyed hashes.
"""

from collections.abc import Mapping

from msgspec import Struct

from core_ext.shapes import Line, Order

KEY_HEADER = "Floodgate-Key"  # <hash of the key>.<fingerprint of the body>, in hex
ORDER_HEADER = "Floodgate-Order"  # <client id>.<a digit for each line, one digit where all are the same>
STOCKED, LIMITED = 1, 2  # a line's digit is the sum of what it is


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
    flags = "".join([_digit(line) for line in order.lines])
    if flags == flags[0] * len(flags):
        flags = flags[0]
    headers = {ORDER_HEADER: f"{order.client_id}.{flags}"}
    if key is not None:
        headers[KEY_HEADER] = f"{key[0].hex()}.{key[1].hex()}"
    return headers


def read_headers(headers: Mapping[str, str], lines: int) -> Recall:
    """What the headers of an event of an order with so many lines say. What is not as it should be says nothing."""
    client, _, flags = headers.get(ORDER_HEADER, "").partition(".")
    key_hash, _, fingerprint = headers.get(KEY_HEADER, "").partition(".")
    return Recall(
        key=(bytes.fromhex(key_hash), bytes.fromhex(fingerprint)) if _is_hash(key_hash, fingerprint) else None,
        client_id=int(client) if client.isdecimal() and client.isascii() else None,
        flags=flags if len(flags) in (1, lines) and set(flags) <= set("0123") else "",
    )


def _digit(line: Line) -> str:
    return "0123"[STOCKED * line.stocked + LIMITED * line.limited]


def _is_hash(*texts: str) -> bool:
    return all(len(text) == 32 and set(text) <= set("0123456789abcdef") for text in texts)
