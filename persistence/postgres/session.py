"""One connection to the ledger that mends itself: opened on use, thrown away after any error, used by one caller at a
time.

A connection that has seen an exception is never used again: after a time-out or a reset asyncpg may report it as open
although its state is unknown.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from persistence.errors import LedgerUnavailableError
from persistence.postgres.connect import UNREACHABLE, connect

T = TypeVar("T")


class Session:
    """Calls run one after the other. A call that cannot reach the server raises LedgerUnavailableError; whether it took
    effect is then unknown.
    """

    def __init__(
        self, url: str, name: str, command_timeout_s: float = 10.0, session: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self._url = url
        self._command_timeout_s = command_timeout_s
        self._session = session
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()

    async def run(self, call: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """Run `call` on the connection. Errors of the server other than "cannot be reached" are raised as they are."""
        async with self._lock:
            connection = await self._ensure_open()
            try:
                return await call(connection)
            except UNREACHABLE as error:
                self.discard()
                raise LedgerUnavailableError(f"PostgreSQL did not answer: {error!r}") from error
            except BaseException:
                self.discard()
                raise

    def discard(self) -> None:
        """Drop the connection at once, without a word to the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        self.discard()

    async def _ensure_open(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._url, self.name, self._command_timeout_s, self._session)
        return self._connection
