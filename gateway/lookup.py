"""Asks the ledger for what is waited for, many at a time: keys before an order is refused for a reason that may have
changed since, because a known key beats every refusal; and orders that somebody wants to see. An answer is never older
than the question. Bounded: who finds too many waiting is told that the gateway is overloaded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from persistence.errors import LedgerUnavailableError
from persistence.postgres.orders import StoredKey

WAITING_MAX = 20_000  # keys that may wait for their look-up
KEYS_MAX = 1000  # keys of one look-up

Found = TypeVar("Found")


class OverloadedError(Exception):
    """Too many keys wait already."""


class LookupFailedError(Exception):
    """The look-up ended without an answer: a bug, or the end of the worker."""


class Lookup(Generic[Found]):
    """`find` waits for the next look-up; while one is under way, the others gather for the following one."""

    def __init__(self, fetch: Callable[[Sequence[bytes]], Awaitable[dict[bytes, Found]]]) -> None:
        self._fetch = fetch
        self._waiting: dict[bytes, asyncio.Future[Found | None]] = {}
        self._filled = asyncio.Event()

    async def find(self, key: bytes) -> Found | None:
        """What the ledger has under the key, None for an unknown one. Raises LedgerUnavailableError, OverloadedError,
        LookupFailedError.
        """
        return await asyncio.shield(self.begin(key))

    def begin(self, key: bytes) -> asyncio.Future[Found | None]:
        """What `find` waits for, shared with all who ask for the key: nobody may cancel it. Raises OverloadedError."""
        waiting = self._waiting.get(key)
        if waiting is None:
            if len(self._waiting) >= WAITING_MAX:
                raise OverloadedError
            waiting = self._waiting[key] = asyncio.get_running_loop().create_future()
            self._filled.set()
        return waiting

    async def run(self) -> None:
        """Look keys up until cancelled."""
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            taken = {key: self._waiting.pop(key) for key in list(self._waiting)[:KEYS_MAX]}
            await self._answer(taken)

    async def _answer(self, taken: dict[bytes, asyncio.Future[Found | None]]) -> None:
        try:
            found = await self._fetch(list(taken))
        except BaseException as error:
            # Whatever it was, those who wait have to hear of it: nobody asks for their keys again.
            for waiting in taken.values():
                waiting.set_exception(error if isinstance(error, LedgerUnavailableError) else LookupFailedError())
                waiting.exception()  # Seen: the buyer may have gone.
            if isinstance(error, LedgerUnavailableError):
                return
            raise
        for key, waiting in taken.items():
            waiting.set_result(found.get(key))


KeyLookup = Lookup[StoredKey]  # by the hash of the key
