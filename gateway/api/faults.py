"""Every fault of a small body at once, found from the bounds in its shape: the same ones that the OpenAPI document
shows.

For objects of texts, integers, booleans, times and lists of such objects; an order has its own (core_ext.faults).
Details say what is allowed and repeat no value.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from urllib.parse import quote

import msgspec
from msgspec import Struct
from msgspec import inspect as shapes

from core_ext.faults import FAULTS_MAX, FRAGMENT_SAFE, TOKEN_CHARS_MAX, FaultAt
from core_ext.limits import TIME_MS_MAX, TIME_MS_MIN
from core_ext.reference.validation import CONTROL
from core_ext.shapes import Time
from core_ext.times import ms_of


def find_faults(document: object, shape: type[Struct]) -> list[FaultAt]:
    """Empty exactly when msgspec converts `document` to `shape`, no text has a control character, and every time is
    within the years of UTC.
    """
    return list(islice(_faults("#", document, shape), FAULTS_MAX))


@cache
def _fields(shape: type[Struct]) -> dict[str, shapes.Field]:
    described = shapes.type_info(shape)
    assert isinstance(described, shapes.StructType)
    assert described.forbid_unknown_fields
    return {field.encode_name: field for field in described.fields}


def _faults(place: str, document: object, shape: type[Struct]) -> Iterator[FaultAt]:
    if not isinstance(document, dict):
        yield FaultAt("wrong_type", place, "must be an object")
        return
    fields = _fields(shape)
    for name in document:
        if name not in fields:
            yield FaultAt("unknown_field", _pointer(place, name), "is not a field of this object")
    for name, field in fields.items():
        if name in document:
            yield from _value(_pointer(place, name), document[name], field.type)
        elif field.required:
            yield FaultAt("required", _pointer(place, name), "is required")


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
    elif isinstance(kind, shapes.DateTimeType):
        yield from _time(pointer, value)
    elif isinstance(kind, shapes.ListType):
        yield from _list(pointer, value, kind)
    elif isinstance(kind, shapes.StructType):
        yield from _faults(pointer, value, kind.cls)
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


def _time(pointer: str, value: object) -> Iterator[FaultAt]:
    if not isinstance(value, str):
        yield FaultAt("wrong_type", pointer, "must be a string")
        return
    try:
        moment = msgspec.convert(value, Time)
    except msgspec.ValidationError:
        yield FaultAt("bad_format", pointer, "must be a time of RFC 3339 with an offset, such as 2026-11-11T00:00:00Z")
        return
    if not TIME_MS_MIN <= ms_of(moment) <= TIME_MS_MAX:
        yield FaultAt("out_of_range", pointer, "must be in the years 1 to 9999 of UTC")


def _list(pointer: str, value: object, kind: shapes.ListType) -> Iterator[FaultAt]:
    assert kind.min_length is not None
    assert kind.max_length is not None
    if not isinstance(value, list):
        yield FaultAt("wrong_type", pointer, "must be an array")
        return
    if not kind.min_length <= len(value) <= kind.max_length:
        yield FaultAt("bad_count", pointer, f"must have {kind.min_length} to {kind.max_length} entries")
    for index, entry in enumerate(value[: kind.max_length]):
        yield from _value(f"{pointer}/{index}", entry, kind.item_type)


def _pointer(place: str, name: str) -> str:
    if len(name) > TOKEN_CHARS_MAX:
        return place
    return f"{place}/{quote(name.replace('~', '~0').replace('/', '~1'), safe=FRAGMENT_SAFE, errors='replace')}"
