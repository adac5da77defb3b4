"""JSON as nobody should write it: an example of what a route takes, changed in its structure, its values and its bytes.

Most of what comes out is still nearly right, and so gets as far into the road as a mistake can.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from core_ext.shapes import AdjustmentIn, ItemIn, OrderIn, PaidIn, ShipTo
from tests.unit.test_road_fuzz import ODD_TEXT, VALUES

BODY_BYTES_MAX = 65536
DIGITS_MAX = 4300  # of an integer that Python still reads
FIELDS = sorted({name for shape in (OrderIn, ItemIn, ShipTo, PaidIn, AdjustmentIn) for name in shape.__struct_fields__})


class Written(str):
    """Stands in a text as it is, whatever that does to it."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object, in which a name may stand twice."""

    __slots__ = ()


# What json.dumps would never write, or not so.
TOKENS = [
    *("NaN", "Infinity", "-Infinity", "1e999", "-0", "1.0", "6.0e0", "01", "0x1", "+1", "1e", "tru", "undefined", ""),
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x"', '"\x01"', '"\ud800"', "'A'", '"', "//", '"\\', "\ufeff1"),
    *("9" * DIGITS_MAX, "9" * (DIGITS_MAX + 1), "-" + "9" * DIGITS_MAX, "0." + "9" * DIGITS_MAX, "1" + "0" * 400),
    *("[" * 100_000, '{"a":' * 20_000, "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500),
    *('"' + "x" * BODY_BYTES_MAX + '"', "[1," * 3000, "[" + "{}," * 3000 + "{}]"),
    *("9007199254740991", "9007199254740992", "9223372036854775807", "9223372036854775808", "-9223372036854775809"),
    *('"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59.999999999Z"', '"2026-02-30T00:00:00Z"', '"2026-11-11"'),
]
# What may be put between the bytes of a body.
PIECES = [
    *(b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x00", b"\xef\xbb\xbf", b"\xfe\xff", b"\\u0000"),
    *(b"[" * 3000, b'{"a":' * 2000, b"9" * 5000, b'"', b"\\", b"}", b"]", b",", b"\n", b"\r\n", b" " * 5000),
]
SIZES = [BODY_BYTES_MAX - 1, BODY_BYTES_MAX, BODY_BYTES_MAX + 1, 1 << 20, (1 << 20) + 1]
NAMES = st.sampled_from(FIELDS) | ODD_TEXT
ODD_VALUES = VALUES | st.sampled_from([Written(token) for token in TOKENS])
CHANGES = ("replace", "replace", "replace", "delete", "double", "rename", "wrap", "add")


@st.composite
def texts(draw: st.DrawFn, examples: Sequence[Any]) -> bytes:
    """The body of a request for whose route these are examples."""
    tree = _pairs(draw(st.sampled_from(examples)))
    for _ in range(draw(st.sampled_from((0, 1, 1, 1, 1, 2, 3)))):
        tree = _changed(draw, tree)
    body = _written(tree, ascii_only=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 3)) == 0:
        body = draw(damaged(body))
    if draw(st.integers(0, 60)) == 60:
        body = body.ljust(draw(st.sampled_from(SIZES)))
    return body


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """Bytes of which some were cut, doubled or replaced somewhere."""
    at = draw(st.integers(0, len(body)))
    piece = draw(st.binary(max_size=4) | st.sampled_from(PIECES) | st.just(body[at : at + 40]))
    return body[:at] + piece + body[at + draw(st.sampled_from((0, 0, 1, 2, 8, len(body)))) :]


@st.composite
def lines(draw: st.DrawFn, examples: Sequence[Any]) -> bytes:
    """Such texts as the lines of one body."""
    found = draw(st.lists(texts(examples), min_size=1, max_size=4))
    return draw(st.sampled_from((b"\n", b"\n", b"\r\n", b"\n\n", b" \n\t", b"\r"))).join(found)


def _changed(draw: st.DrawFn, tree: Any) -> Any:
    """With one change, at a place anywhere in it."""
    places = list(_places(tree))
    if not places:
        return draw(ODD_VALUES)
    parent, at = places[draw(st.integers(0, len(places) - 1))]
    name, value = parent[at] if isinstance(parent, Pairs) else (None, parent[at])
    change = draw(st.sampled_from(CHANGES))
    if change == "delete":
        del parent[at]
    elif change == "double":
        parent.insert(at, parent[at] if draw(st.booleans()) else _of(name, draw(ODD_VALUES)))
    elif change == "rename":
        parent[at] = _of(draw(NAMES) if name is not None else None, value)
    elif change == "wrap":
        parent[at] = _of(name, [value])
    elif change == "add":
        parent.append(_of(draw(NAMES) if name is not None else None, draw(ODD_VALUES)))
    else:
        parent[at] = _of(name, draw(ODD_VALUES))
    return tree


def _of(name: str | None, value: Any) -> Any:
    return value if name is None else (name, value)


def _places(tree: Any) -> Iterator[tuple[list[Any], int]]:
    if isinstance(tree, list):
        for at in range(len(tree)):
            yield tree, at
            yield from _places(tree[at][1] if isinstance(tree, Pairs) else tree[at])


def _pairs(document: Any) -> Any:
    if isinstance(document, dict):
        return Pairs((name, _pairs(value)) for name, value in document.items())
    return [_pairs(value) for value in document] if isinstance(document, list) else document


def _written(tree: Any, *, ascii_only: bool) -> str:
    if isinstance(tree, Written):
        return str(tree)
    if isinstance(tree, Pairs):
        inner = (f"{json.dumps(name)}:{_written(value, ascii_only=ascii_only)}" for name, value in tree)
        return "{" + ",".join(inner) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(_written(value, ascii_only=ascii_only) for value in tree) + "]"
    return json.dumps(tree, ensure_ascii=ascii_only)
