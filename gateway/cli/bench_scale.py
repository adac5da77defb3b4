"""`floodgate bench scale`: whether costs stay flat while things grow, and what each takes of memory, on systems of its
own of which nothing is left.

What it found is said in sentences, with every run in the JSON and on the page; a part with faults has found nothing,
and then the exit status is 1.
"""

import shlex
import signal
import sys
from pathlib import Path

import click
import msgspec

from bench.report.scale import conclusions, scale_html
from bench.report.words import number
from bench.scale.command import ORDERS, PAIRS, PARTS, ROUNDS, SECONDS, Options, run
from bench.scale.paired import PAIRS_MAX, PAIRS_MIN
from bench.scale.record import Part, ScaleRecord
from bench.system import ENDS
from gateway.cli import terminal
from gateway.cli.examples import examples

HEADS = ("", "at", "median", "lowest", "highest", "unit")


@examples(
    "floodgate bench scale --part skus",
    "floodgate bench scale --part orders --orders 20000000 --folder /srv",
    "floodgate bench scale --json scale.json --html scale.html",
)
@click.command()
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only this; may be given again.")
@click.option("--orders", type=click.IntRange(1000), default=ORDERS, show_default=True, help="In the full ledger.")
@click.option(
    "--pairs",
    type=click.IntRange(PAIRS_MIN, PAIRS_MAX),
    default=PAIRS,
    show_default=True,
    help="Of runs, full against fresh.",
)
@click.option("--runs", type=click.IntRange(1, 100), default=ROUNDS, show_default=True, help="Of everything else.")
@click.option("--seconds", type=click.IntRange(1, 60), default=SECONDS, show_default=True, help="Of each run.")
@click.option(
    "--json", "json_file", type=click.Path(allow_dash=True, dir_okay=False), help="Write the record (-: print)."
)
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page about it.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the data lie meanwhile.  [default: the folder for temporary files]",
)
def scale(
    parts: tuple[str, ...],
    orders: int,
    pairs: int,
    runs: int,
    seconds: int,
    json_file: str | None,
    html_file: Path | None,
    folder: Path | None,
) -> None:
    """Measure what growth costs.

    More SKUs, more shards and workers, more orders in the ledger; and the memory of a SKU, a connection and a queued
    order.
    """
    for ending in ENDS:  # `kill` ends it as Ctrl-C does: with nothing left.
        signal.signal(ending, signal.default_int_handler)
    command = shlex.join(["floodgate", "bench", *sys.argv[2:]])
    record = run(Options(parts or PARTS, orders, pairs, runs, seconds, folder), _say, command)
    _write(record, json_file, html_file)
    if record.missed or any(part.faults for part in record.scale.values()):
        sys.exit(1)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _write(record: ScaleRecord, json_file: str | None, html_file: Path | None) -> None:
    """The findings, unless the JSON is to be printed in their place."""
    if html_file is not None:
        html_file.write_text(scale_html(record))
    if json_file == "-":
        terminal.say_json(record)
        return
    if json_file is not None:
        Path(json_file).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    for part in record.scale.values():
        _say_part(part)
    for name, reason in record.missed.items():
        click.echo(f"Not measured: {name}: {reason}")


def _say_part(part: Part) -> None:
    click.echo(part.title)
    rows = [
        [one.name, f"{place.at:,g}", *map(number, (place.median, min(place.values), max(place.values))), part.unit]
        for one in part.series
        for place in one.places
    ]
    terminal.say_table(HEADS, rows)
    for line in conclusions(part):
        click.echo(line)
    click.echo()
