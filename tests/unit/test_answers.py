"""Answers in bytes: an accepted order, a replay, and problems as RFC 9457."""

import msgspec
import pytest

from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import Accepted, Refusal
from gateway.edge.answers import Answer, answer, new_request_id, problem

ORDER_ID = bytes.fromhex("019ac4d4e0007abc8123456789abcdef")
ACCEPTED = Accepted(ORDER_ID, b'{"order_id":"x"}')


def headers_of(given: Answer) -> dict[bytes, bytes]:
    headers = dict(given.headers)
    assert len(headers) == len(given.headers), "a header stands there once"
    return headers


def test_answer_of_an_accepted_order_says_where_it_is() -> None:
    given = answer(ACCEPTED, "r-1")
    assert (given.status, given.body) == (201, ACCEPTED.body)
    assert headers_of(given) == {
        b"content-type": b"application/json",
        b"location": b"/v1/orders/019ac4d4-e000-7abc-8123-456789abcdef",
        b"etag": b'"1"',
        b"content-length": b"16",
        b"request-id": b"r-1",
        b"cache-control": b"no-store",
    }


def test_answer_of_a_replay_is_the_first_answer_with_a_mark() -> None:
    first, replay = answer(ACCEPTED, "r-1"), answer(msgspec.structs.replace(ACCEPTED, replayed=True), "r-1")
    assert (replay.status, replay.body) == (first.status, first.body)
    assert set(replay.headers) - set(first.headers) == {(b"idempotency-replayed", b"true")}


@pytest.mark.parametrize("code", PROBLEMS)
def test_problem_of_each_code_is_whole(code: str) -> None:
    given = problem(Refusal(code), "r-1")
    known = PROBLEMS[code]
    assert given.status == known.status
    assert headers_of(given)[b"content-type"] == b"application/problem+json"
    assert headers_of(given)[b"content-length"] == str(len(given.body)).encode()
    assert msgspec.json.decode(given.body) == {
        "type": f"urn:floodgate:problem:{code}",
        "title": known.title,
        "status": known.status,
        "code": code,
        "retryable": known.retryable,
        "request_id": "r-1",
    }


@pytest.mark.parametrize("code", PROBLEMS)
def test_problem_asks_for_a_retry_exactly_when_it_is_unavailable(code: str) -> None:
    given = problem(Refusal(code), "r-1")
    assert (b"retry-after" in headers_of(given)) == (given.status == 503)
    assert (b"www-authenticate" in headers_of(given)) == (given.status == 401)


def test_problem_carries_detail_errors_and_further_members() -> None:
    refusal = Refusal("invalid", "why", ({"detail": "d", "pointer": "#/items", "code": "bad_count"},), {"more": 1})
    document = msgspec.json.decode(problem(refusal, "r-1").body)
    assert document["detail"] == "why"
    assert document["errors"] == [{"detail": "d", "pointer": "#/items", "code": "bad_count"}]
    assert document["more"] == 1


def test_answer_of_a_refusal_is_its_problem() -> None:
    assert answer(Refusal("sold_out"), "r-1") == problem(Refusal("sold_out"), "r-1")


def test_request_id_is_new_each_time() -> None:
    first, second = new_request_id(), new_request_id()
    assert first != second
    assert first.split("-")[0] == second.split("-")[0]
