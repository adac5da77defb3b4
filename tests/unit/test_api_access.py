"""Who may call which route: every route says so itself, and the guard holds it to that."""

import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from core_ext.codes import PROBLEMS
from gateway import api
from gateway.api.operations import OPERATION, Operation
from gateway.domain.access import SCOPES
from tests.api import call, services

OPEN = {
    "/livez",
    "/readyz",
    "/schema",
    "/schema/openapi.json",
    "/schema/asyncapi.json",
    "/schema/events",
    "/schema/events/{file}",
    "/schema/assets/{name}",
}


def handlers(application: Litestar) -> list[tuple[str, HTTPRouteHandler]]:
    routes = [route for route in application.routes if isinstance(route, HTTPRoute)]
    return [(r.path_format, h) for r in routes for h in r.route_handlers if h.http_methods != {"OPTIONS"}]


OPERATIONS: list[tuple[str, str, Operation]] = [
    (path, method, handler.opt[OPERATION])
    for path, handler in handlers(api.create(services()))
    for method in sorted(handler.http_methods)
]
CLOSED = [(path, method, operation) for path, method, operation in OPERATIONS if not operation.is_open]


def test_routes_without_a_token_are_the_documented_ones() -> None:
    assert {path for path, _, operation in OPERATIONS if operation.is_open} == OPEN


def test_routes_name_only_scopes_and_codes_that_exist() -> None:
    assert all(scope in SCOPES for _, _, operation in OPERATIONS for scope in operation.scopes)
    assert all(code in PROBLEMS for _, _, operation in OPERATIONS for code in operation.codes)


@pytest.mark.parametrize(("path", "method", "operation"), CLOSED, ids=[o.name for _, _, o in CLOSED])
@pytest.mark.parametrize("token", [None, "fg_other", "fg_expired", ""])
async def test_route_without_a_valid_token_is_401(
    path: str, method: str, operation: Operation, token: str | None
) -> None:
    reply = await call(api.create(services()), method, path, token=token)
    assert (reply.status, reply.code) == (401, "unauthenticated"), operation.name
    assert reply.header("www-authenticate") == 'Bearer realm="floodgate"'


SCOPED = [entry for entry in CLOSED if entry[2].scopes]


@pytest.mark.parametrize(("path", "method", "operation"), SCOPED, ids=[o.name for _, _, o in SCOPED])
async def test_route_without_its_scope_is_403_and_names_it(path: str, method: str, operation: Operation) -> None:
    reply = await call(api.create(services()), method, path, token="fg_none")
    assert (reply.status, reply.code) == (403, "scope_missing")
    assert all(scope in reply.json["detail"] for scope in operation.scopes)


CHECKING = [entry for entry in CLOSED if not entry[2].checks_itself]


@pytest.mark.parametrize(("path", "method", "operation"), CHECKING, ids=[o.name for _, _, o in CHECKING])
async def test_route_with_a_parameter_that_it_does_not_have_is_400_and_names_it(
    path: str, method: str, operation: Operation
) -> None:
    known = next((p.name for p in operation.parameters if p.place == "query"), None)
    query = f"{known}=1&colour=red" if known else "colour=red"
    reply = await call(api.create(services()), method, f"{path}?{query}")
    assert (reply.status, reply.code) == (400, "bad_parameter")
    assert reply.json["detail"] == "colour is not a parameter of this route"
    assert "bad_parameter" in operation.codes


async def test_route_with_an_unknown_parameter_and_no_scope_is_403() -> None:
    assert (await call(api.create(services()), "GET", "/v1/stock?colour=red", token="fg_none")).status == 403


async def test_route_without_a_token_takes_any_parameter() -> None:
    assert (await call(api.create(services()), "GET", "/livez?colour=red", token=None)).status == 200


async def test_route_with_a_token_beyond_ascii_is_401() -> None:
    reply = await call(api.create(services()), "GET", "/v1/orders", token="fg_\xe9")
    assert reply.status == 401
