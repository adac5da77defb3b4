"""Lines of a bulk request: where they end, what they ask for, and what their verdict looks like."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext import ids
from gateway.domain.outcomes import RECEIPT, Accepted, Refusal
from gateway.edge.bulk import is_ndjson
from gateway.edge.bulk_lines import LINE_BYTES_MAX, Lines, Sent, Summary, read_line, verdict

ORDER_ID = bytes.fromhex("0199a7c25d807c3e9b1f4a6d2e8c0f51")
LONG = b"x" * (LINE_BYTES_MAX + 1)


def cut(body: bytes, size: int) -> list[bytes | None]:
    """The lines of a body that arrives in pieces of this size."""
    lines = Lines()
    found = [line for at in range(0, len(body), size) for line in lines.feed(body[at : at + size])]
    return found + lines.end()


def code_of(read: Sent | Refusal | None) -> str:
    assert isinstance(read, Refusal)
    return read.code


@given(st.lists(st.binary(max_size=9).filter(lambda line: b"\n" not in line), max_size=9), st.integers(1, 12))
def test_lines_are_the_same_whatever_the_pieces_they_come_in(sent: list[bytes], size: int) -> None:
    assert cut(b"".join(line + b"\n" for line in sent), size) == sent


def test_lines_need_no_end_of_the_last_one() -> None:
    assert cut(b"a\nb", 2) == [b"a", b"b"]


@pytest.mark.parametrize("size", [1000, LINE_BYTES_MAX, LINE_BYTES_MAX + 1, 4 * LINE_BYTES_MAX])
def test_lines_that_are_too_long_are_none_and_the_next_one_is_read(size: int) -> None:
    longest = LONG[1:]
    assert cut(b"\n".join((b"a", LONG, longest, LONG * 2, b"b")), size) == [b"a", None, longest, None, b"b"]
    assert cut(LONG, size) == [None]


def test_lines_keep_no_more_than_one_line() -> None:
    lines = Lines()
    for _ in range(100):
        assert lines.feed(LONG) == []
        assert len(lines._begun) <= LINE_BYTES_MAX


def test_line_has_its_key_and_its_order_byte_for_byte() -> None:
    order = b'{"items": [ {"sku":"A" } ],"note":"\xe8\xaf\xb7"}'
    assert read_line(b' {"order":%b, "idempotency_key":"k-1"}\r' % order) == Sent(b"k-1", order)


def test_line_with_a_quoted_key_has_the_same_key() -> None:
    assert read_line(b'{"idempotency_key":"\\"k-1\\"","order":{}}') == Sent(b"k-1", b"{}")


@pytest.mark.parametrize("line", [b"", b" ", b"\r", b"\t "])
def test_line_that_is_empty_asks_for_nothing(line: bytes) -> None:
    assert read_line(line) is None


WRONG = {
    b"{": "malformed_json",
    b"\xff": "malformed_json",
    b'{"idempotency_key":"k","order":{"a":1}': "malformed_json",
    b"[" * 60_000: "malformed_json",
    b"7": "invalid",
    b"[]": "invalid",
    b'{"idempotency_key":"k"}': "invalid",
    b'{"idempotency_key":"k","order":{},"more":1}': "invalid",
    b'{"order":{}}': "key_missing",
    b'{"idempotency_key":7,"order":{}}': "key_invalid",
    b'{"idempotency_key":"","order":{}}': "key_invalid",
    b'{"idempotency_key":"a b","order":{}}': "key_invalid",
    b'{"idempotency_key":"\xc3\xbc","order":{}}': "key_invalid",
    b'{"idempotency_key":"%b","order":{}}' % (b"k" * 256): "key_invalid",
    b'{"idempotency_key":7,"idempotency_key":"k","order":{}}': "malformed_json",
}


@pytest.mark.parametrize("line", WRONG)
def test_line_that_is_none_says_why(line: bytes) -> None:
    assert code_of(read_line(line)) == WRONG[line]


def test_line_that_is_too_long_says_so() -> None:
    assert code_of(read_line(None)) == "body_too_large"


def test_line_names_every_fault() -> None:
    read = read_line(b'{"idempotency_key":"k","more":1}')
    assert isinstance(read, Refusal)
    assert [entry["code"] for entry in read.errors] == ["unknown_field", "required"]


@given(st.binary(max_size=60))
def test_line_whatever_it_is_never_raises(line: bytes) -> None:
    read_line(line)


def test_verdict_of_an_order_names_it() -> None:
    shown = {"line": 7, "status": 201, "order_id": ids.format_id(ORDER_ID)}
    assert msgspec.json.decode(verdict(7, Accepted(ORDER_ID, b"{}"), "r")) == shown
    assert msgspec.json.decode(verdict(7, Accepted(ORDER_ID, b"{}", replayed=True), "r")) == shown | {"replayed": True}


@pytest.mark.parametrize(
    ("refusal", "wait_s"),
    [(Refusal("sold_out"), None), (Refusal("ledger_away"), 1), (Refusal("rate_limited", retry_after_s=3), 3)],
)
def test_verdict_of_a_refusal_has_its_problem(refusal: Refusal, wait_s: int | None) -> None:
    line = verdict(7, refusal, "r-1")
    assert line.endswith(b"}\n")
    told = msgspec.json.decode(line)
    assert (told["line"], told["status"], told.get("retry_after_s")) == (7, refusal.status, wait_s)
    assert (told["problem"]["code"], told["problem"]["request_id"]) == (refusal.code, "r-1")


def test_verdict_on_an_order_in_the_journal_has_no_order_yet() -> None:
    assert verdict(7, RECEIPT, "r-1") == b'{"line":7,"status":202}\n'


def test_summary_is_the_last_line() -> None:
    line = Summary(lines=3, accepted=2, replayed=1, refused=Counter({"sold_out": 1})).line()
    assert line.endswith(b"}\n")
    assert msgspec.json.decode(line) == {
        "summary": {
            "complete": True,
            "lines": 3,
            "accepted": 2,
            "replayed": 1,
            "receipts": 0,
            "refused": {"sold_out": 1},
        }
    }


@pytest.mark.parametrize(
    ("content_type", "is_so"),
    [
        (b"application/x-ndjson", True),
        (b"Application/X-NDJSON; charset=UTF-8", True),
        (b'application/x-ndjson; charset="utf-8"', True),
        (b"application/x-ndjson; charset=latin-1", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_content_type_of_lines(content_type: bytes, is_so: bool) -> None:  # noqa: FBT001 - a parameter of the test
    assert is_ndjson(content_type) is is_so
