"""What leads from one operation to another in the OpenAPI document, and what it says of the texts that come in."""

import re
from typing import Any

import msgspec
import pytest

from gateway import api
from tests.api import services

DOCUMENT: dict[str, Any] = msgspec.json.decode(api.create(services()).state.document)
OPERATIONS = {
    operation["operationId"]: operation for methods in DOCUMENT["paths"].values() for operation in methods.values()
}
PLAIN = r"^[^\x00-\x1f\x7f-\x9f]*$"


def links(name: str, status: str) -> dict[str, dict[str, str]]:
    """Operation -> what it takes of the answer."""
    found = OPERATIONS[name]["responses"][status].get("links", {})
    return {link["operationId"]: link["parameters"] for link in found.values()}


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["components"]["schemas"][name]["properties"]
    return found


def query(operation: str, name: str) -> dict[str, Any]:
    (found,) = (p for p in OPERATIONS[operation]["parameters"] if p.get("name") == name)
    schema: dict[str, Any] = found["schema"]
    return schema


def test_links_of_a_placed_order_lead_to_what_can_be_done_with_it() -> None:
    found = links("placeOrder", "201")
    assert found["showOrder"] == {"path.order_id": "$response.body#/order_id"}
    assert found["cancelOrder"] == found["showOrder"] | {"header.If-Match": "$response.header.ETag"}


def test_links_of_a_product_lead_to_its_stock_without_the_etag_of_the_product() -> None:
    found = links("putProduct", "201")
    assert found["showStock"] == {"path.sku": "$response.body#/sku"}
    assert found["changeProduct"]["header.If-Match"] == "$response.header.ETag"
    assert not {"setStock", "changeStock", "putProduct"} & found.keys()


def test_links_of_a_sale_lead_to_its_opening() -> None:
    assert links("putSale", "201")["openSale"] == {
        "path.sale_id": "$response.body#/sale_id",
        "header.If-Match": "$response.header.ETag",
    }


def test_links_of_a_page_lead_to_the_next_one() -> None:
    assert links("listOrders", "200") == {"listOrders": {"query.cursor": "$response.body#/next_cursor"}}


@pytest.mark.parametrize("name", OPERATIONS)
def test_links_name_parameters_that_the_operation_has(name: str) -> None:
    for status in OPERATIONS[name]["responses"]:
        for target, parameters in links(name, status).items():
            known = {f"{p.get('in')}.{p.get('name')}" for p in OPERATIONS[target].get("parameters", ())}
            assert parameters.keys() <= known


@pytest.mark.parametrize(
    "text",
    [
        schema("OrderIn")["note"]["anyOf"][0],
        schema("OrderIn")["metadata"]["anyOf"][0]["additionalProperties"],
        schema("OrderIn")["metadata"]["anyOf"][0]["propertyNames"],
        schema("ShipTo")["city"]["anyOf"][0],
        schema("ItemIn")["sku"],
        schema("ProductIn")["title"],
        schema("SaleItemIn")["sku"],
        query("listOrders", "external_id"),
        query("showAvailability", "sku")["items"],
    ],
)
def test_document_of_a_text_that_comes_in_allows_no_control_characters(text: dict[str, Any]) -> None:
    assert text["pattern"] == PLAIN


def test_document_of_a_text_with_a_form_of_its_own_keeps_it() -> None:
    assert schema("ProductIn")["currency"]["pattern"] == "^[A-Z]{3}$"
    assert "pattern" not in query("listOrders", "created_from")
    assert "pattern" not in query("listOrders", "status")


def test_document_of_a_text_that_goes_out_promises_nothing_of_its_characters() -> None:
    assert "pattern" not in schema("OrderOut")["external_id"]["anyOf"][0]


@pytest.mark.parametrize(
    ("text", "fits"), [("", True), ("a b/白 ", True), ("\x00", False), ("a\n", False), ("\x85", False)]
)
def test_document_pattern_of_a_plain_text_is_what_is_checked(
    text: str,
    fits: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    assert bool(re.fullmatch(PLAIN.strip("^$"), text)) is fits
