"""The parts of a request: SKU, query, If-Match, body. What is wrong with one leaves as a ProblemError that names it
and never repeats a value, which may be personal.
"""

import re
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec
from msgspec import Meta, Struct

from core_ext.limits import SKU_CHARS_MAX
from core_ext.reference.validation import CONTROL
from gateway.api.answers import AnyRequest
from gateway.api.faults import find_faults
from gateway.api.operations import ETAG_PATTERN
from gateway.domain.keys import KEY_CHARS_MAX, parse_key
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.edge.requests import Receive, is_json, read_body, read_headers
from gateway.services import Services

BODY_BYTES_MAX = 65536
SKUS_MAX = 100  # of one query
PARAMETERS_MAX = SKUS_MAX + 1  # of a query: SKUs and a sale
LIMIT_DEFAULT = 50
LIMIT_MAX = 200
LIMIT = Annotated[int, Meta(ge=1, le=LIMIT_MAX)]

_ETAG = re.compile(ETAG_PATTERN)

Body = TypeVar("Body", bound=Struct)


def services_of(request: AnyRequest) -> Services:
    services: Services = request.app.state.services
    return services


def receive_of(request: AnyRequest) -> Receive:
    """Litestar types messages one by one, the edge as mappings; they are the same."""
    return cast("Receive", request.receive)


def read_sku(request: AnyRequest) -> str | None:
    """The SKU in the path; None when it cannot be one. It stands there as it was sent (see `Application`)."""
    try:
        sku = unquote_to_bytes(request.path_params["sku"].encode("latin-1")).decode()
    except UnicodeDecodeError:
        return None
    return sku if is_sku(sku) else None


def is_sku(text: str) -> bool:
    return 1 <= len(text) <= SKU_CHARS_MAX and text.isprintable()


def read_pairs(query_string: bytes) -> list[tuple[str, str]]:
    """Names and values of a query, as they stand there. Raises ProblemError."""
    try:
        return parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=PARAMETERS_MAX)
    except ValueError as error:
        raise refuse("bad_parameter", f"a query is valid UTF-8 and has at most {PARAMETERS_MAX} parameters") from error


def read_query(request: AnyRequest) -> dict[str, str]:
    """The parameters of the query, each given once; the guard has refused those that the route does not have."""
    query: dict[str, str] = {}
    for name, value in read_pairs(request.scope["query_string"]):
        if name in query:
            raise refuse("bad_parameter", f"{name} is given more than once")
        if CONTROL.search(value):
            raise refuse("bad_parameter", f"{name} has a control character")
        query[name] = value
    return query


def read_limit(query: dict[str, str]) -> int:
    text = query.get("limit", str(LIMIT_DEFAULT))
    if not re.fullmatch("[0-9]{1,3}", text) or not 1 <= int(text) <= LIMIT_MAX:
        raise refuse("bad_parameter", f"limit is 1 to {LIMIT_MAX}")
    return int(text)


def read_if_match(request: AnyRequest) -> int | None:
    """The version that the caller believes to be there; None without the header. An ETag that we would not have given
    matches nothing.
    """
    values = request.headers.getall("if-match", [])
    if not values:
        return None
    matched = _ETAG.fullmatch(values[0].strip())
    if len(values) > 1 or "," in values[0] or values[0].strip() == "*":
        raise refuse("bad_request", "If-Match takes one ETag")
    if matched is None:
        raise refuse("version_mismatch", "If-Match is not an ETag of ours")
    return int(matched.group().strip('"'))


def read_precondition(request: AnyRequest) -> int | None:
    """The version that a PUT is meant for; 0 with `If-None-Match: *`, when there must be nothing yet; None: any."""
    values = request.headers.getall("if-none-match", [])
    version = read_if_match(request)
    if not values:
        return version
    if [value.strip() for value in values] != ["*"]:
        raise refuse("bad_request", "If-None-Match takes *")
    if version is not None:
        raise refuse("version_mismatch", "no version of it is there, and nothing is there: never both")
    return 0


def mismatch(if_version: int | None) -> ProblemError:
    """The error of a change that was meant for another version than there is."""
    return refuse("version_mismatch", "it exists already" if if_version == 0 else "")


def read_required_match(request: AnyRequest) -> int:
    """The same of a change that is meant for one version alone."""
    version = read_if_match(request)
    if version is None:
        raise refuse("precondition_required", "If-Match names the version that the change is meant for, its ETag")
    return version


def read_key(request: AnyRequest) -> bytes:
    """The Idempotency-Key of a route that cannot do without one."""
    headers = read_headers(request.scope["headers"])
    if headers.key is None:
        raise refuse("key_missing")
    key = parse_key(headers.key) if headers.keys == 1 else None
    if key is None:
        raise refuse("key_invalid", f"a key is 1 to {KEY_CHARS_MAX} visible ASCII characters and stands there once")
    return key


async def read_json(request: AnyRequest, shape: type[Body]) -> Body:
    """The body as `shape`, with every fault named at once."""
    return parse_json(await read_raw(request), shape)


async def read_raw(request: AnyRequest) -> bytes:
    """The body as it was sent, which says that it is JSON."""
    headers = read_headers(request.scope["headers"])
    if not is_json(headers.content_type):
        raise refuse("unsupported_media_type")
    timeout_s = services_of(request).settings.http.body_timeout_ms / 1000
    body = await read_body(receive_of(request), headers.length, BODY_BYTES_MAX, timeout_s)
    if isinstance(body, Refusal):
        raise ProblemError(body)
    return body


def parse_json(body: bytes, shape: type[Body]) -> Body:
    """What a body says, as `read_json` does."""
    document = decode_json(body)
    faults = find_faults(document, shape)
    if faults:
        errors = tuple({"detail": fault.detail, "pointer": fault.pointer, "code": fault.code} for fault in faults)
        raise ProblemError(Refusal("invalid", "the body is not valid", errors))
    return msgspec.convert(document, shape)


def decode_json(body: bytes) -> Any:
    """A body as JSON, whatever it says."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # Beside its own error msgspec raises UnicodeDecodeError (msgspec #714), ValueError for digits without end,
        # RecursionError for nesting.
        raise refuse("malformed_json") from error
