"""The AsyncAPI 3.0 document of the event streams, made from the registry of event types and the settings; and the
JSON Schemas of the types, each for itself.

It is told from the side of Floodgate, which sends; whoever reads it receives. What NATS has and AsyncAPI has no words
for stands in `x-nats-jetstream`.
"""

from typing import Any

import msgspec

from gateway.api.event_examples import examples
from gateway.domain.event_types import EVENT_TYPES, PARTITIONS, EventType
from gateway.settings import Nats
from persistence.nats.stream import CONTENT_TYPE, Event

TEMPLATE = "#/components/schemas/{name}"
STREAMS = {
    "ORDERS": "Changes of orders. All of an order go to one partition.",
    "STOCK": "Levels of stock, and changes of products. All of a SKU go to one partition.",
}
DESCRIPTION = (
    "Events are CloudEvents 1.0 in structured JSON, stored in NATS JetStream at least once. An event that comes again"
    " has the same id and bytes: keep the id of what you have applied. Their order is not promised: of what is about"
    " the same order, or of the same kind about the same SKU, the highest `sequence` counts. Within `.v1` fields are"
    " only added."
)
PARTITION_NAMES = [f"{partition:02d}" for partition in range(PARTITIONS)]
PARAMETERS = {
    "channel": {"description": "Channel of the order"},
    "partition": {
        "description": "Of the order, or of the SKU, so that consumers can work side by side",
        "enum": PARTITION_NAMES,
    },
}
Document = dict[str, Any]


def build(nats: Nats, source: str) -> Document:
    """The document of an installation whose events have this `source`."""
    _, schemas = msgspec.json.schema_components([kind.data for kind in EVENT_TYPES.values()], ref_template=TEMPLATE)
    shown = examples(source)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:floodgate:events",
        "info": {
            "title": "Floodgate",
            "version": "1",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": {"nats": _server()},
        "channels": {_key(kind): _channel(kind, nats) for kind in EVENT_TYPES.values()},
        "operations": {f"send_{_key(kind)}": _operation(kind) for kind in EVENT_TYPES.values()},
        "components": {
            "schemas": {**schemas, **{_envelope_name(kind): envelope(kind, source) for kind in EVENT_TYPES.values()}},
            "messages": {_key(kind): _message(kind, shown[kind.name]) for kind in EVENT_TYPES.values()},
            "securitySchemes": {"user": {"type": "userPassword", "description": "A team's user, or Floodgate's own"}},
        },
    }


def envelope(kind: EventType, source: str) -> Document:
    """The schema of the whole event, whose `data` is a schema of the document's components."""
    fields: Document = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "description": kind.id_form},
        "source": {"const": source},
        "type": {"const": kind.type},
        "subject": {"type": "string", "description": "What it is about: the order's id, or the SKU"},
        "time": {"type": "string", "format": "date-time", "description": "When it was decided"},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"const": kind.dataschema},
        "sequence": {"type": "string", "pattern": "^[0-9]{10,}$", "description": "`data.version` with leading zeros"},
        "partitionkey": {"type": "string", "description": "As `subject`"},
        "data": {"$ref": TEMPLATE.format(name=kind.data.__name__)},
    }
    required = list(fields)
    fields["traceparent"] = {"type": "string", "description": "W3C trace context of the request, if it had one"}
    return {"type": "object", "title": kind.type, "required": required, "properties": fields}


def _server() -> Document:
    return {
        "host": "{host}:{port}",
        "protocol": "nats",
        "description": "`floodgate events user TEAM` makes a user that may read",
        "variables": {
            "host": {"default": "127.0.0.1", "description": "As `floodgate status` shows it"},
            "port": {"default": "4222"},
        },
        "security": [{"$ref": "#/components/securitySchemes/user"}],
    }


def _channel(kind: EventType, nats: Nats) -> Document:
    return {
        "address": kind.subject,
        "title": kind.versioned,
        "description": kind.summary,
        "servers": [{"$ref": "#/servers/nats"}],
        "messages": {_key(kind): {"$ref": f"#/components/messages/{_key(kind)}"}},
        "parameters": {name: about for name, about in PARAMETERS.items() if f"{{{name}}}" in kind.subject},
        "x-nats-jetstream": stream(kind.stream, nats),
    }


def stream(name: str, nats: Nats) -> Document:
    """The settings of a stream, as NATS calls them; ages in seconds, sizes in bytes."""
    return {
        "stream": name,
        "description": STREAMS[name],
        "subjects": [f"{name.lower()}.>"],
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "max_age": nats.max_age_s,
        "max_bytes": nats.max_bytes or -1,
        "duplicate_window": nats.duplicate_window_s,
        "num_replicas": nats.replicas,
        "allow_atomic": True,
    }


def _operation(kind: EventType) -> Document:
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{_key(kind)}"},
        "summary": kind.summary,
        "messages": [{"$ref": f"#/channels/{_key(kind)}/messages/{_key(kind)}"}],
    }


def _message(kind: EventType, example: Event) -> Document:
    return {
        "name": kind.type,
        "title": kind.versioned,
        "summary": kind.summary,
        "contentType": CONTENT_TYPE,
        "headers": {
            "type": "object",
            "required": ["Content-Type", "Nats-Msg-Id"],
            "properties": {
                "Content-Type": {"const": CONTENT_TYPE},
                "Nats-Msg-Id": {"type": "string", "description": f"The event's `id`: {kind.id_form}"},
            },
        },
        "payload": {"$ref": TEMPLATE.format(name=_envelope_name(kind))},
        "examples": [
            {
                "headers": {"Content-Type": CONTENT_TYPE, "Nats-Msg-Id": example.id},
                "payload": msgspec.json.decode(example.payload),
            }
        ],
        "x-dataschema": f"/schema/events/{kind.versioned}.json",
    }


def _key(kind: EventType) -> str:
    """The type's name where a dot is not allowed."""
    return kind.name.replace(".", "_")


def _envelope_name(kind: EventType) -> str:
    return "".join(word.capitalize() for word in kind.name.replace(".", "_").split("_")) + "Event"
