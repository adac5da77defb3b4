"""The description of the HTTP interface, and a page that shows it. The page's script and style come from here, so it
works with the network cut, and its policy keeps it from asking anybody else.
"""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from litestar import Response, get
from litestar.params import FromPath

from gateway.api import events_page as events
from gateway.api.answers import AnyRequest, json_answer, text_answer
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.domain.event_types import EVENT_TYPES, VERSION
from gateway.domain.outcomes import refuse

ASSET_TYPES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "schema.js": "text/javascript; charset=utf-8",
}
ASSET_AGE_S = 3600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = Operation(
    name="schemaPage",
    tag="Schema",
    summary="A page that shows this description",
    is_open=True,
    answers={200: Shown("The page", media_type="text/html")},
)
DOCUMENT = Operation(
    name="schema",
    tag="Schema",
    summary="This description",
    is_open=True,
    answers={200: Shown("OpenAPI 3.1", dict)},
)
EVENTS_PAGE = Operation(
    name="eventsPage",
    tag="Schema",
    summary="A page that shows the event streams",
    is_open=True,
    answers={200: Shown("The page", media_type="text/html")},
)
EVENTS_DOCUMENT = Operation(
    name="eventsSchema",
    tag="Schema",
    summary="The description of the event streams",
    is_open=True,
    answers={200: Shown("AsyncAPI 3.0", dict)},
)
EVENT_SCHEMA = Operation(
    name="eventSchema",
    tag="Schema",
    summary="The JSON Schema of an event's `data`",
    is_open=True,
    answers={200: Shown("JSON Schema, draft 2020-12", dict, media_type="application/schema+json")},
    problems=("not_found",),
    parameters=(
        Parameter("file", "path", str, "The type's name, with `.json`", required=True, example="order.created.v1.json"),
    ),
)
ASSET = Operation(
    name="schemaAsset",
    tag="Schema",
    summary="A script or style of the page",
    is_open=True,
    answers={
        200: Shown("The file", media_type="*/*", headers={"ETag": "A hash of the file"}),
        304: Shown("It is as it was", media_type=""),
    },
    problems=("not_found",),
    parameters=(
        Parameter("name", "path", str, "The file's name", required=True, example="schema.js"),
        Parameter("If-None-Match", "header", str, "The ETag of the copy at hand"),
    ),
)


class Asset(NamedTuple):
    body: bytes
    etag: str


@get("/schema", opt={OPERATION: PAGE})
async def schema_page() -> Response[bytes]:
    response = text_answer(_asset("schema.html").body, "text/html; charset=utf-8")
    response.headers |= {"content-security-policy": POLICY, "x-content-type-options": "nosniff"}
    return response


@get("/schema/openapi.json", opt={OPERATION: DOCUMENT})
async def schema_document(request: AnyRequest) -> Response[bytes]:
    return json_answer(bytes(request.app.state.document))


@get("/schema/events", opt={OPERATION: EVENTS_PAGE})
async def events_page(request: AnyRequest) -> Response[bytes]:
    response = text_answer(events.render(request.app.state.events), "text/html; charset=utf-8")
    response.headers |= {"content-security-policy": events.POLICY, "x-content-type-options": "nosniff"}
    return response


@get("/schema/asyncapi.json", opt={OPERATION: EVENTS_DOCUMENT})
async def events_document(request: AnyRequest) -> Response[bytes]:
    return json_answer(request.app.state.events)


@get("/schema/events/{file:str}", opt={OPERATION: EVENT_SCHEMA})
async def event_schema(file: FromPath[str]) -> Response[bytes]:
    kind = EVENT_TYPES.get(file.removesuffix(f".{VERSION}.json"))
    if kind is None or file != f"{kind.versioned}.json":
        raise refuse("not_found")
    return json_answer(kind.schema(), headers={"content-type": "application/schema+json"})


@get("/schema/assets/{name:str}", opt={OPERATION: ASSET})
async def schema_asset(request: AnyRequest, name: FromPath[str]) -> Response[bytes]:
    content_type = ASSET_TYPES.get(name)
    if content_type is None:
        raise refuse("not_found")
    asset = _asset(name)
    headers = {
        "etag": asset.etag,
        "cache-control": f"public, max-age={ASSET_AGE_S}",
        "x-content-type-options": "nosniff",
    }
    if request.headers.get("if-none-match") == asset.etag:
        return Response(b"", status_code=304, headers=headers)
    return Response(asset.body, headers=headers | {"content-type": content_type})


@cache
def _asset(name: str) -> Asset:
    body = (files("gateway.api") / "static" / name).read_bytes()
    return Asset(body, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
