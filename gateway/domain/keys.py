"""Idempotency keys: how a header is read, and the keyed hashes under which a key and a body are remembered.

A hash is keyed with a secret of the installation: the table of keys must not let anyone test guesses about bodies,
which hold names and addresses.
"""

import hashlib
import re

KEY_CHARS_MAX = 255
ORDERS_ROUTE = b"\x01"  # POST /v1/orders; a key's scope is the client and the route
ADJUSTMENTS_ROUTE = b"\x02"  # POST /v1/stock/{sku}/adjustments
HASH_BYTES = 16

_BARE = re.compile(rb"[\x21\x23-\x7e][\x21-\x7e]{0,254}")
_QUOTED = re.compile(rb'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255})"')
KEY_PATTERN = f"^({_BARE.pattern.decode()}|{_QUOTED.pattern.decode()})$"


def parse_key(header: bytes) -> bytes | None:
    """The key of an Idempotency-Key header, quoted (an RFC 8941 string) or bare, the same key either way; None when it
    is not 1 to 255 visible ASCII.
    """
    header = header.strip()
    if _BARE.fullmatch(header):
        return header
    quoted = _QUOTED.fullmatch(header)
    if quoted is None:
        return None
    return re.sub(rb"\\(.)", rb"\1", quoted.group(1))


class Hasher:
    """Keyed BLAKE2b, 16 bytes. Raises ValueError for a key that is not 32 bytes."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32:
            raise ValueError("the hash key has to be 32 bytes")
        self._key = hashlib.blake2b(digest_size=HASH_BYTES, key=secret, person=b"fg-key")
        self._body = hashlib.blake2b(digest_size=HASH_BYTES, key=secret, person=b"fg-body")

    def key_hash(self, client_id: int, key: bytes, route: bytes = ORDERS_ROUTE) -> bytes:
        """What stands for (client, route, key) in the ledger."""
        state = self._key.copy()
        state.update(client_id.to_bytes(4, "big") + route + key)
        return state.digest()

    def fingerprint(self, body: bytes) -> bytes:
        """What tells two bodies under one key apart: of the raw bytes, since a parsed form hides duplicate fields."""
        state = self._body.copy()
        state.update(body)
        return state.digest()
