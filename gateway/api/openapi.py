"""The OpenAPI 3.1 document, made from the operations that the routes carry, the shapes that they take and give, and
the registry of codes.

Every answer that is not a success is a problem of RFC 9457, with an example per code. Litestar's own generator is not
used: it documents its own errors and sees neither the bounds of an order nor parameters that a handler reads itself.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar.handlers import HTTPRouteHandler
from litestar.routes import BaseRoute, HTTPRoute

from core_ext.codes import PROBLEMS
from core_ext.shapes import OrderIn, Product
from gateway.api.client_shapes import DOCUMENTED as CLIENTS_DOCUMENTED
from gateway.api.links import Routed, links_of
from gateway.api.movement_shapes import DOCUMENTED as MOVEMENTS_DOCUMENTED
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.api.order_bounds import bound
from gateway.api.plain_text import plain, plain_inputs
from gateway.api.sale_shapes import DOCUMENTED as SALES_DOCUMENTED
from gateway.api.settings_shapes import DOCUMENTED as SETTINGS_DOCUMENTED
from gateway.api.shapes import DOCUMENTED
from gateway.domain.access import SCOPES
from gateway.domain.keys import KEY_PATTERN
from gateway.domain.outcomes import RETRY_AFTER_S, Refusal
from gateway.edge.answers import problem_document
from gateway.settings import Settings

TEMPLATE = "#/components/schemas/{name}"
PROBLEM_TYPE = "application/problem+json"
REQUEST_ID = {"description": "Names the request in logs and problems", "schema": {"type": "string"}}
SECONDS = {"description": "In seconds", "schema": {"type": "integer"}, "example": RETRY_AFTER_S}
RATE_HEADERS = {
    "RateLimit-Policy": {
        "description": "The rates of the client and of each of its customers, where it has some: "
        "`q` requests in `w` seconds (draft-ietf-httpapi-ratelimit-headers)",
        "schema": {"type": "string"},
        "example": '"client";q=500;w=1, "customer";q=6;w=3',
    },
    "RateLimit": {
        "description": "Where the client stands, or on a 429 the rate that was broken: "
        "`r` requests may be sent at once, one more in `t` seconds",
        "schema": {"type": "string"},
        "example": '"client";r=99;t=1',
    },
}
API_VERSION = "1"  # of the routes under /v1; additions leave it as it is
DESCRIPTION = (
    "An order gateway for flash sales, with a full order-management system behind it. "
    "Money is in minor units, times are RFC 3339 in UTC."
)
# In the order in which the page shows them.
TAGS = ("Orders", "Products", "Stock", "Sales", "Clients", "Settings", "Health", "Schema")
Document = dict[str, Any]


def build(routes: Sequence[BaseRoute], settings: Settings) -> Document:
    """The document of an application with these routes."""
    _, components = msgspec.json.schema_components(
        (
            *DOCUMENTED,
            *SALES_DOCUMENTED,
            *MOVEMENTS_DOCUMENTED,
            *CLIENTS_DOCUMENTED,
            *SETTINGS_DOCUMENTED,
            OrderIn,
            Product,
        ),
        ref_template=TEMPLATE,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Floodgate",
            "version": API_VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in TAGS],
        "paths": _paths(routes),
        "components": {
            "schemas": plain_inputs(bound(components), _bodies(routes)),
            "headers": {"RequestId": REQUEST_ID} | RATE_HEADERS,
            "parameters": {"IdempotencyKey": _key_parameter(settings.retention.key_days)},
            "securitySchemes": {"token": _token_scheme()},
        },
    }


def _routed(routes: Sequence[BaseRoute]) -> list[Routed]:
    return [
        Routed(_method(handler), route.path_format, handler.opt[OPERATION])
        for route in sorted(routes, key=lambda route: route.path_format)
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if OPERATION in handler.opt
    ]


def _bodies(routes: Sequence[BaseRoute]) -> list[str]:
    """The names of the shapes that come in."""
    return [routed.operation.body.__name__ for routed in _routed(routes) if routed.operation.body is not None]


def _paths(routes: Sequence[BaseRoute]) -> Document:
    paths: Document = {}
    everything = _routed(routes)
    for routed in everything:
        paths.setdefault(routed.path, {})[routed.method] = _operation(routed, everything)
    return paths


def _method(handler: HTTPRouteHandler) -> str:
    (method,) = handler.http_methods
    return method.lower()


def _operation(routed: Routed, everything: list[Routed]) -> Document:
    operation = routed.operation
    document: Document = {"operationId": operation.name, "tags": [operation.tag], "summary": operation.summary}
    description = [operation.description] if operation.description else []
    if operation.scopes:
        description.append("Needs the scope " + " or ".join(f"`{scope}`" for scope in operation.scopes) + ".")
    if description:
        document["description"] = " ".join(description)
    document["security"] = [] if operation.is_open else [{"token": []}]
    parameters = [_parameter(parameter, is_plain=operation.checks_query) for parameter in operation.parameters]
    if operation.keyed:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if parameters:
        document["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": _schema(operation.body), "example": operation.body_example}
        document["requestBody"] = {"required": True, "content": {operation.body_type: content}}
    document["responses"] = _responses(operation)
    for status, shown in operation.answers.items():
        links = links_of(routed, shown, everything)
        if links:
            document["responses"][str(status)]["links"] = links
    return document


def _responses(operation: Operation) -> Document:
    responses = {str(status): _shown(shown) for status, shown in operation.answers.items()}
    for status in sorted({PROBLEMS[code].status for code in operation.codes}):
        responses[str(status)] = _problem(status, [code for code in operation.codes if PROBLEMS[code].status == status])
    for status_text, answer in responses.items():
        if not operation.is_open and status_text != "401":
            answer["headers"] |= {name: {"$ref": f"#/components/headers/{name}"} for name in RATE_HEADERS}
    return responses


def _shown(shown: Shown) -> Document:
    answer: Document = {
        "description": shown.description,
        "headers": {"Request-Id": {"$ref": "#/components/headers/RequestId"}},
    }
    for name, description in shown.headers.items():
        answer["headers"][name] = {"description": description, "schema": {"type": "string"}}
    if not shown.media_type:
        return answer
    content: Document = {"schema": {"type": "string"} if shown.kind is None else _schema(shown.kind)}
    if shown.example is not None:
        content["example"] = shown.example
    return answer | {"content": {shown.media_type: content}}


def _problem(status: int, codes: list[str]) -> Document:
    answer = _shown(Shown("; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in codes)))
    if status == 401:
        answer["headers"]["WWW-Authenticate"] = {"description": "Bearer", "schema": {"type": "string"}}
    if status in {429, 503} or "sale_not_open" in codes:
        answer["headers"]["Retry-After"] = SECONDS
    examples = {code: {"value": problem_document(Refusal(code), "1f0c9d2a7b3e-00000001")} for code in codes}
    content = {"schema": {"$ref": TEMPLATE.format(name="Problem")}, "examples": examples}
    return answer | {"content": {PROBLEM_TYPE: content}}


def _parameter(parameter: Parameter, *, is_plain: bool) -> Document:
    schema = _schema(parameter.kind)
    document: Document = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": plain(schema) if is_plain and parameter.place == "query" else schema,
    }
    if parameter.required:
        document["required"] = True
    if parameter.example is not None:
        document["example"] = parameter.example
    return document


def _key_parameter(key_days: int) -> Document:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": True,
        "description": (
            "1 to 255 visible ASCII characters, quoted (RFC 8941) or bare, the same key either way. "
            f"Each client has its own keys. A key is kept for {key_days} days."
        ),
        "schema": {"type": "string", "minLength": 1, "maxLength": 512, "pattern": KEY_PATTERN},
        "example": '"4f0a1c9e-2b7d-4a53-9a7e-0d2f6c8b1e35"',
        "x-retention-days": key_days,
    }


def _token_scheme() -> Document:
    scopes = "; ".join(f"`{scope}`: {what}" for scope, what in SCOPES.items())
    return {"type": "http", "scheme": "bearer", "description": f"The token of an API client. Scopes: {scopes}"}


def _schema(kind: Any) -> Document:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=TEMPLATE)
    return schema
