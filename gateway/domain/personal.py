"""Personal data at rest: `note` and `ship_to` of an order as AES-256-GCM ciphertext under a key of the order's own,
which a versioned master key wraps.

Deleting the wrapped key erases the data everywhere, backups of the orders included. The order's id is authenticated
with both, so ciphertexts and keys cannot be swapped between rows. Formats: `personal` = 0x01, nonce (12), ciphertext
and tag; `wrapped` = nonce (12), ciphertext (32), tag (16).
"""

import base64
import binascii
import os
from typing import NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core_ext.shapes import ShipTo

FORMAT = b"\x01"
NONCE_BYTES = 12
KEY_BYTES = 32
PERSONAL_PURPOSE = b"orders.personal|"
WRAPPED_PURPOSE = b"order_key.wrapped|"


class Sealed(NamedTuple):
    """What is stored: the ciphertext beside the order, the wrapped key in a table of its own."""

    personal: bytes
    master_version: int
    wrapped: bytes


class Personal(msgspec.Struct, omit_defaults=True):
    note: str | None = None
    ship_to: ShipTo | None = None


class VaultError(ValueError):
    """The master keys cannot be used; the message says why."""


_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder(Personal).decode


def parse_master_keys(text: str) -> dict[int, bytes]:
    """`1:base64 2:base64 …` as version -> key. Raises VaultError."""
    keys = {}
    for entry in text.split():
        version, _, encoded = entry.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise VaultError(f"master key {version} is not base64") from error
        if not version.isdecimal() or not 1 <= int(version) < 2**31 or len(key) != KEY_BYTES:
            raise VaultError("a master key is written as VERSION:BASE64 of 32 bytes")
        keys[int(version)] = key
    if not keys:
        raise VaultError("no master key: set secrets.master_keys")
    return keys


class Vault:
    """Seals under the highest master key and opens under any."""

    def __init__(self, master_keys: dict[int, bytes]) -> None:
        self._masters = {version: AESGCM(key) for version, key in master_keys.items()}
        self._version = max(master_keys)

    def seal(self, order_id: bytes, note: str | None, ship_to: ShipTo | None) -> Sealed | None:
        """None for an order without personal data."""
        if note is None and ship_to is None:
            return None
        noise = os.urandom(KEY_BYTES + 2 * NONCE_BYTES)
        key, nonce, wrap_nonce = noise[:KEY_BYTES], noise[KEY_BYTES:-NONCE_BYTES], noise[-NONCE_BYTES:]
        plain = _encoder.encode(Personal(note, ship_to))
        personal = FORMAT + nonce + AESGCM(key).encrypt(nonce, plain, PERSONAL_PURPOSE + order_id)
        wrapped = wrap_nonce + self._masters[self._version].encrypt(wrap_nonce, key, WRAPPED_PURPOSE + order_id)
        return Sealed(personal, self._version, wrapped)

    def open(self, order_id: bytes, sealed: Sealed) -> Personal:
        """Raises VaultError when the master key is missing or anything was changed."""
        master = self._masters.get(sealed.master_version)
        if master is None:
            raise VaultError(f"master key {sealed.master_version} is missing")
        if sealed.personal[:1] != FORMAT:
            raise VaultError("the personal data has a format that this version does not know")
        try:
            key = master.decrypt(sealed.wrapped[:NONCE_BYTES], sealed.wrapped[NONCE_BYTES:], WRAPPED_PURPOSE + order_id)
            nonce, secret = sealed.personal[1 : 1 + NONCE_BYTES], sealed.personal[1 + NONCE_BYTES :]
            return _decode(AESGCM(key).decrypt(nonce, secret, PERSONAL_PURPOSE + order_id))
        except InvalidTag as error:
            raise VaultError("the personal data or its key was changed") from error
