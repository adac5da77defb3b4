"""Order ids: UUIDv7, RFC 9562 section 5.7, as 16 bytes. Their time picks the partition of the ledger, so it is an
argument and never the clock's.

Two processes must never draw the same random bits: the pool is dropped in a forked child. (A prototype filled it
before the fork, and both children made equal ids, 2026-11.)
"""

import os
import re

__all__ = ["floor_of", "format_id", "new_id", "parse_id", "partition_of", "time_of"]

MS_MAX = 2**48 - 1
POOL_BYTES = 4096
RANDOM_BYTES = 10  # 80 bits, of which 74 are used
CANONICAL = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

# Pieces of random bytes, the next one last: pop() is one step, so no two threads get the same piece.
_pool: list[bytes] = []

os.register_at_fork(after_in_child=_pool.clear)


def new_id(ms: int) -> bytes:
    """A new id of the instant `ms`, in milliseconds since 1970: ValueError outside of 0 to 2**48-1."""
    time = _checked(ms)
    random = int.from_bytes(_draw(), "big")
    random_a, random_b = random >> 64 & 0xFFF, random & (1 << 62) - 1
    return (time << 80 | 7 << 76 | random_a << 64 | 0b10 << 62 | random_b).to_bytes(16, "big")


def format_id(id: bytes) -> str:  # noqa: A002 - the word of the field
    """The canonical text in lower case. ValueError unless `id` has 16 bytes."""
    digits = _sixteen(id).hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse_id(text: str) -> bytes | None:
    """The id of a canonical text (8-4-4-4-12 hexadecimal digits, either case, any UUID version); None for any other
    text.
    """
    return bytes.fromhex(text.replace("-", "")) if CANONICAL.fullmatch(text) else None


def time_of(id: bytes) -> int:  # noqa: A002 - the word of the field
    """The instant of an id, in milliseconds since 1970."""
    return int.from_bytes(_sixteen(id)[:6], "big")


def floor_of(ms: int) -> bytes:
    """The lowest 16 bytes of an instant: every id of `ms` or later is greater. ValueError outside of 0 to 2**48-1."""
    return _checked(ms).to_bytes(6, "big") + bytes(10)


def partition_of(id: bytes) -> int:  # noqa: A002 - the word of the field
    """The partition of the event stream, 0 to 15."""
    return _sixteen(id)[15] & 15


def _draw() -> bytes:
    while True:
        try:
            return _pool.pop()
        except IndexError:
            block = os.urandom(POOL_BYTES)
            pieces = [block[at : at + RANDOM_BYTES] for at in range(0, POOL_BYTES - RANDOM_BYTES + 1, RANDOM_BYTES)]
            _pool.extend(reversed(pieces))


def _checked(ms: int) -> int:
    if not 0 <= ms <= MS_MAX:
        raise ValueError("the time of an id has 48 bits")
    return ms


def _sixteen(id: bytes) -> bytes:  # noqa: A002 - the word of the field
    if len(id) != 16:
        raise ValueError("an id has 16 bytes")
    return id
