"""The mirror of the ledger's shared counters in Redis: a shield, which says whether asking the ledger is worth it, and
the bell.

Nothing is ever decided on its word: a lost push is mended by the next, what is there is at most TTL_MS old, and Redis
wrong, late, empty, failed over or gone raises MirrorUnavailableError and nothing else. The keys of a SKU stand in one
slot of a cluster. No personal data, ever.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from persistence.errors import MirrorUnavailableError
from persistence.redis.bell import Listener, Ring, ring_command
from persistence.redis.client import Client, Script
from persistence.redis.node import Command, Reply

__all__ = ["Mirror", "Pool", "Ring", "Shard"]

TIMEOUT_S = 0.25
TTL_MS = 5000  # how long what was pushed of a shard is good for
AVAILABLE_MS = 1000  # how long what the ledger said is available is good for
# Of one pipeline: SKUs or rings, and shards. More go one pipeline after the other, each with a time-out of its own. A
# server is busy with 2,000 shards for about 15 ms (2026-11-23).
CALL_MAX = 500
SHARDS_MAX = 2000

T = TypeVar("T")

PUSH = Script.load("push.lua")
PUSH_AVAILABLE = Script.load("push_available.lua")


class Shard(NamedTuple):
    """A shard as a statement of the ledger left it: units nobody has, and the version, which only rises."""

    sku: str
    shard: int
    free: int
    version: int


class Pool(NamedTuple):
    """The shards of a SKU together. `available` is `free` and what is unsold in hands, None unless the ledger has said
    so within AVAILABLE_MS.
    """

    free: int
    version: int
    available: int | None


class Mirror:
    """Safe with concurrent callers; a call takes at most `timeout_s` for each pipeline. After a failure calls fail at
    once for a short pause, per server: in a cluster the SKUs of the other nodes go on. Nothing is sent twice.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, now_s: Callable[[], float] = time.monotonic) -> None:
        """`url` is redis:// or rediss://, of a server or of any node of a cluster; ValueError when it is neither.
        Nothing is connected before it is needed. `now_s` counts seconds, for the pauses.
        """
        self._client = Client(url, timeout_s, now_s)
        self._listener = Listener(self._client)
        self._connected = False

    @property
    def connected(self) -> bool:
        """Whether the last call reached every server it had to, and was refused by none."""
        return self._connected

    @property
    def listening(self) -> bool:
        """Whether the bell is heard now."""
        return self._listener.listening

    @property
    def malformed(self) -> int:
        """Messages on the bell's channel that were no rings."""
        return self._listener.malformed

    async def close(self) -> None:
        """Close the connections. `listen` is ended by its caller."""
        await self._client.close()

    async def push(self, shards: Sequence[Shard]) -> None:
        """Tell what shards hold, all or some of a SKU's; the higher version of each stays, whatever comes when. A SKU
        lives until TTL_MS after its shard that was told about longest ago: telling a version again keeps it alive.
        Raises MirrorUnavailableError when some have not been confirmed; the others are stored.
        """
        replies: list[Reply] = []
        for part in _parts(shards, SHARDS_MAX):
            told: dict[str, list[int]] = {}
            for sku, shard, free, version in part:
                assert min(shard, free, version) >= 0
                told.setdefault(sku, []).extend((shard, free, version))
            replies += await self._tell(PUSH, told)
        _raise_first(replies)

    async def push_available(self, found: Mapping[str, int], at_ms: int) -> None:
        """Tell how many units are available, as the ledger said at `at_ms` of its time; the later time stays. It keeps
        no SKU alive, and a SKU is not read before its shards have been told. Raises as `push`.
        """
        assert min(found.values(), default=0) >= 0
        _raise_first(await self._tell(PUSH_AVAILABLE, {sku: (units, at_ms) for sku, units in found.items()}))

    async def read(self, skus: Sequence[str], now_ms: int) -> dict[str, Pool]:
        """Those that are there and whole: a SKU is left out while a shard below the highest one told is missing, or the
        server that has it does not answer. Raises MirrorUnavailableError when none does. `now_ms` is the ledger's time.
        """
        pools: dict[str, Pool] = {}
        for names in _parts(list(dict.fromkeys(skus))):
            keys = [_key(sku) for sku in names]
            replies = await self._run(keys, [("HMGET", key, "pool", "available") for key in keys])
            errors = [reply for reply in replies if isinstance(reply, Exception)]
            if len(errors) == len(replies):
                raise MirrorUnavailableError(f"nothing could be read: {errors[0]}") from errors[0]
            found = ((sku, _pool(reply, now_ms)) for sku, reply in zip(names, replies, strict=True))
            pools.update((sku, pool) for sku, pool in found if pool is not None)
        return pools

    async def ring(self, rings: Sequence[Ring]) -> None:
        """Call all who listen, whichever server they listen to. Raises MirrorUnavailableError when it is not known
        whether all calls went out.
        """
        for part in _parts(rings):
            _raise_first(await self._noting(self._client.run_anywhere([ring_command(ring) for ring in part])))

    async def listen(self, heard: Callable[[Ring], None]) -> None:
        """Tell `heard` of every call until cancelled, through whatever happens to the servers. Called once. A call that
        is made while `listening` is false is not heard.
        """
        await self._listener.run(heard)

    async def _tell(self, script: Script, told: Mapping[str, Sequence[int]]) -> list[Reply]:
        replies: list[Reply] = []
        for names in _parts(list(told)):
            keys = [_key(sku) for sku in names]
            calls: list[Command] = [
                ("EVALSHA", script.digest, 1, key, TTL_MS, *told[sku]) for sku, key in zip(names, keys, strict=True)
            ]
            replies += await self._run(keys, calls, script)
        return replies

    async def _run(
        self, keys: Sequence[bytes], commands: Sequence[Command], script: Script | None = None
    ) -> list[Reply]:
        return await self._noting(self._client.run(keys, commands, script))

    async def _noting(self, call: Awaitable[list[Reply]]) -> list[Reply]:
        try:
            replies = await call
        except MirrorUnavailableError:
            self._connected = False
            raise
        self._connected = not any(isinstance(reply, Exception) for reply in replies)
        return replies


def _key(sku: str) -> bytes:
    """The SKU in hex, since it may hold any character; in braces, which name what a cluster puts in one slot."""
    return b"fg:{%b}" % sku.encode().hex().encode()


def _parts(things: Sequence[T], most: int = CALL_MAX) -> Iterator[Sequence[T]]:
    return (things[start : start + most] for start in range(0, len(things), most))


def _pool(reply: Reply, now_ms: int) -> Pool | None:
    """What push.lua and push_available.lua keep; None for what is not there, not whole, or not theirs."""
    try:
        pool, said = reply
        version, free = map(int, pool.split())
        at_ms, units = map(int, said.split()) if said is not None else (0, 0)
    except (TypeError, ValueError, AttributeError):
        return None
    if min(version, free, units) < 0:
        return None
    return Pool(free, version, units if abs(now_ms - at_ms) <= AVAILABLE_MS else None)


def _raise_first(replies: Sequence[Reply]) -> None:
    errors = [reply for reply in replies if isinstance(reply, Exception)]
    if errors:
        raise MirrorUnavailableError(f"{len(errors)} of {len(replies)} were not confirmed: {errors[0]}") from errors[0]
