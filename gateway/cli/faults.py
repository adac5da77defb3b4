"""`floodgate faults`: breaks a system of its own on purpose, again and again, and proves that no order was lost, sold
twice or forgotten.

Exit status 0 only when every row that ran has passed, and every guard that was taken away has been missed. What cannot
run here is said to be so, with the reason.
"""

import secrets
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click
import msgspec

from bench.failure import ScenarioError
from bench.faults import guarding
from bench.faults.jobs import run_rows
from bench.faults.record import Matrix, Mutation
from bench.faults.rows import BY_NUMBER
from bench.faults.runner import Plan, Runner
from bench.faults.soak import soak as run_soak
from bench.faults.times import FULL, SCALED, Times
from bench.system import ENDS, uninterrupted
from gateway.cli import terminal
from gateway.cli.examples import examples

SEED_MAX = 2**31
COLUMNS = (
    "row",
    "fault",
    "status",
    "injections",
    "acknowledged",
    "lost",
    "oversold",
    "stranded",
    "doubled",
    "hung",
    "recover s",
)


@examples(
    "floodgate faults",
    "floodgate faults --row 1 --row 11 --seed 7",
    "floodgate faults --json faults.json",
    "floodgate faults --soak 3600",
)
@click.command()
@click.option(
    "--row",
    "rows",
    type=click.Choice([str(number) for number in BY_NUMBER]),
    multiple=True,
    help="Only this row; may be repeated.  [default: all]",
)
@click.option("--seed", type=click.IntRange(0, SEED_MAX), help="Of every choice.  [default: a new one]")
@click.option("--injections", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Of each row.")
@click.option(
    "--rate", type=click.FloatRange(1, 10_000), default=60.0, show_default=True, help="Orders offered a second."
)
@click.option("--jobs", type=click.IntRange(1, 8), default=2, show_default=True, help="Rows at the same time.")
@click.option("--full", is_flag=True, help="With the waits of production: hours.")
@click.option(
    "--soak", "soak_s", type=click.IntRange(1, 604_800), help="Seconds of steady load with a death a minute, instead."
)
@click.option(
    "--json", "json_file", type=click.Path(allow_dash=True, dir_okay=False), help="Write the record (-: print)."
)
def faults(
    rows: tuple[str, ...],
    seed: int | None,
    injections: int,
    rate: float,
    jobs: int,
    soak_s: int | None,
    json_file: str | None,
    *,
    full: bool,
) -> None:
    """Break a system of its own, and check the books after each row.

    Real servers and processes, every link through a proxy; buyers keep a history outside of it. Nothing of it is left
    but the logs of rows that have failed. With all rows every guard of the promise is then taken away once, and has to
    be missed.
    """
    for number in ENDS:  # `kill` ends it as Ctrl-C does: with nothing left.
        signal.signal(number, signal.default_int_handler)
    times = FULL if full else SCALED
    seed = secrets.randbelow(SEED_MAX) if seed is None else seed
    plan = Plan(seed, times, rows=tuple(map(int, dict.fromkeys(rows))), injections=injections, rate=rate)
    _say(f"Seed {seed}. Seconds: {_said(times)}.")
    matrix = _run(plan, jobs, soak_s)
    if not rows and soak_s is None:
        matrix.mutations = _take_guards_away()
    _write(matrix, json_file)
    if matrix.failed:
        sys.exit(1)


def _run(plan: Plan, jobs: int, soak_s: int | None) -> Matrix:
    folder = Path(tempfile.mkdtemp(prefix="floodgate-faults-"))
    folder.chmod(0o711)  # Root's PostgreSQL has to pass.
    matrix = plan.new_record()
    runner = Runner(plan, folder, _say)
    try:
        if soak_s is not None:
            matrix.soak = run_soak(runner, plan, soak_s)
        elif min(jobs, len(plan.rows)) > 1:
            matrix.rows = run_rows(plan, jobs, folder, _say)
        else:
            matrix.rows = runner.run()
    except ScenarioError as error:
        raise click.ClickException(str(error)) from error
    else:
        return matrix
    finally:
        with uninterrupted():
            runner.drop_site()
            with suppress(OSError):  # Logs of failed rows stay.
                folder.rmdir()


def _take_guards_away() -> list[Mutation]:
    if not guarding.is_here():
        _say(guarding.ABSENT)
        return []
    _say("Taking every guard away, one after the other.")
    try:
        return guarding.run_mutations(_say)
    except ScenarioError as error:  # The rows have run for long: they are told all the same.
        return [Mutation(str(error), None)]


def _said(times: Times) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in times._asdict().items())


def _say(text: str) -> None:
    click.echo(text, err=True)


def _write(matrix: Matrix, json_file: str | None) -> None:
    """The table, unless the JSON is to be printed in its place."""
    if json_file == "-":
        terminal.say_json(matrix)
        return
    if json_file is not None:
        Path(json_file).write_bytes(msgspec.json.format(msgspec.json.encode(matrix), indent=1) + b"\n")
    _say_rows(matrix)
    _say_mutations(matrix)
    _say_soak(matrix)
    click.echo(f"Seed {matrix.seed}.")


def _say_rows(matrix: Matrix) -> None:
    if not matrix.rows:
        return
    terminal.say_table(
        COLUMNS,
        [
            (
                row.row,
                row.name,
                row.status,
                row.injections,
                row.acknowledged,
                row.lost,
                row.oversold,
                row.stranded,
                row.doubled,
                row.hung,
                "" if row.recover_s is None else row.recover_s,
            )
            for row in matrix.rows
        ],
    )
    for row in matrix.rows:
        for line in (*row.found, *([row.reason] if row.reason else ()), *([f"logs: {row.logs}"] if row.logs else ())):
            click.echo(f"{row.row}: {line}")


def _say_mutations(matrix: Matrix) -> None:
    if matrix.mutations:
        rows = [(one.guard, one.caught_by or "NOBODY") for one in matrix.mutations]
        terminal.say_table(("guard taken away", "missed by"), rows)


def _say_soak(matrix: Matrix) -> None:
    if (soak := matrix.soak) is None:
        return
    click.echo(
        f"{soak.seconds} s, {soak.faults} deaths, {soak.requests} orders asked for:"
        f" {soak.right_within_1_s:.3%} of the requests were answered right within a second."
    )
    for line in soak.verdict.found:
        click.echo(line)
