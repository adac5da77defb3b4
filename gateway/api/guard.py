"""Who may call a route: checked before anything else of the request is looked at, from the tokens in memory. A route
without an `Operation` is refused, since nobody has said who may call it; OPTIONS tells only the methods and is open.

Whoever may call it names only parameters that the route has: one that was misspelt must never change something else
than was meant.
"""

from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from gateway.api.answers import RATE_HEADERS, AnyRequest
from gateway.api.operations import OPERATION, Operation
from gateway.api.reading import read_pairs
from gateway.domain.access import Client
from gateway.domain.outcomes import ProblemError, refuse
from gateway.services import Services

NAME_CHARS_MAX = 40  # of a parameter that is named in an answer


def authorize(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """The guard of the application. Raises ProblemError."""
    if connection.scope["method"] == "OPTIONS":  # type: ignore[typeddict-item]
        return
    operation: Operation = handler.opt[OPERATION]
    if not (operation.is_open or operation.checks_itself):
        services: Services = connection.app.state.services
        client = _client(services, connection.headers.get("authorization", ""))
        connection.scope["state"]["client"] = client
        _check_rate(services, client, connection.scope["state"])
        _check_scopes(client, operation)
    if operation.checks_query:
        _check_query(connection.scope["query_string"], operation)


def client_of(request: AnyRequest) -> Client:
    """Who the guard has let in."""
    client: Client = request.scope["state"]["client"]
    return client


def _client(services: Services, header: str) -> Client:
    client = services.access.find(header.encode("latin-1"), services.clock.now_s())
    if client is None:
        raise ProblemError(services.access.refusal())
    return client


def _check_rate(services: Services, client: Client, state: dict[str, Any]) -> None:
    """Charge the client one request. Every answer to it says where it stands."""
    allowance = services.rates.of(client)
    if allowance is None:
        return
    refusal = allowance.refusal()
    state[RATE_HEADERS] = allowance.headers(refusal)
    if refusal is not None:
        raise ProblemError(refusal)


def _check_scopes(client: Client, operation: Operation) -> None:
    if operation.scopes and not any(client.may(scope) for scope in operation.scopes):
        raise refuse("scope_missing", f"the route needs the scope {' or '.join(operation.scopes)}")


def _check_query(query_string: bytes, operation: Operation) -> None:
    known = {parameter.name for parameter in operation.parameters if parameter.place == "query"}
    for name, _ in read_pairs(query_string):
        if name not in known:
            shown = name[:NAME_CHARS_MAX]
            raise refuse("bad_parameter", f"{shown} is not a parameter of this route" if shown.isprintable() else "")
