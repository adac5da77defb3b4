"""One write, one answer: a whole transaction over the transport of an asyncpg connection, whose public calls cost a
round trip each.

For the length of an exchange it stands in the place of the driver's protocol, and hands the connection back at
ReadyForQuery, so all else goes on through the driver. That rests on what asyncpg does not promise: `open_on` looks
whether it is as known and answers None otherwise. It never decides what an answer means for the orders.
"""

import asyncio
import struct
from typing import Any, NamedTuple

import asyncpg

VERSIONS = "0.32."  # of asyncpg whose insides are known
_HEAD = struct.Struct(">BI")
_ERROR, _COMPLETE, _READY = b"ECZ"


class Answer(NamedTuple):
    """What the server said up to ReadyForQuery: the tag of the last statement that it completed, the first error, and
    the state of the transaction then (`I`: none, `T`: open, `E`: failed).
    """

    tag: str
    error: asyncpg.PostgresError | None
    state: str


class Pipeline(asyncio.Protocol):
    """Of one connection. `exchange` may be called while nobody else uses it."""

    def __init__(self, transport: Any, driver: Any) -> None:
        self._transport = transport
        self._driver = driver
        self._answer: asyncio.Future[Answer] | None = None
        self._rest = b""
        self._tag = ""
        self._error: asyncpg.PostgresError | None = None

    async def exchange(self, messages: bytes) -> Answer:
        """Write `messages`, which end in the only Sync. Raises OSError when the connection ends before the answer: what
        the server did is not known then. After that, or a cancellation, the connection has to be terminated.
        """
        assert self._answer is None or self._answer.done()
        self._answer = asyncio.get_running_loop().create_future()
        self._rest, self._tag, self._error = b"", "", None
        self._transport.set_protocol(self)
        self._transport.write(messages)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        data = self._rest + data if self._rest else data
        at = 0
        while len(data) - at >= _HEAD.size:
            kind, size = _HEAD.unpack_from(data, at)
            end = at + 1 + size
            if end > len(data):
                break
            if kind == _READY:
                self._hand_back(data[at + 5 : end].decode(), data[end:])
                return
            if kind == _COMPLETE:
                self._tag = data[at + 5 : end - 1].decode()
            elif kind == _ERROR and self._error is None:
                self._error = _error_of(data[at + 5 : end])
            at = end
        self._rest = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        self._driver.connection_lost(exc)
        assert self._answer is not None
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError(f"the connection ended before the answer: {exc}"))

    def pause_writing(self) -> None:
        self._driver.pause_writing()

    def resume_writing(self) -> None:
        self._driver.resume_writing()

    def _hand_back(self, state: str, rest: bytes) -> None:
        self._transport.set_protocol(self._driver)
        if rest:  # What the server says unasked.
            self._driver.data_received(rest)
        assert self._answer is not None
        if not self._answer.done():
            self._answer.set_result(Answer(self._tag, self._error, state))


def open_on(connection: asyncpg.Connection) -> Pipeline | None:
    """A pipeline over this connection, which nobody uses meanwhile; None when the driver is none that is known."""
    transport, driver = getattr(connection, "_transport", None), getattr(connection, "_protocol", None)
    known = (
        asyncpg.__version__.startswith(VERSIONS)
        and transport is not None
        and driver is not None
        and hasattr(transport, "set_protocol")
        and getattr(transport, "get_protocol", lambda: None)() is driver
    )
    return Pipeline(transport, driver) if known else None


def _error_of(body: bytes) -> asyncpg.PostgresError:
    """The driver's own exception for an ErrorResponse, whose fields are a letter and a text each."""
    fields = {field[:1].decode(): field[1:].decode(errors="replace") for field in body.split(b"\x00") if field}
    return asyncpg.PostgresError.new(fields)
