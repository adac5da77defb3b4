"""Answers of the routes beside the hot one: ours, and what becomes of an error, Litestar's own included. Every answer
has a Request-Id and is not stored.

Nothing internal ever goes out: an error that nobody expected is logged with its state and answered as `internal`.
"""

from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import Message, Scope

from gateway.domain.outcomes import ProblemError, Refusal
from gateway.edge.answers import JSON, Answer, new_request_id, problem
from gateway.requests_log import UNMATCHED, RequestLog
from persistence.errors import LedgerUnavailableError
from persistence.postgres.connect import UNREACHABLE

# The statuses of Litestar's own errors that have a code of ours; other ones of the caller are bad_request.
CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 415: "unsupported_media_type"}

RATE_HEADERS = "rate_headers"  # the key, in the state of a request, of what its client is told of its rate

AnyRequest = Request[Any, Any, Any]

log = structlog.get_logger("api")


def request_id_of(scope: Scope) -> str:
    """The same for all that is said about one request."""
    state = scope["state"]
    if "request_id" not in state:
        state["request_id"] = new_request_id()
    return str(state["request_id"])


def json_answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A success. `document` is JSON already when it is bytes."""
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return Response(body, status_code=status, headers={"content-type": JSON.decode()} | (headers or {}))


def text_answer(text: str | bytes, content_type: str, status: int = 200) -> Response[bytes]:
    body = text.encode() if isinstance(text, str) else text
    return Response(body, status_code=status, headers={"content-type": content_type})


def passed_on(answer: Answer) -> Response[bytes]:
    """An answer in the edge's form, as Litestar wants it."""
    headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers)


def etag(version: int) -> str:
    return f'"{version}"'


def answer_error(request: AnyRequest, error: Exception) -> Response[bytes]:
    """The exception handler of the application."""
    refusal = _refusal(error)
    if refusal.code == "internal":
        route = request.scope.get("path_template") or UNMATCHED
        requests: RequestLog = request.app.state.services.route.log
        requests.exception(request_id_of(request.scope), request.method, route, error)
    request.scope["state"]["code"] = refusal.code
    response = passed_on(problem(refusal, request_id_of(request.scope)))
    if isinstance(error, HTTPException) and error.headers and "allow" in error.headers:
        response.headers["allow"] = error.headers["allow"]
    return response


async def complete_headers(message: Message, scope: Scope) -> None:
    """Give every answer its Request-Id, and keep it from being stored unless it says otherwise itself. Methods that
    are allowed are named whole.
    """
    if message["type"] != "http.response.start":
        return
    headers = [
        (name, _allowed(value, scope) if name.lower() == b"allow" else value) for name, value in message["headers"]
    ]
    names = {name.lower() for name, _ in headers}
    if b"request-id" not in names:
        headers.append((b"request-id", request_id_of(scope).encode()))
    if b"cache-control" not in names:
        headers.append((b"cache-control", b"no-store"))
    headers += scope["state"].get(RATE_HEADERS, ())
    message["headers"] = headers


def _allowed(told: bytes, scope: Scope) -> bytes:
    """Every method of the route. Litestar's answer to OPTIONS knows those of the first handler only; and whoever has
    GET has HEAD (see `Application`).
    """
    of_route = scope["litestar_app"].state.methods.get(scope.get("path_template"), ())
    methods = {*told.decode().replace(" ", "").split(","), *of_route}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set()))).encode()


def _refusal(error: Exception) -> Refusal:
    if isinstance(error, ProblemError):
        return error.refusal
    if isinstance(error, LedgerUnavailableError):
        return Refusal("ledger_away")
    if isinstance(error, HTTPException) and error.status_code < 500:
        return Refusal(CODES.get(error.status_code, "bad_request"))
    # asyncpg's error for a value that it cannot encode is an InterfaceError, too: that is our bug and not an outage.
    if isinstance(error, UNREACHABLE) and not isinstance(error, ValueError):
        log.warning("ledger_not_reached", error=repr(error))
        return Refusal("ledger_away")
    return Refusal("internal")
