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
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.api.order_bounds import bound
from gateway.api.sale_shapes import DOCUMENTED as SALES_DOCUMENTED
from gateway.api.shapes import DOCUMENTED
from gateway.domain.access import SCOPES
from gateway.domain.outcomes import RETRY_AFTER_S, Refusal
from gateway.edge.answers import problem_document
from gateway.settings import Settings

TEMPLATE = "#/components/schemas/{name}"
PROBLEM_TYPE = "application/problem+json"
REQUEST_ID = {"description": "Names the request in logs and problems", "schema": {"type": "string"}}
SECONDS = {"description": "In seconds", "schema": {"type": "integer"}, "example": RETRY_AFTER_S}
API_VERSION = "1"  # of the routes under /v1; additions leave it as it is
DESCRIPTION = (
    "An order gateway for flash sales, with a full order-management system behind it. "
    "Money is in minor units, times are RFC 3339 in UTC."
)
TAGS = ("Orders", "Products", "Stock", "Sales", "Health", "Schema")  # in the order in which the page shows them
Document = dict[str, Any]


def build(routes: Sequence[BaseRoute], settings: Settings) -> Document:
    """The document of an application with these routes."""
    _, components = msgspec.json.schema_components(
        (*DOCUMENTED, *SALES_DOCUMENTED, OrderIn, Product), ref_template=TEMPLATE
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
            "schemas": bound(components),
            "headers": {"RequestId": REQUEST_ID},
            "parameters": {"IdempotencyKey": _key_parameter(settings.retention.key_days)},
            "securitySchemes": {"token": _token_scheme()},
        },
    }


def _paths(routes: Sequence[BaseRoute]) -> Document:
    paths: Document = {}
    for route in sorted(routes, key=lambda route: route.path_format):
        if not isinstance(route, HTTPRoute):
            continue
        for handler in route.route_handlers:
            if OPERATION in handler.opt:
                methods = paths.setdefault(route.path_format, {})
                methods[_method(handler)] = _operation(handler.opt[OPERATION])
    return paths


def _method(handler: HTTPRouteHandler) -> str:
    (method,) = handler.http_methods
    return method.lower()


def _operation(operation: Operation) -> Document:
    document: Document = {"operationId": operation.name, "tags": [operation.tag], "summary": operation.summary}
    description = [operation.description] if operation.description else []
    if operation.scopes:
        description.append("Needs the scope " + " or ".join(f"`{scope}`" for scope in operation.scopes) + ".")
    if description:
        document["description"] = " ".join(description)
    document["security"] = [] if operation.is_open else [{"token": []}]
    parameters = [_parameter(parameter) for parameter in operation.parameters]
    if operation.keyed:
        parameters.append({"$ref": "#/components/parameters/IdempotencyKey"})
    if parameters:
        document["parameters"] = parameters
    if operation.body is not None:
        content = {"schema": _schema(operation.body), "example": operation.body_example}
        document["requestBody"] = {"required": True, "content": {"application/json": content}}
    document["responses"] = _responses(operation)
    return document


def _responses(operation: Operation) -> Document:
    responses = {str(status): _shown(shown) for status, shown in operation.answers.items()}
    for status in sorted({PROBLEMS[code].status for code in operation.codes}):
        responses[str(status)] = _problem(status, [code for code in operation.codes if PROBLEMS[code].status == status])
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
    if status == 503 or "sale_not_open" in codes:
        answer["headers"]["Retry-After"] = SECONDS
    examples = {code: {"value": problem_document(Refusal(code), "1f0c9d2a7b3e-00000001")} for code in codes}
    content = {"schema": {"$ref": TEMPLATE.format(name="Problem")}, "examples": examples}
    return answer | {"content": {PROBLEM_TYPE: content}}


def _parameter(parameter: Parameter) -> Document:
    document: Document = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.description,
        "schema": _schema(parameter.kind),
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
        "schema": {"type": "string", "minLength": 1, "maxLength": 512},
        "example": '"4f0a1c9e-2b7d-4a53-9a7e-0d2f6c8b1e35"',
        "x-retention-days": key_days,
    }


def _token_scheme() -> Document:
    scopes = "; ".join(f"`{scope}`: {what}" for scope, what in SCOPES.items())
    return {"type": "http", "scheme": "bearer", "description": f"The token of an API client. Scopes: {scopes}"}


def _schema(kind: Any) -> Document:
    (schema,), _ = msgspec.json.schema_components((kind,), ref_template=TEMPLATE)
    return schema
