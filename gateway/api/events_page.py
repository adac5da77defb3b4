"""The page of the event streams: the AsyncAPI document for people. It is made on the server, without a script, and its
policy keeps it from asking anybody for anything.
"""

from html import escape
from typing import Any

import msgspec

from gateway.api.asyncapi import STREAMS, Document
from gateway.domain.event_types import EVENT_TYPES, EventType

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; frame-ancestors 'none'"
STYLE = """
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem; background: #fff; color: #1c2733;
  font: 16px/1.5 system-ui, sans-serif; }
a { color: #0b5cad; } h1 { margin: .5rem 0; } h2 { margin: 2.5rem 0 .5rem; }
h3 { margin: 2rem 0 .25rem; border-top: 1px solid #d5dde5; padding-top: 1.25rem; }
code, pre { font: .875rem/1.45 ui-monospace, monospace; background: #f3f6f9; border-radius: 4px; }
code { padding: .1em .3em; } pre { padding: .9rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; margin: .75rem 0; font-size: .9375rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #e3e9ef; }
th { background: #f3f6f9; } td:first-child { white-space: nowrap; }
.wide { overflow-x: auto; } .note { color: #51606e; }
"""


def render(document: Document) -> str:
    """The page of a document that `asyncapi.build` has made."""
    info = document["info"]
    parts = [
        '<p><a href="/schema">HTTP interface</a> · <a href="/schema/asyncapi.json">AsyncAPI 3.0</a></p>',
        f"<h1>{escape(info['title'])}: events</h1><p>{_text(info['description'])}</p>",
        _table(("event", "subject", "told when"), [_row(kind) for kind in EVENT_TYPES.values()]),
        *(_stream(name, about, document) for name, about in STREAMS.items()),
    ]
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>Floodgate: events</title><style>{STYLE}</style></head><body>"
    )
    return head + "\n".join(parts) + "</body></html>\n"


def _row(kind: EventType) -> tuple[str, str, str]:
    link = f'<a href="#{kind.name}">{escape(kind.versioned)}</a>'
    return link, f"<code>{escape(kind.subject)}</code>", _text(kind.summary)


def _stream(name: str, about: str, document: Document) -> str:
    kinds = [kind for kind in EVENT_TYPES.values() if kind.stream == name]
    settings = document["channels"][kinds[0].name.replace(".", "_")]["x-nats-jetstream"]
    shown = {key: value for key, value in settings.items() if key not in {"stream", "description"}}
    rows = [(f"<code>{escape(key)}</code>", escape(_said(value))) for key, value in shown.items()]
    return "\n".join(
        [
            f"<h2>Stream {escape(name)}</h2><p>{_text(about)}</p>",
            f"<details><summary>Settings</summary>{_table(('setting', 'value'), rows)}</details>",
            *(_event(kind, document) for kind in kinds),
        ]
    )


def _event(kind: EventType, document: Document) -> str:
    message = document["components"]["messages"][kind.name.replace(".", "_")]
    schemas = document["components"]["schemas"]
    envelope = schemas[message["payload"]["$ref"].rpartition("/")[2]]
    example = msgspec.json.format(msgspec.json.encode(message["examples"][0]["payload"]), indent=2).decode()
    return "\n".join(
        [
            f'<h3 id="{kind.name}">{escape(kind.versioned)}</h3><p>{_text(kind.summary)}</p>',
            f"<p>Subject <code>{escape(kind.subject)}</code>, id <code>{escape(kind.id_form)}</code></p>",
            f'<p><a href="{message["x-dataschema"]}">JSON Schema of <code>data</code></a></p>',
            _fields("data", schemas[kind.data.__name__], schemas),
            f"<details><summary>The envelope</summary>{_fields('envelope', envelope, schemas)}</details>",
            f"<details open><summary>An example</summary><pre>{escape(example)}</pre></details>",
        ]
    )


def _fields(title: str, schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    """A row for each field; those of an object inside of it follow it."""
    return _table((title, "type", "about"), list(_rows("", schema, schemas)))


def _rows(prefix: str, schema: dict[str, Any], schemas: dict[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    for name, field in schema["properties"].items():
        left_out = "" if name in schema["required"] else '<span class="note">May be left out. </span>'
        rows.append((f"<code>{escape(prefix + name)}</code>", _type(field), left_out + _text(_about(field))))
        inner = field.get("items", field).get("$ref")
        if inner and name != "data":
            mark = "[]." if "items" in field else "."
            rows += _rows(f"{prefix}{name}{mark}", schemas[inner.rpartition("/")[2]], schemas)
    return rows


def _about(field: dict[str, Any]) -> str:
    choices = field.get("enum") or next((option["enum"] for option in field.get("anyOf", ()) if "enum" in option), ())
    listed = "One of " + ", ".join(f"`{choice}`" for choice in choices) if choices else ""
    return ". ".join(filter(None, (field.get("description", ""), listed)))


def _type(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"<code>{escape(str(field['const']))}</code>"
    if "anyOf" in field:
        return " or ".join(_type(option) for option in field["anyOf"])
    if "items" in field:
        return f"array of {_type(field['items'])}"
    return escape("object" if "$ref" in field else field.get("format") or field.get("type", "string"))


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(text: str) -> str:
    """Text whose code stands between back ticks."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if at % 2 else piece for at, piece in enumerate(pieces))


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    head = "".join(f"<th>{name}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'
