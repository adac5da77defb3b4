"""What the commands print: tables for people, JSON for programs, progress bars at a terminal only.

Standard output carries the answer alone, so that it can be piped; progress goes to standard error.
"""

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import click
import msgspec


class Bar(Protocol):
    def update(self, n_steps: int) -> None: ...


def progress(length: int, label: str) -> AbstractContextManager[Bar]:
    """A progress bar; nothing at all where nobody watches."""
    return click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty(), show_pos=True)


def say_json(document: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(document, enc_hook=str)).decode())


def say_table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as they need be; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in ([*heads], *cells):
        click.echo("  ".join(_aligned(value, width) for value, width in zip(row, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _aligned(value: str, width: int) -> str:
    return value.rjust(width) if value.replace(",", "").isdigit() else value.ljust(width)
