"""Reading a request: headers in one pass, the body within bounds, and nothing that a client sends raises."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from gateway.domain.outcomes import Refusal
from gateway.edge.requests import Receive, is_json, parse_traceparent, read_body, read_headers

TRACEPARENT = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


def sending(messages: Iterable[dict[str, Any]]) -> Receive:
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return receive


def piece(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_read_headers_of_a_request_finds_what_counts() -> None:
    found = read_headers([(b"authorization", b"Bearer x"), (b"content-length", b"12"), (b"idempotency-key", b"k")])
    assert (found.authorization, found.length, found.key, found.keys) == (b"Bearer x", 12, b"k", 1)


@pytest.mark.parametrize("value", [b"-1", b"+3", b"3,3", b"", b"9" * 16, "\u0663".encode(), b"1_0"])
def test_read_headers_with_an_odd_length_says_so(value: bytes) -> None:
    assert read_headers([(b"content-length", value)]).length == -2


@pytest.mark.parametrize(
    ("content_type", "accepted"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=UTF-8", True),
        (b'application/json;charset="utf-8"', True),
        (b"application/json; charset=utf-16", False),
        (b"application/jsonp", False),
        (b"", False),
    ],
)
def test_is_json_for_a_type_decides(
    content_type: bytes,
    accepted: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert is_json(content_type) is accepted


@pytest.mark.parametrize(
    "value", [b"", b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01", TRACEPARENT + b"-x", TRACEPARENT.upper()]
)
def test_parse_traceparent_that_is_not_valid_is_ignored(value: bytes) -> None:
    assert parse_traceparent(value) is None


def test_parse_traceparent_that_is_valid_is_kept() -> None:
    assert parse_traceparent(TRACEPARENT) == TRACEPARENT.decode()


async def test_read_body_in_pieces_joins_them() -> None:
    assert await read_body(sending([piece(b"ab", more=True), piece(b"c", more=False)]), -1, 10, 1.0) == b"abc"


async def test_read_body_at_its_announced_end_asks_no_more() -> None:
    assert await read_body(sending([piece(b"abc", more=True)]), 3, 10, 1.0) == b"abc"


async def test_read_body_announced_too_large_reads_nothing() -> None:
    refusal = await read_body(sending([]), 11, 10, 1.0)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "body_too_large"


async def test_read_body_larger_than_allowed_is_refused() -> None:
    refusal = await read_body(sending([piece(b"abcdef", more=True), piece(b"ghijkl", more=False)]), -1, 10, 1.0)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "body_too_large"


async def test_read_body_that_does_not_come_is_a_timeout() -> None:
    refusal = await read_body(sending([piece(b"a", more=True)]), -1, 10, 0.001)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "body_timeout"


async def test_read_body_cut_short_is_a_bad_request() -> None:
    refusal = await read_body(sending([piece(b"a", more=True), {"type": "http.disconnect"}]), -1, 10, 1.0)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "bad_request"
