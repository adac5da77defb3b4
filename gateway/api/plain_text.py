"""No text that comes in has NUL or control characters: the pattern that says so, put wherever the document speaks of a
text that a client sends.

The code checks it once for all texts, so it stands in no shape.
"""

from collections.abc import Iterable
from typing import Any

Schema = dict[str, Any]

PATTERN = r"^[^\x00-\x1f\x7f-\x9f]*$"
BOUND = {"pattern", "format", "enum", "const"}  # what tells more about a text already


def plain(schema: Any) -> Any:
    """The same schema, in which every text is plain."""
    if isinstance(schema, list):
        return [plain(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: plain(part) for name, part in schema.items()}
    return {"pattern": PATTERN} | inner if schema.get("type") == "string" and not BOUND & schema.keys() else inner


def plain_inputs(components: dict[str, Schema], names: Iterable[str]) -> dict[str, Schema]:
    """The components, of which those that clients send, `names` and what these refer to, have plain texts."""
    waiting, known = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += _named(components[name])
    return {name: plain(schema) if name in known else schema for name, schema in components.items()}


def _named(schema: Any) -> list[str]:
    """The components that a schema refers to."""
    if isinstance(schema, list):
        return [name for part in schema for name in _named(part)]
    if not isinstance(schema, dict):
        return []
    own = [schema["$ref"].rpartition("/")[2]] if isinstance(schema.get("$ref"), str) else []
    return own + [name for part in schema.values() for name in _named(part)]
