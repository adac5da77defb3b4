"""The client's end of the simulated PostgreSQL: what the product uses of asyncpg's connection, of its prepared
statements, of its pool, and of `persistence.postgres.pipeline`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from persistence.errors import LedgerUnavailableError
from persistence.postgres.ledger import Entry
from persistence.postgres.pipeline import Answer
from tests.simulation.commit_functions import commit_whole
from tests.simulation.control_functions import statement_of
from tests.simulation.guards import GUARDS
from tests.simulation.postgres import Backend, Postgres, Request


async def connect(server: Postgres, name: str, timeout_s: float) -> "Connection":
    """Raises LedgerUnavailableError."""
    backend = await server.open(name)
    backend.connection = Connection(server, backend, timeout_s)
    return backend.connection


class Connection:
    """Used by one caller at a time."""

    def __init__(self, server: Postgres, backend: Backend, timeout_s: float) -> None:
        self.server = server
        self.backend = backend
        self.timeout_s = timeout_s
        self.is_open = True

    def is_closed(self) -> bool:
        return not self.is_open

    def get_server_pid(self) -> int:
        return self.backend.pid

    def terminate(self) -> None:
        self.is_open = False
        self.server.left(self.backend)

    async def fetch(self, text: str, *arguments: Any) -> Any:
        """What the statement's function gives: rows, or the only value of the only one."""
        statement = statement_of(text)
        if statement.needs_server:
            return await self._call(statement.step, _with(self.server, statement.function), arguments)
        return await self._call(statement.step, statement.function, arguments)

    fetchval = fetchrow = fetch

    async def execute(self, text: str, *arguments: Any) -> Any:
        if text == "commit":
            tag = await self._call("commit", self.server.commit, ())
            return tag if GUARDS.commit_tag else "COMMIT"
        if text == "rollback":
            return await self._call("rollback", self.server.rollback, ())
        if "begin" in text:
            return await self._call("begin", self.server.begin, (self.backend,))
        return await self.fetch(text, *arguments)

    async def copy(self) -> None:
        """The rows of a batch, of which the books learn with its decision."""
        await self._call("copy", lambda *_: None, ())

    async def prepare(self, text: str, name: str | None = None) -> "Statement":  # noqa: ARG002 - asyncpg's signature
        return Statement(self, text)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self._call("session_begin", self.server.begin, (self.backend,))
        try:
            yield
        except GeneratorExit:
            raise
        except BaseException:
            if self.is_open:
                await self.execute("rollback")
            raise
        await self._call("session_commit", self.server.commit, ())

    async def exchange(self, messages: tuple[bytes, Sequence[Entry]]) -> Answer:
        """A whole batch in one write, see `persistence.postgres.pipeline`."""
        try:
            tag = await self._call("commit_whole", commit_whole, messages) or "COMMIT"
        except asyncpg.AdminShutdownError as error:
            raise ConnectionResetError("the connection ended before the answer") from error
        except asyncpg.PostgresError as error:
            return Answer("", error, "E")
        return Answer(tag if GUARDS.commit_tag else "COMMIT", None, "I")

    async def _call(self, step: str, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        if not self.is_open:
            raise asyncpg.InterfaceError("the connection is closed")
        answer = self.server.loop.create_future()
        self.server.submit(Request(self.backend, step, function, arguments, answer, self.timeout_s))
        return await answer


class Statement:
    """A prepared one."""

    def __init__(self, connection: Connection, text: str) -> None:
        self._connection = connection
        self._text = text

    async def fetch(self, *arguments: Any) -> Any:
        return await self._connection.fetch(self._text, *arguments)


class Pool:
    """One connection, which is thrown away after an error. Raises what asyncpg raises when nobody answers."""

    def __init__(self, server: Postgres, timeout_s: float) -> None:
        self._server = server
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []

    async def execute(self, text: str, *arguments: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.execute(text, *arguments)

    fetchval = execute

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        connection = self._idle.pop() if self._idle else await self._open()
        try:
            yield connection
        except BaseException:
            connection.terminate()
            raise
        if connection.is_open:
            self._idle.append(connection)

    async def _open(self) -> Connection:
        try:
            return await connect(self._server, "fg-read", self._timeout_s)
        except LedgerUnavailableError as error:
            raise ConnectionRefusedError(str(error)) from error


def _with(server: Postgres, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _, transaction, *arguments: function(server, transaction, *arguments)
