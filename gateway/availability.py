"""Availability for storefronts, from this worker's memory: at most MAX_AGE_S old, however many ask.

The board remembers the SKUs that were asked for lately and looks after them in one loop: first in the mirror, then, for
all that it has no fresh word of, in the ledger with one query, of whose answer it tells the mirror for the other
workers. What is not fresh is never shown. Nothing is sold on what stands here.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
from msgspec import Struct

from gateway.clock import Clock
from persistence.errors import LedgerUnavailableError, MirrorUnavailableError
from persistence.postgres.connect import UNREACHABLE
from persistence.redis.mirror import AVAILABLE_MS, Mirror

MAX_AGE_S = 1.0
REFRESH_S = 0.3
YOUNG_S = 0.1  # what was learnt so lately is not asked for again
MIRROR_AGE_MS = 500  # what the mirror tells may be this old already
REMEMBER_S = 60.0  # a SKU that nobody has asked for so long is not looked after any more
KEYS_MAX = 10_000  # beyond them the one that was asked for longest ago is forgotten

# What comes from the mirror is still fresh when it is looked at again, and a refresh may take its time.
assert MIRROR_AGE_MS / 1000 + REFRESH_S + YOUNG_S < MAX_AGE_S
assert MIRROR_AGE_MS <= AVAILABLE_MS

Read = Callable[[Sequence[str]], Awaitable[dict[str, int]]]

log = structlog.get_logger("availability")


class Entry(Struct):
    """A stock key on the board, by the board's own clock. `units` None: there is no such stock."""

    asked_at: float
    learnt_at: float = float("-inf")
    good_until: float = float("-inf")
    units: int | None = None


class Board:
    """One per worker. `read` answers units from the ledger; keys here are stock keys."""

    def __init__(
        self, read: Read, mirror: Mirror | None, clock: Clock, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._mirror = mirror
        self._clock = clock
        self._now_s = now_s
        self._entries: dict[str, Entry] = {}
        self._wanted = asyncio.Event()
        self._turn = asyncio.Event()
        self._away_since: float | None = None

    async def units(self, keys: Sequence[str]) -> dict[str, int | None]:
        """Key -> unsold units, None where there is no such stock. A key that is new here waits for the next refresh.
        Raises LedgerUnavailableError when nothing fresh is to be had within MAX_AGE_S.
        """
        known = self._entries.keys() >= set(keys)
        self._remember(keys)
        if self._stale(keys):
            if known and self._is_away():
                raise LedgerUnavailableError("neither ledger nor mirror has told the availability")
            await self._wait(keys)
        return {key: self._entries[key].units for key in keys}

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH_S):
                    await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._refresh()
            finally:
                turn, self._turn = self._turn, asyncio.Event()
                turn.set()
            if self._away_since is not None:
                await asyncio.sleep(YOUNG_S)

    def _remember(self, keys: Iterable[str]) -> None:
        now = self._now_s()
        for key in keys:
            # The order of the entries is that in which they were asked for.
            entry = self._entries.pop(key, None) or Entry(now)
            entry.asked_at = now
            self._entries[key] = entry
        while len(self._entries) > KEYS_MAX:
            del self._entries[next(iter(self._entries))]

    def _stale(self, keys: Iterable[str]) -> bool:
        now = self._now_s()
        return any(key not in self._entries or self._entries[key].good_until < now for key in keys)

    def _is_away(self) -> bool:
        return self._away_since is not None and self._now_s() - self._away_since >= MAX_AGE_S

    async def _wait(self, keys: Sequence[str]) -> None:
        try:
            async with asyncio.timeout(MAX_AGE_S):
                while self._stale(keys):
                    self._remember(keys)
                    self._wanted.set()
                    await self._turn.wait()
        except TimeoutError as error:
            raise LedgerUnavailableError("neither ledger nor mirror has told the availability in time") from error

    async def _refresh(self) -> None:
        now = self._now_s()
        while self._entries and now - next(iter(self._entries.values())).asked_at > REMEMBER_S:
            del self._entries[next(iter(self._entries))]
        keys = [key for key, entry in self._entries.items() if now - entry.learnt_at >= YOUNG_S]
        if keys:
            left = await self._from_mirror(keys)
            if left:
                await self._from_ledger(left)

    async def _from_mirror(self, keys: list[str]) -> list[str]:
        """Those of which the mirror has no fresh word."""
        if self._mirror is None:
            return keys
        try:
            # By a clock that is ahead the mirror leaves out what is too old for us.
            ahead_ms = AVAILABLE_MS - MIRROR_AGE_MS
            pools = await self._mirror.read(keys, self._clock.now_ms() + ahead_ms)
        except MirrorUnavailableError:
            return keys
        told: dict[str, int | None] = {key: pool.available for key, pool in pools.items() if pool.available is not None}
        self._learn(told, self._now_s(), MAX_AGE_S - MIRROR_AGE_MS / 1000)
        return [key for key in keys if key not in told]

    async def _from_ledger(self, keys: list[str]) -> None:
        asked_at, asked_at_ms = self._now_s(), self._clock.now_ms()
        try:
            async with asyncio.timeout(MAX_AGE_S):
                found = await self._read(keys)
        except UNREACHABLE as error:
            if self._away_since is None:
                log.warning("availability_not_refreshed", error=repr(error))
                self._away_since = asked_at
            return
        self._away_since = None
        self._learn({key: found.get(key) for key in keys}, asked_at, MAX_AGE_S)
        if self._mirror is not None and found:
            with contextlib.suppress(MirrorUnavailableError):
                await self._mirror.push_available(found, asked_at_ms)

    def _learn(self, told: dict[str, int | None], at: float, good_s: float) -> None:
        for key, units in told.items():
            entry = self._entries.get(key)
            if entry is not None:
                entry.units, entry.learnt_at, entry.good_until = units, at, at + good_s
