"""The description of the event streams: AsyncAPI 3.0 without loose ends, true to the events; its page asks nobody."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from deploy.contracts import schemas
from gateway import api
from gateway.api import asyncapi
from gateway.domain.event_types import EVENT_TYPES, EventType
from gateway.settings import Nats
from persistence.nats.stream import SUBJECTS, StreamSettings, config_of
from tests.api import call, services

NATS = Nats(max_age_s=3600, max_bytes=1_000_000, replicas=3)
DOCUMENT: dict[str, Any] = asyncapi.build(NATS, "/floodgate/local")
KEY = re.compile(r"[a-zA-Z0-9._-]+")

every_type = pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(reference: str) -> Any:
    node: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


def test_document_has_what_asyncapi_asks_for() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    assert all({"host", "protocol"} <= server.keys() for server in DOCUMENT["servers"].values())
    assert all(operation["action"] == "send" for operation in DOCUMENT["operations"].values())
    for part in ("servers", "channels", "operations"):
        assert all(KEY.fullmatch(key) for key in DOCUMENT[part])


def test_document_refers_only_to_what_it_has() -> None:
    found = list(references(DOCUMENT))
    assert found
    for reference in found:
        assert resolved(reference)


def test_document_lets_operations_send_only_messages_of_their_channel() -> None:
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])


def test_document_explains_each_parameter_of_a_subject_and_no_other() -> None:
    for channel in DOCUMENT["channels"].values():
        assert set(re.findall(r"\{(\w+)\}", channel["address"])) == channel["parameters"].keys()


def test_document_shows_the_settings_that_the_streams_are_made_with() -> None:
    config = config_of("STOCK", StreamSettings(3, 3600, NATS.duplicate_window_s, 1_000_000))
    shown = DOCUMENT["channels"]["stock_low"]["x-nats-jetstream"]
    assert shown["subjects"] == SUBJECTS["STOCK"]
    for setting in ("storage", "retention", "discard"):
        assert shown[setting] == getattr(config, setting).value
    for setting in ("max_age", "max_bytes", "duplicate_window", "num_replicas", "allow_atomic"):
        assert shown[setting] == getattr(config, setting)


@every_type
def test_document_describes_the_golden_event_whole(kind: EventType) -> None:
    registry: Registry[Any] = Registry().with_resource("urn:document", DRAFT202012.create_resource(DOCUMENT))
    name = kind.name.replace(".", "_")
    payload = DOCUMENT["components"]["messages"][name]["payload"]["$ref"]
    validator = Draft202012Validator({"$ref": f"urn:document{payload}"}, registry=registry)
    event = json.loads((schemas.FOLDER / f"{kind.versioned}.golden.json").read_bytes())
    validator.validate(event)
    assert not validator.is_valid(event | {"type": "com.floodgate.other.v1"})
    assert not validator.is_valid(event | {"data": {}})
    assert DOCUMENT["components"]["messages"][name]["examples"][0]["payload"] == event


async def test_asyncapi_without_a_token_is_served() -> None:
    reply = await call(api.create(services()), "GET", "/schema/asyncapi.json", token=None)
    assert reply.header("content-type") == "application/json"
    assert reply.json["channels"].keys() == DOCUMENT["channels"].keys()


@every_type
async def test_schema_of_an_event_is_served_as_it_is_committed(kind: EventType) -> None:
    reply = await call(api.create(services()), "GET", f"/schema/events/{kind.versioned}.json", token=None)
    assert reply.header("content-type") == "application/schema+json"
    assert reply.json == json.loads((schemas.FOLDER / f"{kind.versioned}.json").read_bytes())


@pytest.mark.parametrize("name", ["order.created.json", "order.created.v1", "order.v1.json", "..%2fevents.v1.json"])
async def test_schema_of_an_event_that_is_none_is_not_found(name: str) -> None:
    assert (await call(api.create(services()), "GET", f"/schema/events/{name}", token=None)).status == 404


async def test_events_page_shows_every_type_and_asks_nobody() -> None:
    reply = await call(api.create(services()), "GET", "/schema/events", token=None)
    page = reply.body.decode()
    assert all(f'id="{name}"' in page for name in EVENT_TYPES)
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!/schema|#|data:,)', page)
    policy = reply.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


async def test_pages_of_the_schemas_lead_to_each_other() -> None:
    app = api.create(services())
    assert 'href="/schema/events"' in (await call(app, "GET", "/schema", token=None)).body.decode()
    assert 'href="/schema"' in (await call(app, "GET", "/schema/events", token=None)).body.decode()
