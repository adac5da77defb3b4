"""Reading a request for an order from ASGI: its headers in one pass, its body within bounds of size and time. Nothing
here raises for what a client sends.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from msgspec import Struct

from gateway.domain.outcomes import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LARGE_BODY_BYTES_MAX = 1 << 20  # of an order with over 100 items, for clients that name prices
LENGTH_DIGITS_MAX = 15
# A client that is still writing when its connection is closed does not see the answer, so a body that is too large is
# taken off the wire, unless it is larger than this.
DRAINED_BYTES_MAX = 8 << 20
# How long the body of a request is awaited that was answered without it.
UNREAD_S_MAX = 1.0

BROKEN = Refusal("bad_request", "the body ended early")

_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Headers(Struct):
    """What the hot route wants to know. `length` is -1 when it is not announced, and -2 when it is not a number.
    `is_read` is set when the body is.
    """

    authorization: bytes = b""
    content_type: bytes = b""
    key: bytes | None = None
    traceparent: str | None = None
    length: int = -1
    keys: int = 0
    is_read: bool = False


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers of a request; names are lower-case, as ASGI gives them."""
    given = headers if isinstance(headers, list) else list(headers)
    named = dict(given)
    if len(named) != len(given):
        return _read_repeated(given)
    find = named.get
    key, length, traceparent = find(b"idempotency-key"), find(b"content-length"), find(b"traceparent")
    return Headers(
        find(b"authorization", b""),
        find(b"content-type", b""),
        key,
        None if traceparent is None else parse_traceparent(traceparent),
        -1 if length is None else _parse_length(length),
        0 if key is None else 1,
    )


def announces_body(scope: Scope) -> bool:
    """Whether a body comes with the request, whatever its method."""
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _read_repeated(headers: list[tuple[bytes, bytes]]) -> Headers:
    """Headers of which some stand there more than once: the last of a name counts."""
    found = read_headers(list(dict(headers).items()))
    found.keys = sum(name == b"idempotency-key" for name, _ in headers)
    return found


def _parse_length(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) <= LENGTH_DIGITS_MAX else -2


def parse_traceparent(value: bytes) -> str | None:
    """A traceparent of W3C trace context, version 00; None when it is not valid, which means to ignore it."""
    return value.decode() if _TRACEPARENT.fullmatch(value) else None


def is_json(content_type: bytes) -> bool:
    """Whether a body is `application/json`, in UTF-8 if it says so at all."""
    if content_type == b"application/json":
        return True
    media_type, _, parameters = content_type.partition(b";")
    if media_type.strip().lower() != b"application/json":
        return False
    parameters = parameters.strip().lower().replace(b'"', b"")
    return not parameters.startswith(b"charset=") or parameters == b"charset=utf-8"


async def read_body(receive: Receive, length: int, bytes_max: int, timeout_s: float) -> bytes | Refusal:
    """The whole body. Refuses one that is larger than `bytes_max`, and one that does not arrive in time. What is too
    large is read to its end and thrown away, up to DRAINED_BYTES_MAX.
    """
    if length > DRAINED_BYTES_MAX:
        return _too_large(bytes_max)
    if length == -2:
        return Refusal("bad_request", "Content-Length is not a number")
    try:
        async with asyncio.timeout(timeout_s):
            return await _read_all(receive, length, bytes_max)
    except TimeoutError:
        return Refusal("body_timeout")


async def _read_all(receive: Receive, length: int, bytes_max: int) -> bytes | Refusal:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return BROKEN
        piece = message.get("body", b"")
        size += len(piece)
        if size <= bytes_max:
            pieces.append(piece)
        # The server says that more may follow although the announced length is there; asking again would cost a change
        # of threads.
        ended = size == length or not message.get("more_body", False)
        if size > bytes_max and (ended or size > DRAINED_BYTES_MAX):
            return _too_large(bytes_max)
        if ended:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def take_unread(receive: Receive, length: int) -> None:
    """Take the body of a request that has been answered off the wire and throw it away. Else the server closes the
    connection, and a client that is still writing may see a reset instead of the answer, and come again at once.
    """
    if 0 < length <= LARGE_BODY_BYTES_MAX:
        await read_body(receive, length, 0, UNREAD_S_MAX)


def _too_large(bytes_max: int) -> Refusal:
    return Refusal("body_too_large", f"a body has at most {bytes_max} bytes")
