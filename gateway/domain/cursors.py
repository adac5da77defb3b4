"""Cursors of lists: where the next page starts, opaque to the client and bound to the list, its filters and the
client by a keyed digest.

Pure: the digest is an argument. A cursor that was not made here for just this list is never accepted, so a position
needs no further check.
"""

import base64
import binascii
import hmac
from collections.abc import Callable

DIGEST_BYTES = 16
CURSOR_CHARS_MAX = 512  # of one that is read; none that is made here comes near

Digest = Callable[[bytes], bytes]


def encode_cursor(digest: Digest, binding: bytes, position: bytes) -> str:
    """The cursor of `position` in the list that `binding` names."""
    return base64.urlsafe_b64encode(_seal(digest, binding, position) + position).decode().rstrip("=")


def decode_cursor(digest: Digest, binding: bytes, cursor: str) -> bytes | None:
    """The position of a cursor; None when it was not made here for the list that `binding` names."""
    if len(cursor) > CURSOR_CHARS_MAX or not cursor.isascii():
        return None
    try:
        sealed = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except binascii.Error:
        return None
    position = sealed[DIGEST_BYTES:]
    return position if hmac.compare_digest(sealed[:DIGEST_BYTES], _seal(digest, binding, position)) else None


def _seal(digest: Digest, binding: bytes, position: bytes) -> bytes:
    # The length keeps the end of a binding from being read as the start of a position.
    sealed = digest(len(binding).to_bytes(4, "big") + binding + position)
    assert len(sealed) == DIGEST_BYTES
    return sealed
