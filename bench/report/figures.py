"""The charts of `floodgate bench`, each from the record alone. A chart for which the record has nothing is left out.

Orders, ceilings and refusals never share a chart: what is no order is not drawn as one.
"""

from collections.abc import Callable, Sequence
from statistics import median

from bench.record import Record, Result, Run, Target
from bench.report import charts, words
from bench.report.charts import Bar, Caption, Span, Stack
from bench.report.words import number

RUNS = "each dot is a run, the bar their median"


def render_svgs(record: Record) -> dict[str, str]:
    """File name -> SVG, in the order of the page."""
    drawn = {f"bench-{name}.svg": draw(record) for name, draw in CHARTS.items()}
    return {name: svg for name, svg in drawn.items() if svg}


def _targets(record: Record) -> str | None:
    """Every target on one scale: what was measured over what was asked for, so that 1 is the target whichever way it
    points.
    """
    rows = [_held_against(record, target) for target in record.targets]
    about = "measured / target; for upper bounds, target / measured: right of the line is met"
    return charts.bars(Caption("Targets", about, "of the target"), rows) if rows else None


def _held_against(record: Record, target: Target) -> Bar:
    share = _share(target)
    kind = "order" if target.met else "missed"
    runs = [share(value) for value in measured(record, target.of)]
    shown = f"{number(target.measured)} of {words.asked(target)}"
    return Bar(target.of, share(target.measured), shown, kind, runs, 1.0)


def _share(target: Target) -> Callable[[float], float]:
    """How far a value reaches towards the target."""
    if target.at_least is not None:
        least = target.at_least
        return lambda value: value / least
    most = target.at_most or 0.0
    return lambda value: most / value if value else 0.0


def measured(record: Record, of: str) -> list[float]:
    """The single values behind the key of a target: of rounds, of runs, or a figure of each run."""
    if of in record.ratios:
        return record.ratios[of].rounds
    key, _, figure = of.partition(":")
    runs = record.scenarios[key].runs if key in record.scenarios else []
    return [run.figures[figure] for run in runs if figure in run.figures] if figure else [run.value for run in runs]


def _orders(record: Record) -> str | None:
    rows = [_bar(found) for found in sound(record) if is_orders(found)]
    about = f"in PostgreSQL, ours with their event in the stream; {RUNS}"
    return charts.bars(Caption("Orders per second", about, "orders/s"), rows) if rows else None


def sound(record: Record) -> list[Result]:
    """The cells none of whose runs is void."""
    return [found for found in record.scenarios.values() if not any(run.void for run in found.runs)]


def is_orders(found: Result) -> bool:
    """Whether a cell counts orders that somebody has got: ours, or those of the naive peer."""
    return found.unit == "orders/s" and words.kind(found) in {"order", "peer"}


def _ceilings(record: Record) -> str | None:
    rows = [_bar(found) for found in record.scenarios.values() if words.kind(found) == "ceiling"]
    about = f"an edge that only answers, a store that only stores: no orders; {RUNS}"
    return charts.bars(Caption("Ceilings", about, "per second"), rows) if rows else None


def _refusals(record: Record) -> str | None:
    rows = [_bar(found) for found in record.scenarios.values() if words.kind(found) == "refusal"]
    about = f"nobody got an order here, and none is counted as one; {RUNS}"
    return charts.bars(Caption("Refusals per second", about, "refusals/s"), rows) if rows else None


def _bar(found: Result) -> Bar:
    runs = [run.value for run in found.runs]
    return Bar(words.cell(found), found.median, number(found.median), words.kind(found), runs)


def _cpu(record: Record) -> str | None:
    rows = [
        Stack(words.cell(found), list(cpu.items()), f"{number(sum(cpu.values()))} µs")
        for found in sound(record)
        if (cpu := words.roles(found.cpu_us_per_order))
    ]
    about = "of processes with threads and children, from /proc; of ceilings and refusals: of one request"
    return charts.stacks(Caption("CPU time of one order", about, "microseconds"), rows) if rows else None


def _latency(record: Record) -> str | None:
    rows = [_span(found, *late) for found in sound(record) if (late := latency(found.runs))]
    about = "as the generator saw it; medians of the runs"
    return charts.spans(Caption("Time to the answer", about, "milliseconds"), rows) if rows else None


def _span(found: Result, middle: float, late: float) -> Span:
    return Span(words.cell(found), middle, late, f"{number(middle)} / {number(late)} ms")


def latency(runs: Sequence[Run]) -> tuple[float, float] | None:
    """The medians of p50 and p99, in milliseconds, of the runs that have both."""
    both = [(run.p50_ms, run.p99_ms) for run in runs if run.p50_ms is not None and run.p99_ms is not None]
    return (median(p50 for p50, _ in both), median(p99 for _, p99 in both)) if both else None


CHARTS: dict[str, Callable[[Record], str | None]] = {
    "targets": _targets,
    "orders": _orders,
    "ceilings": _ceilings,
    "refusals": _refusals,
    "cpu": _cpu,
    "latency": _latency,
}
