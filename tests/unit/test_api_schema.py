"""The description of the interface: valid OpenAPI 3.1, true to the routes, the codes and what goes over the wire; its
page asks nobody else.
"""

import re
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from core_ext import documents, limits, validation
from core_ext.codes import PROBLEMS
from core_ext.shapes import Line, Order, OrderIn, ShipTo
from gateway import api
from gateway.api import examples
from gateway.api.order_bounds import BOUNDS
from gateway.domain.outcomes import Refusal
from gateway.edge.answers import problem
from gateway.settings import Retention, Settings
from tests.api import call, services

DOCUMENT: dict[str, Any] = msgspec.json.decode(api.create(services()).state.document)
OPERATIONS = {
    operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()
}
ITEM = {"sku": "A", "quantity": 1}
ORDER = {"channel": "app", "currency": "CNY", "items": [ITEM]}


def validator(name: str) -> Draft202012Validator:
    resource = DRAFT202012.create_resource(DOCUMENT)
    registry: Registry[Any] = Registry().with_resource("urn:document", resource)
    return Draft202012Validator({"$ref": f"urn:document#/components/schemas/{name}"}, registry=registry)


def test_document_is_valid_openapi() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_document_names_every_operation_once() -> None:
    names = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    assert len(names) == len(set(names)) == len(api.HANDLERS)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_document_of_an_operation_has_problems_for_errors(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        assert response["headers"]["Request-Id"] == {"$ref": "#/components/headers/RequestId"}
        is_text = list(response.get("content", {})) == ["text/plain"]  # what /readyz says when it is not
        if int(status) >= 400 and not is_text:
            content = response["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert all(PROBLEMS[code].status == int(status) for code in content["examples"])


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_document_of_an_operation_has_examples_that_fit(operation: dict[str, Any]) -> None:
    contents = [
        content for response in operation["responses"].values() for content in response.get("content", {}).values()
    ]
    contents += operation.get("requestBody", {}).get("content", {}).values()
    for content in contents:
        shown = [example["value"] for example in content.get("examples", {}).values()]
        shown += [content["example"]] if "example" in content else []
        for example in shown:
            validator(content["schema"]["$ref"].rpartition("/")[2]).validate(example)


def test_document_lists_all_codes() -> None:
    assert DOCUMENT["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(PROBLEMS)


@pytest.mark.parametrize("code", PROBLEMS)
def test_document_describes_the_problems_that_go_out(code: str) -> None:
    entry = {"detail": "0 are left", "pointer": "#/items/0", "available": 0}
    validator("Problem").validate(msgspec.json.decode(problem(Refusal(code, "why", (entry,)), "r").body))


def test_document_publishes_how_long_keys_are_kept() -> None:
    parts = services(settings=Settings(retention=Retention(key_days=30)))
    parameter = msgspec.json.decode(api.create(parts).state.document)["components"]["parameters"]["IdempotencyKey"]
    assert parameter["x-retention-days"] == 30
    assert "30 days" in parameter["description"]


def test_document_describes_the_orders_that_go_out() -> None:
    line = Line(1, "A", "t", 2, 5, 10, stocked=True)
    order = Order(
        bytes(16), 1, "app", "CNY", "paid", 1, 10, [line], 0, "c", "e", "s", b'{"a":"b"}', b"[]", 0, "r", 0, 0, "n",
        ShipTo(name="x"),
    )  # fmt: skip
    shown = msgspec.json.decode(documents.order_json(order, documents.PLAIN))
    validator("OrderOut").validate(shown)
    assert set(shown) == set(DOCUMENT["components"]["schemas"]["OrderOut"]["properties"])


EDGES: dict[str, tuple[dict[str, Any], bool]] = {
    "as small as possible": (ORDER, True),
    "the example": (examples.ORDER_IN, True),
    "no items": (ORDER | {"items": []}, False),
    "most items": (ORDER | {"items": [ITEM] * limits.ITEMS_MAX}, True),
    "too many items": (ORDER | {"items": [ITEM] * (limits.ITEMS_MAX + 1)}, False),
    "quantity 0": (ORDER | {"items": [ITEM | {"quantity": 0}]}, False),
    "largest quantity": (ORDER | {"items": [ITEM | {"quantity": limits.QUANTITY_MAX}]}, True),
    "quantity beyond": (ORDER | {"items": [ITEM | {"quantity": limits.QUANTITY_MAX + 1}]}, False),
    "long sku": (ORDER | {"items": [ITEM | {"sku": "a" * 65}]}, False),
    "capital channel": (ORDER | {"channel": "App"}, False),
    "short currency": (ORDER | {"currency": "CN"}, False),
    "no customer": (ORDER | {"customer_id": None}, True),
    "empty customer": (ORDER | {"customer_id": ""}, False),
    "long note": (ORDER | {"note": "x" * (limits.NOTE_CHARS_MAX + 1)}, False),
    "long street": (ORDER | {"ship_to": {"street": "x" * (limits.ADDRESS_CHARS_MAX + 1)}}, False),
    "empty metadata key": (ORDER | {"metadata": {"": "x"}}, False),
    "too much metadata": (ORDER | {"metadata": {str(at): "" for at in range(limits.METADATA_PAIRS_MAX + 1)}}, False),
    "unknown field": (ORDER | {"colour": "red"}, False),
    "negative price": (ORDER | {"items": [ITEM | {"unit_price": -1}]}, False),
    "largest price": (ORDER | {"items": [ITEM | {"unit_price": limits.MONEY_MAX}]}, True),
    "naive time": (ORDER | {"placed_at": 5}, False),
}


@pytest.mark.parametrize(("order", "is_valid"), EDGES.values(), ids=EDGES)
def test_document_of_an_order_bounds_as_the_validation_does(
    order: dict[str, Any],
    is_valid: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert validator("OrderIn").is_valid(order) is is_valid
    try:
        accepted = not validation.check_order(msgspec.convert(order, OrderIn), True)
    except msgspec.ValidationError:
        accepted = False
    assert accepted is is_valid


def test_document_bounds_only_fields_that_exist() -> None:
    for name, fields in BOUNDS.items():
        assert fields.keys() <= DOCUMENT["components"]["schemas"][name]["properties"].keys()


async def test_schema_document_without_a_token_is_served() -> None:
    reply = await call(api.create(services()), "GET", "/schema/openapi.json", token=None)
    assert reply.header("content-type") == "application/json"
    assert reply.json == DOCUMENT


async def test_schema_page_loads_only_what_is_served_here() -> None:
    app = api.create(services())
    page = await call(app, "GET", "/schema", token=None)
    assert page.header("content-type") == "text/html; charset=utf-8"
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert len(addresses) == 6
    for address in addresses:
        assert address == "data:," or (await call(app, "GET", address, token=None)).status == 200


async def test_schema_page_allows_no_other_host() -> None:
    policy = (await call(api.create(services()), "GET", "/schema")).header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("swagger-ui-bundle.js", "text/javascript"), ("swagger-ui.css", "text/css"), ("schema.js", "text/javascript")],
)
async def test_schema_asset_has_its_type_and_may_be_kept(name: str, content_type: str) -> None:
    reply = await call(api.create(services()), "GET", f"/schema/assets/{name}", token=None)
    assert reply.header("content-type") == f"{content_type}; charset=utf-8"
    assert reply.header("cache-control") == "public, max-age=3600"
    assert reply.header("etag")


async def test_schema_asset_that_the_client_has_is_304() -> None:
    app = api.create(services())
    first = await call(app, "GET", "/schema/assets/schema.js")
    again = await call(app, "GET", "/schema/assets/schema.js", headers={"if-none-match": first.header("etag") or ""})
    assert (again.status, again.body) == (304, b"")
    assert again.header("etag") == first.header("etag")


@pytest.mark.parametrize("name", ["schema.html", "__init__.py", "..%2f__init__.py", "swagger-ui.LICENSE.txt"])
async def test_schema_asset_that_is_none_is_not_found(name: str) -> None:
    assert (await call(api.create(services()), "GET", f"/schema/assets/{name}")).status == 404
