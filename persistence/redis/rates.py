"""The common times of the rate limits in Redis: what each worker has let through is added, and how far the rate is used
up comes back.

Redis wrong, late, empty or gone raises MirrorUnavailableError and nothing else, and nothing is sent twice: a charge
whose answer did not come may or may not count. Keys name nobody: they are keyed hashes.
"""

import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from persistence.errors import MirrorUnavailableError
from persistence.redis.client import Client, Script
from persistence.redis.node import Command, Reply

TIMEOUT_S = 0.25
# All in one slot of a cluster, so that one call of the script charges many: 25 of them cost a worker 4.5 us each, 9 us
# when they are spread over 16 slots, and a server 3 us (2026-11-23). So it is busy for a tenth of its time when 30,000
# different customers order in a second.
PREFIX = b"fg:{rate}:"
CALL_KEYS_MAX = 200  # of one call, which keeps the server busy for less than a millisecond

GCRA = Script.load("gcra.lua")

_pack = struct.Struct("<ddd").pack


class Charge(NamedTuple):
    """`key`: the hash of a meter. In microseconds: what was charged, how long ago the first of it was, and how far
    ahead of now the time may get at most.
    """

    key: bytes
    charged_us: int
    age_us: int
    ahead_us_max: int


class RateStore:
    """Safe with concurrent callers; a call takes at most `timeout_s`. After a failure calls fail at once for a short
    pause.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, now_s: Callable[[], float] = time.monotonic) -> None:
        """`url` as that of Mirror; ValueError when it cannot be used. Nothing is connected before it is needed."""
        self._client = Client(url, timeout_s, now_s)

    async def aclose(self) -> None:
        await self._client.close()

    async def charge(self, charges: Sequence[Charge]) -> list[int | None]:
        """How far ahead of now each time is after its charge, in microseconds, negative where it has passed; None where
        no server has said so. Raises MirrorUnavailableError when none has said anything. There is at least one.
        """
        assert charges
        parts = [charges[start : start + CALL_KEYS_MAX] for start in range(0, len(charges), CALL_KEYS_MAX)]
        replies = await self._client.run([PREFIX] * len(parts), [_command(part) for part in parts], GCRA)
        ahead = [told for part, reply in zip(parts, replies, strict=True) for told in _told(reply, len(part))]
        if all(told is None for told in ahead):
            raise MirrorUnavailableError(f"nothing was charged: {replies[0]!r}")
        return ahead


def _command(charges: Sequence[Charge]) -> Command:
    numbers = b"".join([_pack(*charge[1:]) for charge in charges])
    return ("EVALSHA", GCRA.digest, len(charges), *[PREFIX + charge.key.hex().encode() for charge in charges], numbers)


def _told(reply: Reply, count: int) -> Sequence[int | None]:
    """What the script says; nothing where it failed or somebody else answers."""
    if isinstance(reply, list) and len(reply) == count and all(isinstance(told, int) for told in reply):
        return reply
    return [None] * count
