"""What is wrong with settings, in words for the person who wrote them: the key, what it has to be, what it is, and
where that was said. A secret is never repeated, nor what stands before the `@` of a server's address.

`find_faults` goes by the types and bounds of the structs alone, so a field that is added needs nothing here. This
module knows no setting by name but those that hold secrets, and imports nothing of ours.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import msgspec
from msgspec import Struct
from msgspec import inspect as shapes

SHOWN_CHARS_MAX = 60  # of a value in a message
SECRETS = "secrets."
HIDDEN = "***"
ALTERNATIVES = re.compile(r"\^\(([a-z0-9_-]+(?:\|[a-z0-9_-]+)+)\)\$")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
VALUELESS = {"required", "unknown_field", "control_character"}  # codes of faults whose value tells nothing
ARRAYS = (shapes.VarTupleType, shapes.ListType)

_USER = re.compile("://.*@")
_PASSWORD = re.compile("(?<=[?&])([a-z]*password|token)=[^&]*")

Path = tuple[str | int, ...]


class Fault(NamedTuple):
    """One fault. `code` is that of an entry of `errors` (core_ext/codes.py); `wanted` completes "it …"."""

    path: Path
    code: str
    wanted: str
    value: Any = None

    @property
    def key(self) -> str:
        """Such as `stock.rule[1].shards`."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).removeprefix(".")


def find_faults(document: object, shape: type[Struct], at: Path = (), *, strict: bool = True) -> Iterator[Fault]:
    """Every fault of a table that is to be converted to `shape`. Not `strict`, a text may stand for a number, as in an
    environment variable, and have control characters, as a secret in a file may.
    """
    if not isinstance(document, Mapping):
        yield Fault(at, "wrong_type", "has to be a table of settings", document)
        return
    hints = _hints(shape)
    for name in document:
        if name not in hints:
            yield Fault((*at, name), "unknown_field", f"is not known; the nearest is {nearest(name, hints)}")
    for field in msgspec.structs.fields(shape):
        if field.name in document:
            yield from _value_faults(document[field.name], hints[field.name], (*at, field.name), strict=strict)
        elif field.required:
            yield Fault((*at, field.name), "required", "is missing")


def complaint(fault: Fault, origin: str = "") -> str:
    """A fault as one line."""
    shown = "" if fault.code in VALUELESS else f", not {_shown(fault.key, fault.value)}"
    return f"{fault.key} {fault.wanted}{shown}{said_in(origin)}"


def said_in(origin: str) -> str:
    """Where a value was said, as the end of a message."""
    return f" (from {origin})" if origin else ""


def nearest(name: str, known: Collection[str]) -> str:
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]


def without_password(value: str) -> str:
    """A server's address as it may be shown."""
    return _PASSWORD.sub(rf"\1={HIDDEN}", _USER.sub(f"://{HIDDEN}@", value))


def visible_text(key: str, value: str) -> str:
    """The text of a setting as it may be shown."""
    return HIDDEN if value and key.startswith(SECRETS) else without_password(value)


def _value_faults(value: object, hint: Any, at: Path, *, strict: bool) -> Iterator[Fault]:
    kind = _kind(hint)
    if isinstance(kind, shapes.StructType):
        yield from find_faults(value, kind.cls, at, strict=strict)
    elif isinstance(kind, ARRAYS) and isinstance(value, list | tuple):
        if kind.max_length is not None and len(value) > kind.max_length:
            yield Fault(at, "bad_count", f"has to have at most {kind.max_length} entries", _Count(len(value)))
            return
        for number, entry in enumerate(value):
            yield from _value_faults(entry, kind.item_type, (*at, number), strict=strict)
    else:
        try:
            msgspec.convert(value, _convertible(hint), strict=strict)
        except msgspec.ValidationError:
            yield Fault(at, _code(kind, value), f"has to be {_wanted(kind)}", value)
        else:
            if strict and isinstance(value, str) and CONTROL.search(value):
                yield Fault(at, "control_character", "must not have NUL or control characters", value)


class _Count(int):
    """A number of entries, shown as such."""


@cache
def _hints(shape: type[Struct]) -> dict[str, Any]:
    return get_type_hints(shape, include_extras=True)


def _kind(hint: Any) -> shapes.Type:
    """The bare type, without its documentation and without None."""
    kind = hint if isinstance(hint, shapes.Type) else shapes.type_info(hint)
    while isinstance(kind, shapes.Metadata | shapes.UnionType):
        if isinstance(kind, shapes.Metadata):
            kind = kind.type
        else:
            kind = next(part for part in kind.types if not isinstance(part, shapes.NoneType))
    return kind


def _convertible(hint: Any) -> Any:
    """The type that msgspec checks an entry of an array by; its description does not hold it."""
    if not isinstance(hint, shapes.Type):
        return hint
    kind = _kind(hint)
    if isinstance(kind, shapes.IntType):
        return int
    return str if isinstance(kind, shapes.StrType) else Any


def _code(kind: shapes.Type, value: object) -> str:
    if isinstance(kind, shapes.IntType | shapes.FloatType) and isinstance(value, int | float):
        return "wrong_type" if isinstance(value, bool) else "out_of_range"
    if isinstance(kind, shapes.StrType) and isinstance(value, str):
        return "bad_format" if kind.pattern else "bad_length"
    return "wrong_type"


def _wanted(kind: shapes.Type) -> str:
    if isinstance(kind, shapes.IntType):
        return f"a whole number{_range(kind.ge, kind.le)}"
    if isinstance(kind, shapes.FloatType):
        return f"a number{_range(kind.ge, kind.le)}"
    if isinstance(kind, shapes.BoolType):
        return "true or false"
    if isinstance(kind, shapes.LiteralType):
        return _one_of([str(value) for value in kind.values])
    if isinstance(kind, ARRAYS):
        return "a list"
    assert isinstance(kind, shapes.StrType), f"no words for {kind}"
    return _wanted_text(kind)


def _wanted_text(kind: shapes.StrType) -> str:
    if kind.pattern:
        matched = ALTERNATIVES.fullmatch(kind.pattern)
        return _one_of(matched.group(1).split("|")) if matched else f"text that matches {kind.pattern}"
    if kind.max_length is not None:
        return f"text of {kind.min_length or 0} to {kind.max_length} characters"
    return "text"


def _one_of(values: list[str]) -> str:
    return f"{', '.join(values[:-1])} or {values[-1]}"


def _range(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return "" if most is None else f" of at most {most}"


def _shown(key: str, value: object) -> str:
    if isinstance(value, _Count):
        return f"{value:d}"
    if isinstance(value, str):
        value = visible_text(key, value)
    text = HIDDEN if key.startswith(SECRETS) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"
