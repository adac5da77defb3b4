"""Answers in bytes: an accepted order, a replay, and problems as RFC 9457."""

import msgspec
import pytest

from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import RECEIPT, Accepted, Refusal
from gateway.edge import answers
from gateway.edge.answers import Answer, answer, new_request_id, problem, problem_document

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


@pytest.mark.parametrize(
    ("key", "where"), [(b"k-1", b"k-1"), (b'a"b/c?%&=+', b"a%22b%2Fc%3F%25%26%3D%2B"), (b"~" * 255, b"~" * 255)]
)
def test_answer_with_a_receipt_says_where_the_order_will_be(key: bytes, where: bytes) -> None:
    given = answer(RECEIPT, "r-1", key)
    assert given.status == 202
    assert msgspec.json.decode(given.body) == {"status": "accepted", "idempotency_key": key.decode()}
    assert headers_of(given) == {
        b"content-type": b"application/json",
        b"location": b"/v1/orders?idempotency_key=" + where,
        b"content-length": str(len(given.body)).encode(),
        b"request-id": b"r-1",
        b"retry-after": b"1",
        b"cache-control": b"no-store",
    }


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


@pytest.mark.parametrize("code", PROBLEMS)
@pytest.mark.parametrize("request_id", ["1f0c9d2a7b3e-00000001", "a", 'é"\\\n'])
def test_problem_of_a_refusal_that_many_get_is_its_own_document_each_time(code: str, request_id: str) -> None:
    errors = ({"detail": "0 of 壶 are left", "pointer": "#/items/0/quantity", "available": 0},)
    for refusal in (Refusal(code), Refusal(code, "why", errors), Refusal(code, "why", errors, {"more": 1}, 7)):
        document = msgspec.json.encode(problem_document(refusal, request_id))
        first, second = problem(refusal, request_id), problem(refusal, request_id)
        assert first == second
        assert first.body == document
        assert headers_of(first)[b"content-length"] == str(len(document)).encode()
        assert problem(refusal, "other").body == msgspec.json.encode(problem_document(refusal, "other"))


def test_problem_headers_that_are_added_are_those_of_one_answer() -> None:
    refusal = Refusal("overloaded")
    problem(refusal, "r-1").headers.append((b"ratelimit", b"1"))
    assert b"ratelimit" not in headers_of(problem(refusal, "r-2"))


def test_problem_keeps_no_more_than_so_many_forms_and_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_forms", {})
    monkeypatch.setattr(answers, "FORMS_MAX", 2)
    kept = []
    for number in range(5):
        problem(Refusal("sold_out", f"{number}"), "r-1")
        kept.append(len(answers._forms))
    assert kept == [1, 2, 1, 2, 1]
    problem(Refusal("sold_out", "x" * answers.FORM_BYTES_MAX), "r-1")
    assert len(answers._forms) == 1


def test_answer_of_a_refusal_is_its_problem() -> None:
    assert answer(Refusal("sold_out"), "r-1") == problem(Refusal("sold_out"), "r-1")


def test_request_id_is_new_each_time() -> None:
    first, second = new_request_id(), new_request_id()
    assert first != second
    assert first.split("-")[0] == second.split("-")[0]
