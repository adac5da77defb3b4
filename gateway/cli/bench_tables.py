"""What `floodgate bench` prints of a record: every run, then the medians, the ratios, the targets, and the headline or
why there is none. It never leaves a run out.
"""

from collections.abc import Iterator

import click

from bench.record import Record, Result, Run
from bench.report import words
from bench.report.words import number
from gateway.cli import terminal

RUNS = ("cell", "round", "result", "unit", "p50 ms", "p99 ms", "behind s", "answers", "lost", "doubled")
RESULTS = ("cell", "median", "min", "max", "unit", "CPU us per order")
RATIOS = ("ratio", "median", "min", "max")
HEADLINE = ("orders_per_second", "workers", "connections")
BUSY_SHARE = 0.25  # of the cores, before the bench: more makes its figures those of a busy machine
TARGETS = ("target", "asked", "measured", "")


def say_record(record: Record) -> None:
    results = record.scenarios.items()
    _say(RUNS, [_run(key, found, run) for key, found in results for run in found.runs])
    _say(RESULTS, [_result(key, found) for key, found in results])
    _say(RATIOS, [[key, *map(number, (of.median, of.min, of.max))] for key, of in record.ratios.items()])
    _say(TARGETS, [[one.of, words.asked(one), number(one.measured), words.verdict(one)] for one in record.targets])
    for line in _conclusion(record):
        click.echo(line)


def _say(heads: tuple[str, ...], rows: list[list[object]]) -> None:
    if rows:
        terminal.say_table(heads, rows)
        click.echo()


def _run(key: str, found: Result, run: Run) -> list[object]:
    latency = [None if ms is None else number(ms) for ms in (run.p50_ms, run.p99_ms)]
    behind = run.figures.get("backlog_s")
    books = [run.verified.lost, run.verified.doubled] if run.verified else [None, None]
    return [
        key,
        run.round,
        number(run.value),
        found.unit,
        *latency,
        None if behind is None else f"{behind:.2f}",
        words.answers(run.answers) or None,
        *books,
    ]


def _result(key: str, found: Result) -> list[object]:
    cpu = ", ".join(f"{role} {number(us)}" for role, us in words.roles(found.cpu_us_per_order).items())
    return [key, *map(number, (found.median, found.min, found.max)), found.unit, cpu or None]


def _conclusion(record: Record) -> Iterator[str]:
    load, cores = (float(record.environment.machine[name]) for name in ("load_before", "cores"))
    if load > cores * BUSY_SHARE:
        yield f"The machine was busy before: a load of {load:.1f} on {cores:.0f} cores."
    for name, reason in record.missed.items():
        yield f"Not measured: {name}: {reason}"
    for fault in record.faults:
        yield f"Fault: {fault}"
    if record.headline:
        orders, workers, connections = (record.headline[name] for name in HEADLINE)
        at = f"{words.counted(int(workers), 'worker')} and {words.counted(int(connections), 'connection')}"
        yield f"{number(orders)} durable orders/s at {at}, each with its event."
    elif record.faults:
        yield "No headline: see the faults above."
