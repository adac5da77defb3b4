"""The worker's end of the mirror: says what the shared counters are, and calls for units that are in other hands.

Nothing that is decided rests on it. A push that is lost is mended by the next one; a call that is lost is repeated by
whoever waits, and goes through the ledger when the mirror may be deaf.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import asyncpg

from persistence.errors import LedgerUnavailableError, MirrorUnavailableError
from persistence.postgres import stock
from persistence.postgres.session import Session
from persistence.redis.mirror import Mirror, Ring, Shard

PENDING_MAX = 10_000  # shards and calls that wait to be sent; what comes beyond that is dropped
BATCH_MAX = 500  # shards, and calls, of one sending


class Bell:
    """One per worker. Without a mirror only the ledger's bell rings."""

    def __init__(self, session: Session, mirror: Mirror | None) -> None:
        self._session = session
        self._mirror = mirror
        self._heard: Callable[[Ring], None] | None = None
        self._shards: dict[tuple[str, int], stock.Shard] = {}
        self._rings: dict[Ring, None] = {}
        self._filled = asyncio.Event()
        self._revision = -1
        self.dropped = 0

    @property
    def listening(self) -> bool:
        """Whether calls of others reach this worker by way of the mirror."""
        return self._mirror is not None and self._mirror.listening

    def attach(self, heard: Callable[[Ring], None]) -> None:
        """Name who is told what is heard."""
        self._heard = heard

    def push(self, shards: Sequence[stock.Shard]) -> None:
        """Shards as a statement has left them, for the mirror. Never waits."""
        if self._mirror is None:
            return
        for shard in shards:
            key = (shard.sku, shard.shard)
            known = self._shards.get(key)
            if known is None and len(self._shards) >= PENDING_MAX:
                self.dropped += 1
            elif known is None or known.version < shard.version:
                self._shards[key] = shard
                self._filled.set()

    def call(self, sku: str) -> None:
        """Ask all workers for what they have not promised of a SKU. Never waits."""
        self._ring(Ring("wanted", sku))

    def freed(self, sku: str) -> None:
        """Tell all workers that units of a SKU have become free. Never waits."""
        self._ring(Ring("freed", sku))

    async def call_by_ledger(self, skus: Sequence[str]) -> None:
        """As `call`, by way of the ledger, which everybody follows a few times a second."""
        with contextlib.suppress(LedgerUnavailableError):
            await stock.ring(self._session, skus)

    async def free(self, skus: Sequence[str], now_ms: int) -> dict[str, int]:
        """SKU -> free units, as far as the mirror knows."""
        if self._mirror is None or not skus:
            return {}
        try:
            return {sku: pool.free for sku, pool in (await self._mirror.read(skus, now_ms)).items()}
        except MirrorUnavailableError:
            return {}

    async def run(self) -> None:
        """Send what waits, until cancelled. What the mirror does not take is dropped."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._shards or self._rings:
                await self._send()

    async def listen(self) -> None:
        """Hear the calls of others until cancelled."""
        if self._mirror is not None:
            await self._mirror.listen(self._hear)

    async def load(self, connection: asyncpg.Connection) -> int:
        """Hear what has been called by way of the ledger. Calls from before the worker's start are of no use."""
        revision, skus = await stock.rung(connection, self._revision)
        if self._revision >= 0:
            for sku in skus:
                self._hear(Ring("wanted", sku))
        self._revision = revision
        return revision

    def _hear(self, ring: Ring) -> None:
        if self._heard is not None:
            self._heard(ring)

    def _ring(self, ring: Ring) -> None:
        if self._mirror is None:
            return
        if len(self._rings) >= PENDING_MAX:
            self.dropped += 1
            return
        self._rings[ring] = None
        self._filled.set()

    async def _send(self) -> None:
        assert self._mirror is not None
        shards = [self._shards.pop(key) for key in list(self._shards)[:BATCH_MAX]]
        rings = list(self._rings)[:BATCH_MAX]
        for ring in rings:
            del self._rings[ring]
        if shards:
            try:
                await self._mirror.push([Shard(*shard) for shard in shards])
            except MirrorUnavailableError:
                self.dropped += len(shards)
        if rings:
            try:
                await self._mirror.ring(rings)
            except MirrorUnavailableError:
                self.dropped += len(rings)
