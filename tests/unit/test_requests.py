"""Reading a request from ASGI: headers in one pass, a body within bounds, and never an exception for what is sent."""

import asyncio
from typing import Any

import pytest

from gateway.domain.outcomes import Refusal
from gateway.edge.requests import DRAINED_BYTES_MAX, Headers, is_json, parse_traceparent, read_body, read_headers

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Sender:
    """Sends the pieces of a body; `forever` says that more may follow, always. Asked for more, it waits."""

    def __init__(self, *pieces: bytes, forever: bool = False) -> None:
        self.messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": piece, "more_body": forever or at < len(pieces)}
            for at, piece in enumerate(pieces, 1)
        ]
        self.asked = 0

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if not self.messages:
            await asyncio.Event().wait()
        return self.messages.pop(0)


async def read(sender: Sender, length: int = -1, bytes_max: int = 10) -> bytes | Refusal:
    return await read_body(sender.receive, length, bytes_max, timeout_s=0.01)


def code_of(outcome: bytes | Refusal) -> str:
    assert isinstance(outcome, Refusal)
    return outcome.code


def test_headers_of_a_request_are_found() -> None:
    found = read_headers(
        [
            (b"authorization", b"Bearer x"),
            (b"content-type", b"application/json"),
            (b"idempotency-key", b"k"),
            (b"traceparent", TRACE),
            (b"content-length", b"12"),
            (b"x-other", b"y"),
        ]
    )
    assert found == Headers(b"Bearer x", b"application/json", b"k", TRACE.decode(), 12, 1)


def test_headers_that_are_missing_are_told_from_empty_ones() -> None:
    found = read_headers([])
    assert (found.key, found.length, found.keys) == (None, -1, 0)


def test_headers_with_two_keys_say_so() -> None:
    assert read_headers([(b"idempotency-key", b"a"), (b"idempotency-key", b"a")]).keys == 2


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"x", b"1" * 16, "１".encode(), b"+1", b"1_0"])
def test_headers_with_a_length_that_is_no_number_say_so(value: bytes) -> None:
    assert read_headers([(b"content-length", value)]).length == -2


@pytest.mark.parametrize(
    "value",
    [b"", TRACE.upper(), TRACE[:-1], TRACE + b"0", b"01" + TRACE[2:], b"00-" + b"0" * 32 + TRACE[35:], TRACE + b"\n"],
)
def test_traceparent_that_is_not_valid_is_ignored(value: bytes) -> None:
    assert parse_traceparent(value) is None


@pytest.mark.parametrize(
    "value",
    [b"application/json", b"Application/JSON", b"application/json; charset=utf-8", b'application/json;charset="UTF-8"'],
)
def test_content_type_of_json_in_utf_8_is_taken(value: bytes) -> None:
    assert is_json(value)


@pytest.mark.parametrize(
    "value",
    [b"", b"text/plain", b"application/jsonx", b"application/json; charset=latin-1", b"application/problem+json"],
)
def test_content_type_of_anything_else_is_not(value: bytes) -> None:
    assert not is_json(value)


async def test_body_in_one_piece_is_read() -> None:
    assert await read(Sender(b"12345"), length=5) == b"12345"


async def test_body_in_pieces_is_joined() -> None:
    assert await read(Sender(b"12", b"34", b"5")) == b"12345"


async def test_body_that_is_complete_is_not_asked_for_more() -> None:
    sender = Sender(b"12345", forever=True)
    assert await read(sender, length=5) == b"12345"
    assert sender.asked == 1


async def test_body_that_is_empty_is_empty() -> None:
    assert await read(Sender(b"")) == b""


async def test_body_announced_too_large_is_refused_when_it_was_taken_off_the_wire() -> None:
    sender = Sender(b"123456", b"123456")
    assert code_of(await read(sender, length=12)) == "body_too_large"
    assert sender.asked == 2


async def test_body_announced_far_too_large_is_refused_unread() -> None:
    sender = Sender(b"12345")
    assert code_of(await read(sender, length=DRAINED_BYTES_MAX + 1)) == "body_too_large"
    assert sender.asked == 0


async def test_body_that_turns_out_too_large_is_refused() -> None:
    assert code_of(await read(Sender(b"123456", b"123456"))) == "body_too_large"


async def test_body_without_an_end_is_refused_at_the_bound() -> None:
    piece = bytes(1 << 20)
    sender = Sender(*[piece] * 20, forever=True)
    assert code_of(await read(sender)) == "body_too_large"
    assert sender.asked == DRAINED_BYTES_MAX // len(piece) + 1


async def test_body_of_the_largest_size_is_read() -> None:
    assert await read(Sender(b"1234567890"), length=10) == b"1234567890"


async def test_body_with_a_length_that_is_no_number_is_refused() -> None:
    assert code_of(await read(Sender(b""), length=-2)) == "bad_request"


async def test_body_that_does_not_arrive_in_time_is_refused() -> None:
    assert code_of(await read(Sender(b"12", forever=True), length=5)) == "body_timeout"


async def test_body_of_a_client_that_goes_away_is_refused() -> None:
    sender = Sender(b"12", forever=True)
    sender.messages.append({"type": "http.disconnect"})
    assert code_of(await read(sender, length=5)) == "bad_request"
