"""Every fault of a small body at once, found from the bounds in its shape: the same ones that the OpenAPI document
shows.

For flat objects of texts, integers and booleans; an order has its own (core_ext.faults). Details say what is allowed
and repeat no value.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from urllib.parse import quote

from msgspec import Struct
from msgspec import inspect as shapes

from core_ext.faults import FAULTS_MAX, FRAGMENT_SAFE, TOKEN_CHARS_MAX, FaultAt
from core_ext.reference.validation import CONTROL


def find_faults(document: object, shape: type[Struct]) -> list[FaultAt]:
    """Empty exactly when msgspec converts `document` to `shape` and no text has a control character."""
    return list(islice(_faults(document, shape), FAULTS_MAX))


@cache
def _fields(shape: type[Struct]) -> dict[str, shapes.Field]:
    described = shapes.type_info(shape)
    assert isinstance(described, shapes.StructType)
    assert described.forbid_unknown_fields
    return {field.encode_name: field for field in described.fields}


def _faults(document: object, shape: type[Struct]) -> Iterator[FaultAt]:
    if not isinstance(document, dict):
        yield FaultAt("wrong_type", "#", "must be an object")
        return
    fields = _fields(shape)
    for name in document:
        if name not in fields:
            yield FaultAt("unknown_field", _pointer(name), "is not a field of this object")
    for name, field in fields.items():
        if name in document:
            yield from _value(_pointer(name), document[name], field.type)
        elif field.required:
            yield FaultAt("required", _pointer(name), "is required")


def _value(pointer: str, value: object, kind: shapes.Type) -> Iterator[FaultAt]:
    if isinstance(kind, shapes.Metadata):
        kind = kind.type
    if isinstance(kind, shapes.UnionType):
        if value is None and kind.includes_none:
            return
        (kind,) = (part for part in kind.types if not isinstance(part, shapes.NoneType))
        yield from _value(pointer, value, kind)
    elif isinstance(kind, shapes.StrType):
        yield from _text(pointer, value, kind)
    elif isinstance(kind, shapes.IntType):
        yield from _number(pointer, value, kind)
    else:
        assert isinstance(kind, shapes.BoolType)
        if not isinstance(value, bool):
            yield FaultAt("wrong_type", pointer, "must be true or false")


def _text(pointer: str, value: object, kind: shapes.StrType) -> Iterator[FaultAt]:
    if not isinstance(value, str):
        yield FaultAt("wrong_type", pointer, "must be a string")
        return
    shortest, longest = kind.min_length or 0, kind.max_length
    if len(value) < shortest or (longest is not None and len(value) > longest):
        yield FaultAt("bad_length", pointer, f"must have {shortest} to {longest} characters")
    if CONTROL.search(value):
        yield FaultAt("control_character", pointer, "must not have NUL or control characters")
    elif kind.pattern and not re.search(kind.pattern, value):
        yield FaultAt("bad_format", pointer, f"must match {kind.pattern}")


def _number(pointer: str, value: object, kind: shapes.IntType) -> Iterator[FaultAt]:
    assert kind.ge is not None
    assert kind.le is not None
    if type(value) is not int:
        yield FaultAt("wrong_type", pointer, "must be an integer")
    elif not kind.ge <= value <= kind.le:
        yield FaultAt("out_of_range", pointer, f"must be {kind.ge} to {kind.le}")


def _pointer(name: str) -> str:
    if len(name) > TOKEN_CHARS_MAX:
        return "#"
    return f"#/{quote(name.replace('~', '~0').replace('/', '~1'), safe=FRAGMENT_SAFE, errors='replace')}"
