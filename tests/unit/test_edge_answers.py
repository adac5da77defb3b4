"""Answers in bytes: problems of RFC 9457 as the registry of codes says, and the headers that every answer has."""

import json

import pytest

from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import Accepted, Refusal
from gateway.edge.answers import answer, new_request_id, problem

ORDER_ID = bytes.fromhex("0199a7c25d807c3e9b1f4a6d2e8c0f51")


@pytest.mark.parametrize("code", PROBLEMS)
def test_problem_of_a_code_is_as_registered(code: str) -> None:
    made = problem(Refusal(code), "r-1")
    document = json.loads(made.body)
    assert made.status == document["status"] == PROBLEMS[code].status
    assert document == {
        "type": f"urn:floodgate:problem:{code}",
        "title": PROBLEMS[code].title,
        "status": made.status,
        "code": code,
        "retryable": PROBLEMS[code].retryable,
        "request_id": "r-1",
    }


@pytest.mark.parametrize("code", PROBLEMS)
def test_problem_of_a_code_has_its_headers(code: str) -> None:
    made = problem(Refusal(code), "r-1")
    headers = dict(made.headers)
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(made.body)).encode()
    assert headers[b"cache-control"] == b"no-store"
    assert (b"retry-after" in headers) is (made.status == 503)
    assert (b"www-authenticate" in headers) is (made.status == 401)


def test_answer_of_an_accepted_order_says_where_it_is() -> None:
    made = answer(Accepted(ORDER_ID, b"{}"), "r-1")
    headers = dict(made.headers)
    assert made.status == 201
    assert headers[b"location"] == b"/v1/orders/0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51"
    assert headers[b"etag"] == b'"1"'
    assert b"idempotency-replayed" not in headers


def test_answer_of_a_replayed_order_says_so() -> None:
    assert (b"idempotency-replayed", b"true") in answer(Accepted(ORDER_ID, b"{}", replayed=True), "r-1").headers


def test_new_request_id_twice_differs() -> None:
    assert new_request_id() != new_request_id()
