"""What a change of our interface would break for those who use it: the OpenAPI and AsyncAPI documents of two releases,
compared.

Written for the documents that we generate, and for what the contract promises: additions break nobody, since clients
ignore members that they do not know. (oasdiff, which knows all of OpenAPI, is a program in Go.) A pattern or format
that has changed is called a break, since nobody can tell here whether it takes less.
"""

from collections.abc import Callable, Iterator
from typing import Any

Document = dict[str, Any]
Schema = dict[str, Any]
Found = Iterator[str]

LOWER = ("minimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
FORMS = ("pattern", "format")
METHODS = ("get", "put", "post", "patch", "delete", "head", "options")


class Sides:
    """A document as it was and as it is. What either refers to is looked up in its own."""

    def __init__(self, old: Document, new: Document) -> None:
        self.old = old
        self.new = new
        self._open: set[tuple[str, str, bool]] = set()  # pairs of named schemas under comparison, for recursive ones

    def was(self, part: Any) -> Any:
        return _resolved(self.old, part)

    def now(self, part: Any) -> Any:
        return _resolved(self.new, part)

    def schema(self, place: str, old: Schema, new: Schema, *, sent: bool) -> Found:
        """`sent`: by clients, so that nothing may be refused that was taken; else they read it, so that nothing may be
        missing or of another kind.
        """
        pair = (str(old.get("$ref")), str(new.get("$ref")), sent)
        if "$ref" in old and "$ref" in new:
            if pair in self._open:
                return
            self._open.add(pair)
        yield from self._alternatives(place, self.was(old), self.now(new), sent=sent)
        self._open.discard(pair)

    def _alternatives(self, place: str, old: Schema, new: Schema, *, sent: bool) -> Found:
        """Each kind that was taken is still taken by one; each that is given was given by one."""
        olds, news = _kinds(old, self.was), _kinds(new, self.now)
        if len(olds) == len(news) == 1:
            yield from self._kind(place, olds[0], news[0], sent=sent)
            return
        for one in olds if sent else news:
            pairs = [(one, other) for other in news] if sent else [(other, one) for other in olds]
            yield from min((list(self._kind(place, was, now, sent=sent)) for was, now in pairs), key=len)

    def _kind(self, place: str, old: Schema, new: Schema, *, sent: bool) -> Found:
        taken, given = (new, old) if sent else (old, new)
        if not _types(given) <= _types(taken):
            yield f"{place}: is {_named(new)}, was {_named(old)}"
            return
        gone = [value for value in old.get("enum", ()) if "enum" in new and value not in new["enum"]]
        yield from (f"{place}: the value {value!r} is gone" for value in gone)
        if "const" in old and old["const"] != new.get("const"):
            yield f"{place}: is {new.get('const')!r}, was {old['const']!r}"
        yield from _bounds(place, old, new) if sent else ()
        yield from self._object(place, old, new, sent=sent)
        for name in ("items", "additionalProperties", "propertyNames"):
            if isinstance(old.get(name), dict) and isinstance(new.get(name), dict):
                yield from self.schema(f"{place}[]", old[name], new[name], sent=sent)

    def _object(self, place: str, old: Schema, new: Schema, *, sent: bool) -> Found:
        before, after = old.get("properties", {}), new.get("properties", {})
        for name, schema in before.items():
            if name in after:
                yield from self.schema(f"{place}.{name}", schema, after[name], sent=sent)
            else:
                yield f"{place}.{name}: is gone"
        required, was_required = set(new.get("required", ())), set(old.get("required", ()))
        if sent:
            yield from (f"{place}.{name}: is required now" for name in sorted(required - was_required))
            if new.get("additionalProperties") is False and old.get("additionalProperties") is not False:
                yield f"{place}: takes no other members now"
        else:
            yield from (
                f"{place}.{name}: may be left out now" for name in sorted((was_required & set(after)) - required)
            )


def openapi_breaks(old: Document, new: Document) -> list[str]:
    """What the change from `old` to `new` breaks, a line each."""
    sides, found = Sides(old, new), list[str]()
    for path, methods in old["paths"].items():
        for method in (method for method in METHODS if method in methods):
            name, after = f"{method.upper()} {path}", new["paths"].get(path, {}).get(method)
            found += [f"{name}: is gone"] if after is None else _operation(sides, name, methods[method], after)
    return found


def asyncapi_breaks(old: Document, new: Document) -> list[str]:
    """The same of events: a channel, a message or a part of one that is gone or has another form."""
    sides, found = Sides(old, new), list[str]()
    for name, channel in old["channels"].items():
        after = new["channels"].get(name)
        if after is None or after["address"] != channel["address"]:
            found.append(f"{channel['address']}: is gone")
            continue
        for title, message in channel.get("messages", {}).items():
            place = f"{channel['address']} {title}"
            if title not in after.get("messages", {}):
                found.append(f"{place}: is gone")
            else:
                found += _message(sides, place, sides.was(message), sides.now(after["messages"][title]))
    return found


def _message(sides: Sides, place: str, old: Document, new: Document) -> Found:
    if old.get("contentType") != new.get("contentType"):
        yield f"{place}: the content type is another"
    for part in ("headers", "payload"):
        if part in old:
            yield from sides.schema(f"{place} {part}", _plain(old[part]), _plain(new.get(part, {})), sent=False)


def _operation(sides: Sides, name: str, old: Document, new: Document) -> Found:
    if old.get("operationId") != new.get("operationId"):
        yield f"{name}: was {old.get('operationId')}, is {new.get('operationId')}"
    if not old.get("security") and new.get("security"):
        yield f"{name}: needs a token now"
    yield from _parameters(sides, name, old, new)
    yield from _body(sides, f"{name} body", sides.was(old.get("requestBody")), sides.now(new.get("requestBody")))
    for status, answer in old["responses"].items():
        if status in new["responses"]:
            yield from _answer(sides, f"{name} {status}", sides.was(answer), sides.now(new["responses"][status]))
        else:
            yield f"{name} {status}: is gone"


def _parameters(sides: Sides, name: str, old: Document, new: Document) -> Found:
    before, after = _by_name(old, sides.was), _by_name(new, sides.now)
    for key, parameter in before.items():
        if key in after:
            yield from sides.schema(f"{name} {key}", parameter["schema"], after[key]["schema"], sent=True)
        else:
            yield f"{name} {key}: is gone"
    for key, parameter in after.items():
        if parameter.get("required") and not before.get(key, {}).get("required"):
            yield f"{name} {key}: is required now"


def _body(sides: Sides, place: str, old: Document | None, new: Document | None) -> Found:
    if old is None or new is None:
        if old is not None or (new is not None and new.get("required")):
            yield f"{place}: is {'gone' if new is None else 'required now'}"
        return
    if new.get("required") and not old.get("required"):
        yield f"{place}: is required now"
    yield from _contents(sides, place, old, new, sent=True)


def _answer(sides: Sides, place: str, old: Document, new: Document) -> Found:
    headers = {name.lower() for name in new.get("headers", {})}
    yield from (f"{place} {name}: is gone" for name in old.get("headers", {}) if name.lower() not in headers)
    yield from _contents(sides, place, old, new, sent=False)


def _contents(sides: Sides, place: str, old: Document, new: Document, *, sent: bool) -> Found:
    after = new.get("content", {})
    for media_type, content in old.get("content", {}).items():
        if media_type in after:
            yield from sides.schema(place, content["schema"], after[media_type]["schema"], sent=sent)
        else:
            yield f"{place} {media_type}: is gone"


def _bounds(place: str, old: Schema, new: Schema) -> Found:
    """What a client may send no more."""
    for name in (*LOWER, *UPPER):
        before, after = old.get(name), new.get(name)
        if after is not None and (before is None or (after > before if name in LOWER else after < before)):
            yield f"{place}: {name} is {after}, was {'none' if before is None else before}"
    for name in FORMS:
        if name in new and new[name] != old.get(name):
            yield f"{place}: has another {name}"
    if "enum" in new and "enum" not in old:
        yield f"{place}: takes some values only"


def _kinds(schema: Schema, resolved: Callable[[Any], Any]) -> list[Schema]:
    """The alternatives of a schema, at least one."""
    parts = schema.get("anyOf") or schema.get("oneOf")
    return [kind for part in parts for kind in _kinds(resolved(part), resolved)] if parts else [schema]


def _types(schema: Schema) -> set[str]:
    """The JSON types that a schema allows; an integer is a number, too."""
    types = schema.get("type", ["null", "boolean", "integer", "number", "string", "array", "object"])
    allowed = {types} if isinstance(types, str) else set(types)
    return allowed | {"integer"} if "number" in allowed else allowed


def _named(schema: Schema) -> str:
    return str(schema.get("type", "anything"))


def _plain(payload: Document) -> Schema:
    """AsyncAPI may name the format of a schema beside it."""
    inner: Schema = payload.get("schema", payload)
    return inner


def _by_name(operation: Document, resolved: Callable[[Any], Any]) -> dict[str, Document]:
    parameters = [resolved(parameter) for parameter in operation.get("parameters", ())]
    return {f"{parameter['in']} {parameter['name']}": parameter for parameter in parameters}


def _resolved(document: Document, part: Any) -> Any:
    while isinstance(part, dict) and "$ref" in part:
        found: Any = document
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        part = found
    return part
