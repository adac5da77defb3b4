"""Answers in the bytes that go out: the same for the hot route and for the routes of Litestar. A problem is RFC 9457,
and never carries internals.
"""

import itertools
import secrets
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from core_ext import ids
from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import RETRY_AFTER_S, Outcome, Receipt, Refusal

JSON = b"application/json"
PROBLEM_JSON = b"application/problem+json"
NO_STORE = (b"cache-control", b"no-store")
CONTENT_JSON = (b"content-type", JSON)
CONTENT_PROBLEM = (b"content-type", PROBLEM_JSON)
FIRST_VERSION = (b"etag", b'"1"')
PROBLEM_URN = "urn:floodgate:problem:"
# In a sale nearly all are refused for the same few reasons, each of which is encoded once.
FORMS_MAX = 512
FORM_BYTES_MAX = 1024

_encode = msgspec.json.Encoder().encode
_request_id = f"{secrets.token_hex(6)}-%08x"
_numbers = itertools.count(1)
_MARK = secrets.token_hex(16)  # stands for the request's id where a form is made


class Answer(NamedTuple):
    """Made without its constructor, which is a Python function and costs three times as much."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def new_request_id() -> str:
    """Unique among all workers: random per process, counted within."""
    return _request_id % next(_numbers)


def answer(outcome: Outcome, request_id: str, key: bytes = b"") -> Answer:
    """What `POST /v1/orders` answers to a request with this key."""
    if isinstance(outcome, Refusal):
        return problem(outcome, request_id)
    if isinstance(outcome, Receipt):
        return receipt(key, request_id)
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
    return tuple.__new__(Answer, (201, headers, body))


def receipt(key: bytes, request_id: str) -> Answer:
    """The order is in the journal; where it will be, once it is a row."""
    text = key.decode("ascii")
    body = _encode({"status": "accepted", "idempotency_key": text})
    headers = [
        CONTENT_JSON,
        (b"location", b"/v1/orders?idempotency_key=" + quote(text, safe="").encode()),
        (b"content-length", b"%d" % len(body)),
        (b"request-id", request_id.encode()),
        (b"retry-after", b"%d" % RETRY_AFTER_S),
        NO_STORE,
    ]
    return tuple.__new__(Answer, (202, headers, body))


class Form(NamedTuple):
    """What all answers of one refusal share: the document up to the request's id and after it, and the headers that
    not every problem has.
    """

    refusal: Refusal
    status: int
    before: bytes
    after: bytes
    headers: list[tuple[bytes, bytes]]


_forms: dict[int, Form] = {}  # by the id of their refusal


def problem(refusal: Refusal, request_id: str) -> Answer:
    """A refusal as RFC 9457 problem."""
    form = _forms.get(id(refusal)) or _form(refusal)
    body = form.before + _encode(request_id) + form.after
    headers = [
        CONTENT_PROBLEM,
        (b"content-length", b"%d" % len(body)),
        (b"request-id", request_id.encode()),
        NO_STORE,
        *form.headers,
    ]
    return tuple.__new__(Answer, (form.status, headers, body))


def _form(refusal: Refusal) -> Form:
    """Kept for who is refused next with the same object, which its own form keeps from becoming another one."""
    before, mark, after = _encode(problem_document(refusal, _MARK)).partition(_encode(_MARK))
    assert mark, "every problem has the request's id"
    form = Form(refusal, refusal.status, before, after, _headers(refusal))
    if not refusal.extra and len(before) + len(after) <= FORM_BYTES_MAX:
        if len(_forms) >= FORMS_MAX:
            _forms.clear()
        _forms[id(refusal)] = form
    return form


def _headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    headers = []
    wait_s = refusal.retry_after_s or (RETRY_AFTER_S if refusal.status == 503 else 0)
    if wait_s:
        headers.append((b"retry-after", b"%d" % wait_s))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="floodgate"'))
    return headers


def problem_document(refusal: Refusal, request_id: str) -> dict[str, Any]:
    known = PROBLEMS[refusal.code]
    document: dict[str, Any] = {"type": PROBLEM_URN + refusal.code, "title": known.title, "status": known.status}
    if refusal.detail:
        document["detail"] = refusal.detail
    document |= {"code": refusal.code, "retryable": known.retryable, "request_id": request_id}
    if refusal.errors:
        document["errors"] = refusal.errors
    return document | refusal.extra
