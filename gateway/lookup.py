"""Asks the ledger for what is waited for, many at a time: keys before an order is refused for a reason that may have
changed since, because a known key beats every refusal; and orders that somebody wants to see. An answer is never older
than the question. Bounded: who finds too many waiting is told that the gateway is overloaded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import structlog

from persistence.errors import LedgerUnavailableError
from persistence.postgres.orders import StoredKey

WAITING_MAX = 20_000  # keys that may wait for their look-up
KEYS_MAX = 1000  # keys of one look-up

log = structlog.get_logger("lookup")

Found = TypeVar("Found")


class OverloadedError(Exception):
    """Too many keys wait already."""


class LookupFailedError(Exception):
    """The look-up ended without an answer: a bug, or the end of the worker."""


# What to call with what the ledger has, None for an unknown key; or with the error that there is instead.
Asker = Callable[[Found | None, LedgerUnavailableError | LookupFailedError | None], None]


class Lookup(Generic[Found]):
    """Who asks waits for the next look-up; while one is under way, the others gather for the following one."""

    def __init__(self, fetch: Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Found]]]) -> None:
        self._fetch = fetch
        self._waiting: dict[bytes, list[Asker[Found]]] = {}
        self._filled = asyncio.Event()

    async def find(self, key: bytes) -> Found | None:
        """What the ledger has under the key, None for an unknown one. Raises LedgerUnavailableError, OverloadedError,
        LookupFailedError.
        """
        answered: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()

        def tell(found: Found | None, error: Exception | None) -> None:
            if answered.done():
                return  # Who asked has gone.
            if error is None:
                answered.set_result(found)
            else:
                answered.set_exception(error)

        self.ask(key, tell)
        return await answered

    def ask(self, key: bytes, asker: Asker[Found]) -> None:
        """Call `asker` with the answer, once, in the very turn in which it is there: a sale asks about nearly every
        order, and a future for each would cost more than the question. Raises OverloadedError.
        """
        askers = self._waiting.get(key)
        if askers is not None:
            askers.append(asker)
            return
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError
        self._waiting[key] = [asker]
        self._filled.set()

    async def run(self) -> None:
        """Look keys up until cancelled."""
        while True:
            while not self._waiting:
                self._filled.clear()
                await self._filled.wait()
            await self._answer(self._take())

    def _take(self) -> dict[bytes, list[Asker[Found]]]:
        """Those who have waited longest, at most KEYS_MAX keys."""
        if len(self._waiting) > KEYS_MAX:
            return {key: self._waiting.pop(key) for key in list(self._waiting)[:KEYS_MAX]}
        taken, self._waiting = self._waiting, {}
        return taken

    async def _answer(self, taken: Mapping[bytes, Sequence[Asker[Found]]]) -> None:
        try:
            found = await self._fetch(list(taken))
        except BaseException as error:
            # Whatever it was, those who wait have to hear of it: nobody asks for their keys again.
            away = error if isinstance(error, LedgerUnavailableError) else None
            _tell(taken, {}, away or LookupFailedError())
            if away is not None:
                return
            raise
        _tell(taken, found, None)


def _tell(
    taken: Mapping[bytes, Sequence[Asker[Found]]],
    found: Mapping[bytes, Found],
    error: LedgerUnavailableError | LookupFailedError | None,
) -> None:
    """Tell all who asked. One who fails keeps nobody else from the answer."""
    for key, askers in taken.items():
        answer = found.get(key)
        for asker in askers:
            try:
                asker(answer, error)
            except Exception:
                log.exception("asker_failed")


KeyLookup = Lookup[StoredKey]  # by the hash of the key
