"""Reads a file of products for `product load`: CSV with a header, or NDJSON with one object a line.

The whole file is read before anything is sent, and every mistake in it is named at once. What a price or a title may
be is the gateway's business; here only the form counts.
"""

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct

FAULTS_SHOWN = 20


class Record(Struct, forbid_unknown_fields=True, omit_defaults=False):
    """One row of the file."""

    sku: Annotated[str, Meta(min_length=1)]
    title: str
    price: int
    currency: str
    stocked: bool = True
    active: bool = True
    units: Annotated[int, Meta(ge=0)] | None = None


class Row(NamedTuple):
    """`at` is the line of the file; `product` the body for the gateway; `units` the stock's total, None: left alone."""

    at: int
    sku: str
    product: dict[str, Any]
    units: int | None


class ProductsFileError(Exception):
    """The file cannot be read; the message names the lines and what is wrong with them."""


def read(file: bytes) -> list[Row]:
    """The rows of the file. Raises ProductsFileError."""
    try:
        text = file.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProductsFileError("it is not UTF-8 text") from error
    parse = _from_ndjson if text.lstrip().startswith("{") else _from_csv
    rows: dict[str, Row] = {}
    faults = []
    for at, found in parse(text):
        if isinstance(found, str):
            faults.append(f"line {at}: {found}")
        elif found.sku in rows:
            faults.append(f"line {at}: {found.sku} stands in line {rows[found.sku].at} already")
        else:
            rows[found.sku] = _row(at, found)
    if not rows and not faults:
        raise ProductsFileError("it has no products")
    if faults:
        more = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise ProductsFileError("nothing was sent:\n  " + "\n  ".join(faults[:FAULTS_SHOWN]) + more)
    return list(rows.values())


def _row(at: int, record: Record) -> Row:
    product = msgspec.to_builtins(record)
    del product["sku"], product["units"]
    return Row(at, record.sku, product, record.units)


def _from_ndjson(text: str) -> Iterator[tuple[int, Record | str]]:
    for at, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                yield at, msgspec.json.decode(line, type=Record)
            except msgspec.DecodeError as error:
                yield at, str(error)


def _from_csv(text: str) -> Iterator[tuple[int, Record | str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in reader:
            yield reader.line_num, _record(row)
    except csv.Error as error:
        yield reader.line_num, str(error)


def _record(row: dict[str, Any]) -> Record | str:
    if None in row:
        return "it has more cells than the header"
    try:
        # An empty cell is no value; lax conversion reads numbers and true or false out of text.
        return msgspec.convert({name: cell for name, cell in row.items() if cell}, Record, strict=False)
    except msgspec.ValidationError as error:
        return str(error)
