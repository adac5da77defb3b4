"""How names and numbers of a record read, the same in charts, tables and pages.

A number is shown with as many digits as it is worth, never more than three behind the first ones that count; a cell is
named by its scenario, workers and connections.
"""

from collections.abc import Mapping

from bench.record import Environment, Record, Result, Target, Verified

CEILINGS = ("echo", "copy", "stream")  # what the machine could do at most; requests or rows, not orders of ours
PEERS = ("naive",)
REFUSALS = ("soldout",)
ROLES = ("generator", "worker", "postgres", "nats", "redis")
OTHERS = "others"
MET, MISSED = "met", "not met"


def number(value: float) -> str:
    """`12,345`, `81.4`, `0.47`."""
    size = abs(value)
    if size >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def counted(count: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def cell(result: Result) -> str:
    """`accept, 1 worker × 64`: × is the number of connections."""
    if result.workers is None:
        return f"{result.scenario} × {result.connections}" if result.connections else result.scenario
    connections = f" × {result.connections}" if result.connections else ""
    return f"{result.scenario}, {counted(result.workers, 'worker')}{connections}"


def kind(result: Result) -> str:
    """What sort of thing a cell counts; it also names the colour."""
    sorts = {"ceiling": CEILINGS, "peer": PEERS, "refusal": REFUSALS}
    return next((sort for sort, names in sorts.items() if result.scenario in names), "order")


def asked(target: Target) -> str:
    """`≥ 0.50`, `≤ 1.00`."""
    if target.at_least is not None:
        return f"≥ {number(target.at_least)}"
    assert target.at_most is not None, "a target has a bound"
    return f"≤ {number(target.at_most)}"


def verdict(target: Target) -> str:
    return MET if target.met else MISSED


def roles(cpu: Mapping[str, float]) -> dict[str, float]:
    """CPU by role in the order of the road; whatever else there is, summed, comes last."""
    known = {role: cpu[role] for role in ROLES if role in cpu}
    rest = sum(value for role, value in cpu.items() if role not in ROLES)
    return known | ({OTHERS: rest} if rest else {})


def machine(environment: Environment) -> str:
    """The machine in one line."""
    return described(environment.machine)


def described(found: Mapping[str, str | int | float]) -> str:
    """The machine of these words, in one line."""
    names = ("processor", "cores", "memory_gib", "kernel")
    units = {"cores": "{} cores", "memory_gib": "{} GiB", "kernel": "Linux {}"}
    return ", ".join(units.get(name, "{}").format(found[name]) for name in names if name in found)


def load(environment: Environment) -> str:
    """What the machine did before: near 0 when nothing, the number of its cores and more when it was busy."""
    return f"{environment.machine['load_before']}" if "load_before" in environment.machine else ""


def unit(found: Result) -> str:
    """As people write it."""
    return "µs" if found.unit == "us" else found.unit


def answers(counts: Mapping[str, int]) -> str:
    """`201: 61,724, 409: 3`."""
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(counts.items()))


def books(verified: Verified | None) -> str:
    """What was compared after a run: the answers, the ledger, the stream."""
    if verified is None:
        return ""
    said = f"{verified.acknowledged:,} answered, {verified.rows:,} in the ledger, {verified.events:,} events"
    return f"{said}; {verified.lost:,} lost, {verified.doubled:,} doubled, {verified.orphans:,} unheard"


def of_runs(record: Record) -> str:
    """How many runs each median is of."""
    counts = sorted({len(found.runs) for found in record.scenarios.values()})
    if not counts:
        return "no runs"
    if len(counts) == 1:
        return counted(counts[0], "run")
    return f"{counts[0]} to {counts[-1]} runs"
