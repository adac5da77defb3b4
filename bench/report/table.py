"""The tables of a record in Markdown, for documents: `render_table`.

What the tables say is what the record holds; a document shows them between `<!-- bench -->` marks and nobody edits them
by hand.
"""

from collections.abc import Iterable, Mapping, Sequence

from bench.record import Record, Result
from bench.report import words
from bench.report.figures import latency, sound
from bench.report.words import counted, number

HEADS = ("", "median", "lowest to highest", "p50 / p99 ms", "worker CPU")


def render_table(record: Record) -> str:
    """What it comes to, the machine, the cells and the targets."""
    parts = [summary(record), _about(record), _cells(record), _targets(record), _missed(record)]
    return "\n\n".join(part for part in parts if part)


def summary(record: Record) -> str:
    """The headline, or why there is none, and whose CPU time such an order takes."""
    return "\n\n".join(part for part in (headline(record), _spent(record)) if part)


def headline(record: Record) -> str:
    """One sentence for people."""
    said = record.headline
    if said is None:
        return f"**No headline:** {'; '.join(record.faults) or 'nothing that carries one was measured'}."
    place = f"{counted(int(said['workers']), 'worker')} and {counted(int(said['connections']), 'connection')}"
    beside = [f"{number(value)} times {_other(of)}" for of, value in said.items() if "/" in of]
    claim = f"**{number(said['orders_per_second'])} orders/s, durable and each with its event**, at {place}"
    return f"{claim}: {', '.join(beside)}." if beside else f"{claim}."


def _spent(record: Record) -> str:
    """Whose CPU time an order of the headline takes, the largest part first."""
    found = [result for result in record.scenarios.values() if _is_of_headline(result, record.headline)]
    if not found:
        return ""
    cpu = words.roles(found[0].cpu_us_per_order)
    parts = sorted(cpu.items(), key=lambda part: part[1], reverse=True)
    shares = ", ".join(f"{role} {number(spent)}" for role, spent in parts)
    return f"Such an order takes {number(sum(cpu.values()))} µs of CPU: {shares}."


def _is_of_headline(result: Result, headline: Mapping[str, float] | None) -> bool:
    if headline is None or result.scenario != "accept":
        return False
    return (result.workers, result.connections) == (headline["workers"], headline["connections"])


def _other(of: str) -> str:
    """Whom a ratio is held against: `echo` of `accept/echo@1`."""
    return of.partition("/")[2].partition("@")[0]


def _about(record: Record) -> str:
    environment = record.environment
    before = f"; load before {words.load(environment)}" if words.load(environment) else ""
    return f"{words.machine(environment)}; {environment.date}{before}; medians of {words.of_runs(record)}."


def _cells(record: Record) -> str:
    return markdown(HEADS, [cell_line(found) for found in sound(record)])


def cell_line(found: Result) -> list[str]:
    """The medians of a cell, under HEADS."""
    late = latency(found.runs)
    worker = found.cpu_us_per_order.get("worker")
    return [
        words.cell(found),
        f"{number(found.median)} {words.unit(found)}",
        f"{number(found.min)} to {number(found.max)}",
        f"{number(late[0])} / {number(late[1])}" if late else "",
        f"{number(worker)} µs" if worker is not None else "",
    ]


def _targets(record: Record) -> str:
    rows = [[f"`{one.of}`", words.asked(one), number(one.measured), words.verdict(one)] for one in record.targets]
    return markdown(("", "target", "measured", ""), rows) if rows else ""


def _missed(record: Record) -> str:
    return "\n".join(f"* `{of}` was not measured: {why}" for of, why in record.missed.items())


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
