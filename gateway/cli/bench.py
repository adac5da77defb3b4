"""`floodgate bench`: what this machine does, measured on a system of its own, of which nothing is left.

Every run is printed, and so is the reason when there is no headline: then the exit status is 1, as when a scenario
could not run. A target that was missed is said, and no failure of the bench.
"""

import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from bench.plan import Plan
from bench.record import Record
from bench.report import render_html
from bench.runner import named, run_bench
from bench.scenarios import SCENARIOS, overload
from bench.system import ENDS
from gateway.cli import terminal
from gateway.cli.bench_scale import scale
from gateway.cli.bench_tables import say_record
from gateway.cli.examples import examples
from gateway.settings import WORKERS_MAX

DEFAULT = "run"
CONNECTIONS_MAX = 10_000


class Numbers(click.ParamType[tuple[int, ...]]):
    """`1,2`: numbers in a range, each once."""

    name = "numbers"

    def __init__(self, highest: int) -> None:
        self._highest = highest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        one = click.IntRange(1, self._highest)
        return tuple(dict.fromkeys(int(one(part, param, ctx)) for part in str(value).split(",")))


class WithDefault(click.Group):
    """`floodgate bench accept` is `floodgate bench run accept`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        told = bool(args) and args[0] in (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if told else [DEFAULT, *args])


@examples("floodgate bench", "floodgate bench echo accept --workers 1", "floodgate bench scale --help")
@click.group(cls=WithDefault)
def bench() -> None:
    """Measure what this machine does.

    Without a command it is `floodgate bench run`.
    """


bench.add_command(scale)


@examples(
    "floodgate bench run",
    "floodgate bench run echo accept soldout --runs 1 --seconds 1",
    "floodgate bench run --workers 1 --connections 256 --json result.json --html result.html",
)
@bench.command()
@click.argument("scenarios", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--runs", type=click.IntRange(1, 100), default=3, show_default=True, help="Of each cell.")
@click.option("--seconds", type=click.IntRange(1, 60), default=5, show_default=True, help="Of each run.")
@click.option("--workers", type=Numbers(WORKERS_MAX), default="1,2", show_default=True, help="Numbers of workers.")
@click.option(
    "--connections", type=Numbers(CONNECTIONS_MAX), default="256,64", show_default=True, help="Numbers of connections."
)
@click.option(
    "--json", "json_file", type=click.Path(allow_dash=True, dir_okay=False), help="Write the record (-: print)."
)
@click.option("--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page about it.")
@click.option(
    "--overload-seconds", type=click.IntRange(1, 600), default=60, show_default=True, help="Of each run of overload."
)
@click.option("--note", default="", help="What the record should say, such as what else the machine does.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Where the data lie meanwhile.  [default: the folder for temporary files]",
)
def run(
    scenarios: tuple[str, ...],
    runs: int,
    seconds: int,
    workers: tuple[int, ...],
    connections: tuple[int, ...],
    json_file: str | None,
    html_file: Path | None,
    overload_seconds: int,
    note: str,
    folder: Path | None,
) -> None:
    """Measure scenarios beside their ceilings, in rounds.

    It starts a system of its own and deletes it afterwards. Only orders count that are in the ledger with their event
    in the stream. Without names, all scenarios run that take minutes.
    """
    for number in ENDS:  # `kill` ends it as Ctrl-C does: with nothing left.
        signal.signal(number, signal.default_int_handler)
    plan = Plan(named(scenarios), runs, seconds, workers, connections)
    command = shlex.join(["floodgate", "bench", *sys.argv[2:]])
    record = run_bench(plan, _say, {overload.SECONDS: overload_seconds}, command, note, folder)
    _write(record, json_file, html_file)
    failed = record.faults or [name for name in record.missed if name in SCENARIOS]
    if failed:
        sys.exit(1)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _write(record: Record, json_file: str | None, html_file: Path | None) -> None:
    """The tables, unless the JSON is to be printed in their place."""
    if html_file is not None:
        html_file.write_text(render_html(record))
    if json_file == "-":
        terminal.say_json(record)
        return
    if json_file is not None:
        Path(json_file).write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    say_record(record)
