"""Whatever goes wrong beside the hot route leaves as one of our problems, with a Request-Id, and without internals."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
import structlog
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway import api
from gateway.domain.outcomes import Refusal
from gateway.edge.hot import Edge
from gateway.settings import Http, Settings
from persistence.errors import LedgerUnavailableError
from tests.api import Book, Fake, Placing, Reply, call, services

ORDER = "/v1/orders/0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51"


async def failing(error: Exception) -> Reply:
    book = Book()
    book.error = error
    return await call(api.create(services(book=book)), "GET", ORDER)


async def ask(method: str, target: str, body: bytes | None = None, **request: Any) -> Reply:
    return await call(api.create(services()), method, target, body, **request)


@pytest.mark.parametrize("path", ["/", "/v2", "/v1/orders/x/y", "/schema/assets/../x", "/v1//nothing", "/%00"])
async def test_api_for_an_unknown_path_is_not_found(path: str) -> None:
    reply = await ask("GET", path)
    assert (reply.status, reply.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/orders", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", "/v1/products/a%2Fb", {"GET", "HEAD", "PUT", "PATCH", "OPTIONS"}),
        ("TRACE", "/livez", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/v1/stock/A", {"GET", "HEAD", "PUT", "PATCH", "OPTIONS"}),
        ("PUT", "/v1/orders/x/cancel", {"POST", "OPTIONS"}),
    ],
)
async def test_api_for_another_method_names_those_allowed(method: str, path: str, allowed: set[str]) -> None:
    reply = await ask(method, path)
    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert set((reply.header("allow") or "").split(", ")) == allowed


async def test_api_for_options_names_the_methods_without_a_token() -> None:
    reply = await ask("OPTIONS", "/v1/orders", token=None)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.header("allow") == "GET, HEAD, OPTIONS, POST"
    assert reply.header("cache-control") == "no-store"


@pytest.mark.parametrize(
    "target", ["/livez", "/readyz?verbose", "/schema/openapi.json", "/v1/orders", "/nothing", ORDER]
)
async def test_api_for_head_answers_as_for_get_without_the_body(target: str) -> None:
    app = api.create(services())
    shown, head = await call(app, "GET", target), await call(app, "HEAD", target)
    assert (head.status, head.body) == (shown.status, b"")
    assert [name for name, _ in head.headers] == [name for name, _ in shown.headers]
    assert head.header("content-type") == shown.header("content-type")


async def test_api_for_head_tells_the_length_of_the_body() -> None:
    app = api.create(services())
    shown, head = await call(app, "GET", "/livez"), await call(app, "HEAD", "/livez")
    assert head.header("content-length") == shown.header("content-length") == str(len(shown.body))


async def test_api_for_head_without_a_token_is_401() -> None:
    reply = await ask("HEAD", "/v1/orders", token=None)
    assert (reply.status, reply.body) == (401, b"")


async def test_api_for_head_is_logged_as_it_was_asked_for() -> None:
    parts = services()
    with structlog.testing.capture_logs() as logs:
        await call(Edge(parts.route, api.create(parts)), "HEAD", ORDER, token=None)
    assert [(entry["method"], entry["route"]) for entry in logs] == [("HEAD", "/v1/orders/{order_id}")]


async def test_api_for_head_where_there_is_no_get_is_405() -> None:
    reply = await ask("HEAD", "/v1/orders/x/cancel")
    assert (reply.status, reply.header("allow")) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("target", ["/livez", "/nothing", "/v1/orders", "/v1/orders?x=1", "/schema", ORDER])
async def test_api_for_any_request_has_its_headers(target: str) -> None:
    reply = await ask("GET", target)
    assert reply.header("request-id")
    assert reply.header("cache-control") == "no-store"


async def test_api_for_a_problem_names_the_request() -> None:
    reply = await ask("GET", "/nothing")
    assert reply.json["request_id"] == reply.header("request-id")


async def test_api_for_an_unexpected_error_tells_nothing() -> None:
    with structlog.testing.capture_logs() as logs:
        reply = await failing(RuntimeError("secret of the house"))
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert [(entry["event"], entry["request_id"]) for entry in logs] == [("request_failed", reply.header("request-id"))]


@pytest.mark.parametrize(
    "error",
    [
        LedgerUnavailableError("away"),
        OSError("refused"),
        TimeoutError(),
        asyncpg.PostgresConnectionError("cut"),
        asyncpg.InterfaceError("pool is closing"),
        asyncpg.QueryCanceledError("too long"),
    ],
    ids=repr,
)
async def test_api_without_its_ledger_says_so(error: Exception) -> None:
    with structlog.testing.capture_logs():
        reply = await failing(error)
    assert (reply.status, reply.code) == (503, "ledger_away")
    assert reply.header("retry-after") == "1"
    assert b"cut" not in reply.body


async def test_api_for_a_value_that_the_driver_cannot_encode_is_internal() -> None:
    with structlog.testing.capture_logs():
        reply = await failing(asyncpg.DataError("invalid input for query argument $1"))
    assert (reply.status, reply.code) == (500, "internal")


async def test_api_for_a_bad_host_is_a_bad_request() -> None:
    reply = await ask("GET", "/livez", headers={"host": "a b"})
    assert (reply.status, reply.code) == (400, "bad_request")


BODIES = {
    "nothing": (b"", "malformed_json"),
    "half": (b'{"total":', "malformed_json"),
    "invalid UTF-8": (b'{"total":1,"reason":"\xff"}', "malformed_json"),
    "invalid UTF-8 in an unknown field": (b'{"\xff":1}', "malformed_json"),
    "lone surrogate": (b'{"reason":"\\ud800"}', "malformed_json"),
    "UTF-16": ('{"total":1}'.encode("utf-16"), "malformed_json"),
    "NaN": (b'{"total":NaN}', "malformed_json"),
    "nested": (b'{"x":' + b"[" * 30_000, "malformed_json"),
    "nested and closed": (b'{"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "malformed_json"),
    "endless digits": (b'{"total":' + b"9" * 60_000 + b"}", "malformed_json"),
    "many digits": (b'{"total":' + b"9" * 4_000 + b"}", "invalid"),
    "NUL": (b'{"total":1,"reason":"a\\u0000"}', "invalid"),
    "array": (b"[]", "invalid"),
    "null": (b"null", "invalid"),
    "boolean": (b'{"total":true}', "invalid"),
    "fraction": (b'{"total":1.0}', "invalid"),
    "unknown field": (b'{"total":1,"delta":1}', "invalid"),
    "too large": (b" " * 65_537, "body_too_large"),
}


@pytest.mark.parametrize(("body", "code"), BODIES.values(), ids=BODIES)
async def test_api_for_a_bad_body_refuses(body: bytes, code: str) -> None:
    assert (await ask("PUT", "/v1/stock/A", body)).code == code


async def test_api_for_a_body_of_another_type_refuses() -> None:
    reply = await ask("PUT", "/v1/stock/A", b"{}", headers={"content-type": "text/plain"})
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_api_for_a_body_that_does_not_come_is_a_timeout() -> None:
    parts = services(settings=Settings(http=Http(body_timeout_ms=1)))
    reply = await call(api.create(parts), "PUT", "/v1/stock/A", b"{}", stalled=True)
    assert (reply.status, reply.code) == (408, "body_timeout")


async def none_of(*_arguments: object) -> Sequence[object]:
    return ()


async def nothing(*_arguments: object) -> None:
    return None


def empty() -> api.Application:
    """An application whose ledger has nothing, and that is sold out."""
    placing = Placing()
    placing.outcome = Refusal("sold_out")
    return api.create(services(admission=placing, pool=Fake(fetch=none_of, fetchrow=nothing)))


EMPTY = empty()
targets = st.one_of(
    st.text(st.characters(codec="ascii", exclude_characters="?# "), max_size=20).map(lambda text: f"/{text}"),
    st.tuples(
        st.sampled_from(["/v1/orders", "/v1/products", "/v1/stock/A", "/livez", "/schema", "/schema/assets/a", ORDER]),
        st.binary(max_size=12).map(lambda raw: raw.decode("latin-1")),
    ).map(lambda pair: f"{pair[0]}?{quote(pair[1], encoding='latin-1', safe='=&%+;')}"),
    st.tuples(
        st.sampled_from(["/schema/assets/", "/v1/orders/", "/v1/stock/", "/v1/products/"]), st.binary(max_size=12)
    ).map(lambda pair: f"{pair[0]}{quote(pair[1], safe='/')}"),
)
methods = st.sampled_from(["GET", "PUT", "PATCH", "POST", "HEAD", "OPTIONS", "X"])
bodies = st.sampled_from([None, b"", b"[]", b"{}", b'{"total":1}'])
values = st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"]), max_size=20)
headers = st.dictionaries(
    st.sampled_from(["if-match", "if-none-match", "content-type", "content-length", "idempotency-key", "cookie"]),
    values,
)


@settings(max_examples=400, deadline=None, phases=[Phase.generate])
@given(method=methods, target=targets, given_headers=headers, body=bodies)
async def test_api_for_anything_never_fails(
    method: str, target: str, given_headers: dict[str, str], body: bytes | None
) -> None:
    reply = await call(EMPTY, method, target, body, given_headers)
    assert reply.status < 500
    assert reply.status < 400 or method == "HEAD" or reply.code
