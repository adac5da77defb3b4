"""Personal data at rest: the master keys, under the highest of which `core_ext.sealing` seals what is new, and under
any of which stored data is opened.

Deleting an order's wrapped key erases its data everywhere, backups of the orders included.
"""

import base64
import binascii

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core_ext import sealing
from core_ext.shapes import Personal, Sealed, ShipTo

FORMAT, NONCE_BYTES, KEY_BYTES = sealing.FORMAT, sealing.NONCE_BYTES, sealing.KEY_BYTES
PERSONAL_PURPOSE, WRAPPED_PURPOSE = sealing.PERSONAL_PURPOSE, sealing.WRAPPED_PURPOSE


class VaultError(ValueError):
    """The master keys cannot be used; the message says why."""


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
        version = max(master_keys)
        self.sealer = sealing.Sealer(master_keys[version], version)

    def seal(self, order_id: bytes, note: str | None, ship_to: ShipTo | None) -> Sealed | None:
        """None for an order without personal data."""
        return self.sealer.seal(order_id, note, ship_to)

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
