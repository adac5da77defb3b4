"""One Redis server: a bounded number of connections, and a short pause after a failure in which every call fails at
once instead of waiting for the same time-out.

Nothing is sent twice: a reply that does not come is a failure, whatever became of the command. A connection that failed
is thrown away, and those that were idle with it; the next call opens another.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import structlog
from redis.asyncio import Connection
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from persistence.errors import MirrorUnavailableError

CONNECTIONS_MAX = 8  # to one server; whoever comes beyond that waits
PAUSE_S = 0.5
# What a server that is gone, hung, starting, full or not Redis at all ends in. RuntimeError is how uvloop says that a
# connection was reset before it was written to.
FAILURES = (RedisError, OSError, TimeoutError, RuntimeError)

Command: TypeAlias = tuple[str | bytes | int, ...]
Reply: TypeAlias = Any  # what Redis says; an error that it says is a ResponseError

log = structlog.get_logger("mirror")


class Node:
    """Safe with concurrent callers. `now_s` counts seconds from anywhere; deadlines are the event loop's."""

    def __init__(
        self, kind: type[Connection], options: Mapping[str, Any], patience_s: float, now_s: Callable[[], float]
    ) -> None:
        """A call that had less than `patience_s` and ran out of time says nothing about the server."""
        self.host = str(options["host"])
        self.port = int(options["port"])
        self.name = f"{self.host}:{self.port}"
        self._kind = kind
        self._options = options
        self._patience_s = patience_s
        self._now_s = now_s
        self._resumes_at_s: float | None = None
        self._closed = False
        self._places = asyncio.Semaphore(CONNECTIONS_MAX)
        self._idle = [kind(**options)]

    @property
    def failed(self) -> bool:
        """Whether the last call found that it does not answer."""
        return self._resumes_at_s is not None

    async def run(self, commands: Sequence[Command], deadline_s: float) -> list[Reply]:
        """One pipeline; the replies in its order. Raises MirrorUnavailableError, at once while the server is given a
        pause.
        """
        async with self._attempt(deadline_s):
            return await self._exchange(commands)

    async def subscribe(self, channel: str, deadline_s: float) -> Connection:
        """A connection of its own that is subscribed; the caller disconnects it. Raises MirrorUnavailableError."""
        async with self._attempt(deadline_s):
            connection = self._kind(**self._options)
            try:
                await connection.connect()  # type: ignore[no-untyped-call]  # of the library
                await connection.send_command("SUBSCRIBE", channel)
                await connection.read_response()
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            return connection

    async def close(self) -> None:
        """What is in use is closed by its user."""
        self._closed = True
        await self._drop_idle()

    @asynccontextmanager
    async def _attempt(self, deadline_s: float) -> AsyncIterator[None]:
        self._check()
        had_s = deadline_s - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(deadline_s), self._places:
                yield
        except FAILURES as error:
            if had_s >= self._patience_s or not isinstance(error, TimeoutError):
                await self._fail(error)
            raise MirrorUnavailableError(f"Redis at {self.name} does not answer: {describe(error)}") from error
        if self.failed:
            log.info("redis_answers_again", server=self.name)
        self._resumes_at_s = None

    async def _fail(self, error: Exception) -> None:
        if not self.failed:
            log.warning("redis_failed", server=self.name, error=describe(error))
        self._resumes_at_s = self._now_s() + PAUSE_S
        await self._drop_idle()

    def _check(self) -> None:
        """After the pause one call finds out how things are; until it knows, the others go on failing at once."""
        if self._resumes_at_s is None:
            return
        now_s = self._now_s()
        if now_s < self._resumes_at_s:
            raise MirrorUnavailableError(f"Redis at {self.name} did not answer a moment ago")
        self._resumes_at_s = now_s + PAUSE_S

    async def _exchange(self, commands: Sequence[Command]) -> list[Reply]:
        connection = self._idle.pop() if self._idle else self._kind(**self._options)
        try:
            if await _is_lost(connection):
                await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]  # of the library
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _reply(connection) for _ in commands]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            if self._closed:
                await connection.disconnect(nowait=True)
            else:
                self._idle.append(connection)

    async def _drop_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)


def describe(error: Exception) -> str:
    """What went wrong; the library's own repr leaves it out."""
    return f"{type(error).__name__} {error}".rstrip()


async def _is_lost(connection: Connection) -> bool:
    """Whether the server has closed or reset it while it was idle."""
    writer = connection._writer  # noqa: SLF001 - the library takes a connection that was reset for a good one
    return writer is not None and (writer.is_closing() or await connection.can_read())


async def _reply(connection: Connection) -> Reply:
    try:
        return await connection.read_response()
    except ReadOnlyError:
        # A failover has made a replica of it. The address may lead to the new primary by now: connect anew.
        raise
    except ResponseError as error:
        return error
