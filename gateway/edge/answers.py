"""Answers in the bytes that go out: the same for the hot route and for the routes of Litestar. A problem is RFC 9457,
and never carries internals.
"""

import itertools
import secrets
from typing import Any, NamedTuple

import msgspec

from core_ext import ids
from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import RETRY_AFTER_S, Outcome, Refusal

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"
NO_STORE = (b"cache-control", b"no-store")
CONTENT_JSON = (b"content-type", JSON)
FIRST_VERSION = (b"etag", b'"1"')
PROBLEM_URN = "urn:floodgate:problem:"

_encode = msgspec.json.Encoder().encode
_prefix = secrets.token_hex(6)
_numbers = itertools.count(1)


class Answer(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def new_request_id() -> str:
    """Unique among all workers: random per process, counted within."""
    return f"{_prefix}-{next(_numbers):08x}"


def answer(outcome: Outcome, request_id: str) -> Answer:
    """What `POST /v1/orders` answers."""
    if isinstance(outcome, Refusal):
        return problem(outcome, request_id)
    body = outcome.body
    headers = [
        CONTENT_JSON,
        (b"location", b"/v1/orders/" + ids.format_id(outcome.order_id).encode()),
        FIRST_VERSION,
        (b"content-length", b"%d" % len(body)),
        (b"request-id", request_id.encode()),
        NO_STORE,
    ]
    if outcome.replayed:
        headers.append((b"idempotency-replayed", b"true"))
    return Answer(201, headers, body)


def problem(refusal: Refusal, request_id: str) -> Answer:
    """A refusal as RFC 9457 problem."""
    body = _encode(problem_document(refusal, request_id))
    headers = [(b"content-type", PROBLEM_JSON), *_common(request_id, body)]
    wait_s = refusal.retry_after_s or (RETRY_AFTER_S if refusal.status == 503 else 0)
    if wait_s:
        headers.append((b"retry-after", str(wait_s).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="floodgate"'))
    return Answer(refusal.status, headers, body)


def problem_document(refusal: Refusal, request_id: str) -> dict[str, Any]:
    known = PROBLEMS[refusal.code]
    document: dict[str, Any] = {"type": PROBLEM_URN + refusal.code, "title": known.title, "status": known.status}
    if refusal.detail:
        document["detail"] = refusal.detail
    document |= {"code": refusal.code, "retryable": known.retryable, "request_id": request_id}
    if refusal.errors:
        document["errors"] = refusal.errors
    return document | refusal.extra


def _common(request_id: str, body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", str(len(body)).encode()), (b"request-id", request_id.encode()), NO_STORE]
