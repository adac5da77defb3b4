"""Personal data at rest: `note` and `ship_to` of an order as AES-256-GCM ciphertext under a key of the order's own,
which a versioned master key wraps.

The order's id is authenticated with both, so ciphertexts and keys cannot be swapped between rows. Formats: `personal`
= 0x01, nonce (12), ciphertext and tag (16); `wrapped` = nonce (12), ciphertext (32), tag (16). The plain text is the
JSON of core_ext.shapes.Personal.
"""

import os

import msgspec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core_ext.shapes import Personal, Sealed, ShipTo

__all__ = ["FORMAT", "KEY_BYTES", "NONCE_BYTES", "PERSONAL_PURPOSE", "WAYS", "WRAPPED_PURPOSE", "Sealer"]

FORMAT = b"\x01"
NONCE_BYTES = 12
KEY_BYTES = 32
NOISE_BYTES = KEY_BYTES + 2 * NONCE_BYTES  # of one order: its key, the nonce of its data, the nonce of the wrapping
PERSONAL_PURPOSE = b"orders.personal|"
WRAPPED_PURPOSE = b"order_key.wrapped|"
WAYS = ("cryptography",)  # by which AES-GCM can be had in this process, the best first


class Sealer:
    """Seals under one master key of 32 bytes, by one of WAYS. ValueError for another length or way."""

    def __init__(self, master_key: bytes, master_version: int, way: str = WAYS[0]) -> None:
        if len(master_key) != KEY_BYTES:
            raise ValueError("a master key has 32 bytes")
        if way not in WAYS:
            raise ValueError(f"AES-GCM cannot be had by way of {way}")
        self.master_version, self.way = master_version, way
        self._master = AESGCM(master_key)

    def seal(self, order_id: bytes, note: str | None, ship_to: ShipTo | None) -> Sealed | None:
        """None for an order without personal data."""
        if note is None and ship_to is None:
            return None
        noise = os.urandom(NOISE_BYTES)
        key, nonce, wrap_nonce = noise[:KEY_BYTES], noise[KEY_BYTES:-NONCE_BYTES], noise[-NONCE_BYTES:]
        plain = msgspec.json.encode(Personal(note, ship_to))
        personal = FORMAT + nonce + AESGCM(key).encrypt(nonce, plain, PERSONAL_PURPOSE + order_id)
        wrapped = wrap_nonce + self._master.encrypt(wrap_nonce, key, WRAPPED_PURPOSE + order_id)
        return Sealed(personal, self.master_version, wrapped)
