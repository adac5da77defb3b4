"""A Redis that is asked through the interface of `persistence.redis.mirror.Mirror`, and that loses pushes, forgets all,
goes back to an earlier state and is away. Nothing that is promised may depend on it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from persistence.errors import MirrorUnavailableError
from persistence.redis.mirror import TTL_MS, Mirror, Pool, Ring, Shard
from tests.simulation.guards import GUARDS
from tests.simulation.loop import PROCESS, Process

if TYPE_CHECKING:
    from tests.simulation.world import World

TIMEOUT_S = 0.25


class Kept(NamedTuple):
    free: int
    version: int
    at_s: float


class Redis:
    """The server: what it keeps of each SKU, by shard, and who listens."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.is_up = True
        self.pools: dict[str, dict[int, Kept]] = {}
        self.listeners: dict[Process, Callable[[Ring], None]] = {}
        self._before: dict[str, dict[int, Kept]] = {}
        self._told: dict[tuple[str, int], int] = {}  # the versions that were read, since it lost its memory

    def remember(self) -> None:
        """What a failover would go back to."""
        self._before = {sku: dict(pool) for sku, pool in self.pools.items()}

    def go_back(self) -> None:
        self.pools = {sku: dict(pool) for sku, pool in self._before.items()}
        self._told.clear()

    def forget(self) -> None:
        self.pools.clear()
        self._told.clear()

    def keep(self, sku: str, shard: int, kept: Kept) -> None:
        """The later state of a shard stays."""
        known = self.pools.setdefault(sku, {}).get(shard)
        if known is None or known.version <= kept.version or not GUARDS.mirror_version:
            self.pools[sku][shard] = kept

    def tell(self, sku: str) -> None:
        """A storefront looks all the time, and what it is told of a SKU is never older than what it was told before."""
        for shard, kept in self.pools[sku].items():
            if kept.version < self._told.get((sku, shard), 0):
                self.world.fail(f"the mirror tells of shard {shard} of {sku} what was so before")
            self._told[sku, shard] = kept.version

    async def answer(self, step: str) -> bool:
        """Wait for the server. False: it has done what was asked, and its answer was lost. Raises
        MirrorUnavailableError.
        """
        world = self.world
        await asyncio.sleep(0.0001 + 0.0005 * world.draw())
        fault = world.faults.draw(step)
        match fault:
            case None if self.is_up:
                return True
            case "empty":
                self.forget()
            case "stale":
                self.go_back()
            case "answer_lost":
                return False
            case "crash_before":
                await world.crash_here()
            case "stop_before":
                await world.stop_here()
            case _:
                await asyncio.sleep(TIMEOUT_S if world.draw() < 0.3 else 0.0)
                raise MirrorUnavailableError("Redis does not answer")
        return True


class SimulatedMirror(Mirror):
    """A worker's client. None of the real one's connections is made."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @property
    def connected(self) -> bool:
        return self._redis.is_up

    @property
    def listening(self) -> bool:
        return self._redis.is_up and PROCESS.get() in self._redis.listeners

    async def close(self) -> None:
        pass

    async def push(self, shards: Sequence[Shard]) -> None:
        known = await self._redis.answer("mirror_push")
        now_s = self._redis.world.loop.now
        for sku, shard, free, version in shards:
            self._redis.keep(sku, shard, Kept(free, version, now_s))
            self._redis.tell(sku)
        if not known:
            raise MirrorUnavailableError("the answer was lost")

    async def push_available(self, found: Mapping[str, int], at_ms: int) -> None:
        raise NotImplementedError  # Nobody in the simulation shows what is available.

    async def read(self, skus: Sequence[str], now_ms: int) -> dict[str, Pool]:  # noqa: ARG002 - the mirror's signature
        if not await self._redis.answer("mirror_read"):
            raise MirrorUnavailableError("the answer was lost")
        now_s = self._redis.world.loop.now
        pools = {}
        for sku in skus:
            kept = self._redis.pools.get(sku)
            if kept and min(one.at_s for one in kept.values()) > now_s - TTL_MS / 1000:
                free, version = sum(one.free for one in kept.values()), sum(one.version for one in kept.values())
                pools[sku] = Pool(free, version, None)
        return pools

    async def ring(self, rings: Sequence[Ring]) -> None:
        known = await self._redis.answer("mirror_ring")
        loop = self._redis.world.loop
        for process, heard in self._redis.listeners.items():
            for ring in rings:
                if self._redis.world.draw() < 0.97:
                    loop.call_later(0.0005, heard, ring, context=process.context)
        if not known:
            raise MirrorUnavailableError("the answer was lost")

    async def listen(self, heard: Callable[[Ring], None]) -> None:
        process = PROCESS.get()
        assert process is not None
        self._redis.listeners[process] = heard
        try:
            await asyncio.Event().wait()
        finally:
            self._redis.listeners.pop(process, None)
