"""The registry of event types against its files and against what the encoders make: consumers have built on these."""

import json
import re
import zlib
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from jsonschema import Draft202012Validator, FormatChecker  # type: ignore[import-untyped]

from core_ext import documents
from deploy.contracts import schemas
from gateway.api.event_examples import AT_MS, SKU, examples
from gateway.api.event_examples import order as example_order
from gateway.domain.event_types import DIALECT, EVENT_TYPES, EventType
from gateway.stock_events import event_of as level_event_of
from gateway.stock_events import product_event_of
from persistence.nats.stream import _headers
from persistence.postgres.levels import LevelChange
from persistence.postgres.product_events import ProductChange

EXAMPLES = examples("/floodgate/local")
PRODUCT = ProductChange(SKU, 4, "T", 255, "CNY", stocked=True, active=False, limit=None, changed=["active"], at_ms=0)

every_type = pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)


def golden(kind: EventType) -> bytes:
    return (schemas.FOLDER / f"{kind.versioned}.golden.json").read_bytes()


def test_files_of_schemas_are_those_of_the_registry() -> None:
    files = {path.name: path.read_bytes() for path in schemas.FOLDER.glob("*.v1.json")}
    assert files == schemas.texts(), "python -m deploy.contracts.schemas writes them"


@every_type
def test_event_has_its_golden_bytes(kind: EventType) -> None:
    assert EXAMPLES[kind.name].payload == golden(kind)


@every_type
def test_golden_event_is_as_its_schema_says(kind: EventType) -> None:
    schema = json.loads((schemas.FOLDER / f"{kind.versioned}.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    event = json.loads(golden(kind))
    assert schema["$schema"] == DIALECT
    assert event["dataschema"] == schema["$id"] == kind.dataschema
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(event["data"])
    assert event["data"].keys() <= schema["properties"].keys(), "a field that nobody has described"


@every_type
def test_schema_refuses_an_event_without_a_field_that_it_must_have(kind: EventType) -> None:
    data = json.loads(golden(kind))["data"]
    validator = Draft202012Validator(kind.schema())
    for name in kind.schema()["required"]:
        assert not validator.is_valid({key: value for key, value in data.items() if key != name}), name


@every_type
def test_golden_event_is_read_by_the_sdk_of_cloud_events(kind: EventType) -> None:
    event = EXAMPLES[kind.name]
    read = from_http_event(HTTPMessage(dict(_headers(event)), golden(kind)))
    assert (read.get_id(), read.get_type(), read.get_source()) == (event.id, kind.type, "/floodgate/local")
    assert (read.get_specversion(), read.get_datacontenttype()) == ("1.0", "application/json")
    assert read.get_dataschema() == kind.dataschema
    assert read.get_time() is not None
    assert read.get_extension("partitionkey") == read.get_subject()
    data: Any = read.get_data()
    assert int(read.get_extension("sequence")) == data["version"]


@every_type
def test_subject_of_an_event_is_as_the_registry_says(kind: EventType) -> None:
    pattern = re.escape(kind.subject).replace(r"\{channel\}", "[a-z0-9-]{1,32}").replace(r"\{partition\}", "[01][0-9]")
    assert re.fullmatch(pattern, EXAMPLES[kind.name].subject)


@every_type
def test_event_carries_no_personal_fields(kind: EventType) -> None:
    assert {"note", "ship_to"}.isdisjoint(json.loads(golden(kind))["data"])
    assert {"note", "ship_to"}.isdisjoint(kind.schema()["properties"])


def test_schema_of_an_order_names_each_field_that_the_encoder_may_write() -> None:
    written = json.loads(documents.order_json(_full_order(), documents.NONE))
    assert written.keys() <= EVENT_TYPES["order.created"].schema()["properties"].keys()


def _full_order() -> Any:
    order = example_order()
    order.paid_reference, order.paid_at = "wx-1", AT_MS
    return order


def test_event_of_a_product_without_a_limit_of_its_own_has_none() -> None:
    assert "limit" not in json.loads(product_event_of(PRODUCT, "/s").payload)["data"]


def test_ids_of_products_and_levels_never_meet() -> None:
    level = LevelChange(SKU, PRODUCT.version, "low", "low", "in_stock", 1, 0)
    product_id, level_id = product_event_of(PRODUCT, "/s").id, level_event_of(level, "/s").id
    assert product_id == f"{SKU.encode().hex()}.product.4"
    assert level_id == f"{SKU.encode().hex()}.4"


def test_events_of_a_product_and_of_its_levels_come_to_one_partition() -> None:
    assert product_event_of(PRODUCT, "/s").subject == f"stock.product_changed.{zlib.crc32(SKU.encode()) % 16:02d}"
