"""The interface keeps what the last release has promised; and what the comparison calls a break is one, by planting
each kind.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deploy.contracts import release
from deploy.contracts.breaking import asyncapi_breaks, openapi_breaks

Document = dict[str, Any]
Change = Callable[[Document], object]

ORDER_IN = {
    "type": "object",
    "required": ["items"],
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/components/schemas/Item"}, "minItems": 1, "maxItems": 10},
        "note": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]},
        "kind": {"enum": ["a", "b"]},
        "parent": {"$ref": "#/components/schemas/OrderIn"},
    },
}
ITEM = {"type": "object", "properties": {"quantity": {"type": "integer", "minimum": 1}}}
ORDER = {
    "type": "object",
    "required": ["id", "note"],
    "properties": {"id": {"type": "string"}, "note": {"type": "string"}, "kind": {"enum": ["a", "b"]}},
}
POST = {
    "operationId": "place",
    "security": [],
    "parameters": [
        {"name": "limit", "in": "query", "schema": {"type": "number"}},
        {"$ref": "#/components/parameters/Key"},
    ],
    "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/OrderIn"}}}},
    "responses": {
        "201": {
            "headers": {"ETag": {"schema": {"type": "string"}}},
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Order"}}},
        }
    },
}
OLD: Document = {
    "paths": {"/orders": {"post": POST, "get": {"operationId": "list", "responses": {}}}},
    "components": {
        "schemas": {"OrderIn": ORDER_IN, "Item": ITEM, "Order": ORDER},
        "parameters": {"Key": {"name": "Key", "in": "header", "schema": {"type": "string"}}},
    },
}
EVENTS: Document = {
    "channels": {"c": {"address": "orders.{p}", "messages": {"m": {"$ref": "#/components/messages/m"}}}},
    "components": {
        "messages": {
            "m": {
                "contentType": "application/json",
                "headers": {"type": "object", "properties": {"id": {"type": "string"}}},
                "payload": {"schemaFormat": "json", "schema": {"$ref": "#/components/schemas/E"}},
            }
        },
        "schemas": {"E": {"type": "object", "properties": {"type": {"const": "t.v1"}, "data": {"type": "object"}}}},
    },
}


def post(document: Document) -> Document:
    operation: Document = document["paths"]["/orders"]["post"]
    return operation


def schema(document: Document, name: str) -> Document:
    found: Document = document["components"]["schemas"][name]
    return found


def field(document: Document, name: str, member: str) -> Document:
    found: Document = schema(document, name)["properties"][member]
    return found


BREAKS: dict[str, Change] = {
    "POST /orders: is gone": lambda d: d["paths"]["/orders"].pop("post"),
    "GET /orders: is gone": lambda d: d["paths"]["/orders"].pop("get"),
    "POST /orders: was place, is put": lambda d: post(d).update(operationId="put"),
    "POST /orders: needs a token now": lambda d: post(d).update(security=[{"token": []}]),
    "POST /orders query limit: is gone": lambda d: post(d)["parameters"].pop(0),
    "POST /orders query limit: is integer, was number": lambda d: post(d)["parameters"][0].update(
        schema={"type": "integer"}
    ),
    "POST /orders header Key: is required now": lambda d: d["components"]["parameters"]["Key"].update(required=True),
    "POST /orders query new: is required now": lambda d: post(d)["parameters"].append(
        {"name": "new", "in": "query", "required": True, "schema": {}}
    ),
    "POST /orders body: is required now": lambda d: post(d)["requestBody"].update(required=True),
    "POST /orders body: is gone": lambda d: post(d).pop("requestBody"),
    "POST /orders body application/json: is gone": lambda d: post(d)["requestBody"].update(
        content={"text/csv": {"schema": {}}}
    ),
    "POST /orders body.note: is required now": lambda d: schema(d, "OrderIn")["required"].append("note"),
    "POST /orders body.note: is gone": lambda d: schema(d, "OrderIn")["properties"].pop("note"),
    "POST /orders body: takes no other members now": lambda d: schema(d, "OrderIn").update(additionalProperties=False),
    "POST /orders body.items: maxItems is 5, was 10": lambda d: field(d, "OrderIn", "items").update(maxItems=5),
    "POST /orders body.items[].quantity: minimum is 2, was 1": lambda d: field(d, "Item", "quantity").update(minimum=2),
    "POST /orders body.items[].quantity: maximum is 9, was none": lambda d: field(d, "Item", "quantity").update(
        maximum=9
    ),
    "POST /orders body.note: maxLength is 8, was 9": lambda d: field(d, "OrderIn", "note")["anyOf"][0].update(
        maxLength=8
    ),
    "POST /orders body.note: is string, was null": lambda d: field(d, "OrderIn", "note")["anyOf"].pop(1),
    "POST /orders body.kind: the value 'b' is gone": lambda d: field(d, "OrderIn", "kind")["enum"].remove("b"),
    "POST /orders body.items[].quantity: has another pattern": lambda d: field(d, "Item", "quantity").update(
        pattern="1"
    ),
    "POST /orders body.items[].quantity: takes some values only": lambda d: field(d, "Item", "quantity").update(
        enum=[1]
    ),
    "POST /orders 201: is gone": lambda d: post(d).update(responses={"200": {}}),
    "POST /orders 201 ETag: is gone": lambda d: post(d)["responses"]["201"].pop("headers"),
    "POST /orders 201 application/json: is gone": lambda d: post(d)["responses"]["201"].pop("content"),
    "POST /orders 201.id: is gone": lambda d: schema(d, "Order")["properties"].pop("id"),
    "POST /orders 201.note: may be left out now": lambda d: schema(d, "Order")["required"].remove("note"),
    "POST /orders 201.note: is null, was string": lambda d: schema(d, "Order")["properties"].update(
        note={"anyOf": [{"type": "string"}, {"type": "null"}]}
    ),
    "POST /orders 201.kind: the value 'a' is gone": lambda d: field(d, "Order", "kind")["enum"].remove("a"),
}
ADDITIONS: dict[str, Change] = {
    "a route": lambda d: d["paths"].update({"/new": {"get": {"responses": {}}}}),
    "a parameter": lambda d: post(d)["parameters"].append({"name": "new", "in": "query", "schema": {}}),
    "a member that is sent": lambda d: schema(d, "OrderIn")["properties"].update(new={"type": "string"}),
    "a member that is read": lambda d: schema(d, "Order")["properties"].update(new={"type": "string"}),
    "a value": lambda d: field(d, "OrderIn", "kind")["enum"].append("c"),
    "a wider bound": lambda d: field(d, "Item", "quantity").pop("minimum"),
    "a status": lambda d: post(d)["responses"].update({"429": {}}),
    "no token": lambda d: post(d).pop("security"),
    "one more type that is sent": lambda d: field(d, "Item", "quantity").update(type=["integer", "string"]),
}
EVENT_BREAKS: dict[str, Change] = {
    "orders.{p}: is gone": lambda d: d["channels"].pop("c"),
    "orders.{p} m: is gone": lambda d: d["channels"]["c"]["messages"].pop("m"),
    "orders.{p} m: the content type is another": lambda d: d["components"]["messages"]["m"].pop("contentType"),
    "orders.{p} m headers.id: is gone": lambda d: d["components"]["messages"]["m"]["headers"]["properties"].pop("id"),
    "orders.{p} m payload.data: is gone": lambda d: schema(d, "E")["properties"].pop("data"),
    "orders.{p} m payload.type: is 't.v2', was 't.v1'": lambda d: field(d, "E", "type").update(const="t.v2"),
}


def changed(document: Document, change: Change) -> Document:
    new = copy.deepcopy(document)
    change(new)
    return new


@pytest.mark.parametrize(("line", "change"), BREAKS.items(), ids=BREAKS)
def test_release_with_a_planted_break_names_it(line: str, change: Change) -> None:
    assert openapi_breaks(OLD, changed(OLD, change)) == [line]


@pytest.mark.parametrize("change", ADDITIONS.values(), ids=ADDITIONS)
def test_release_with_an_addition_breaks_nothing(change: Change) -> None:
    assert openapi_breaks(OLD, changed(OLD, change)) == []


@pytest.mark.parametrize(("line", "change"), EVENT_BREAKS.items(), ids=EVENT_BREAKS)
def test_release_with_a_planted_break_of_an_event_names_it(line: str, change: Change) -> None:
    assert asyncapi_breaks(EVENTS, changed(EVENTS, change)) == [line]


@pytest.mark.parametrize("name", release.CONTRACTS)
def test_release_of_today_keeps_the_last_ones_promises(name: str) -> None:
    assert release.FOLDER.joinpath(f"{name}.json").exists()
    assert release.breaks(name) == []


def test_release_that_breaks_is_not_written_unless_it_is_meant(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert release.main([], tmp_path) == 0
    document = release.released("openapi", tmp_path)
    document["paths"]["/v1/gone"] = {"get": {"responses": {}}}
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    assert release.main([], tmp_path) == 1
    assert "openapi: GET /v1/gone: is gone" in capsys.readouterr().err
    assert release.released("openapi", tmp_path) == document
    assert release.main(["--breaking"], tmp_path) == 0
    assert "/v1/gone" not in release.released("openapi", tmp_path)["paths"]
