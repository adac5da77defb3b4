"""Runs scenarios in rounds: each cell once a round, all of them beside each other, and every second round the other way
about, so that a machine that grows slower favours nobody.

A run is never left out because of what it shows. A scenario that cannot run here is said to be missing; the others go
on.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats.errors
from msgspec.structs import replace

from bench import environment, verdict
from bench.failure import ScenarioError
from bench.plan import Measured, Plan
from bench.record import Cell, Record, Run
from bench.report.words import number
from bench.scenario import Bench, Say, Scenario
from bench.scenarios import SCENARIOS
from deploy.local.failure import StackError
from gateway.cli.edge import EdgeError
from persistence.errors import Unavailable
from persistence.postgres.connect import UNREACHABLE

WARM_UP_S = 1
# Of PostgreSQL's log, which is made before the first run: what a second of orders writes, and the most.
LOG_MIB_PER_S = 24
LOG_MIB_MAX = 4096
# What can go wrong in a scenario without being a mistake of ours: it cannot run here, or a server does not answer.
FAILURES = (ScenarioError, StackError, EdgeError, Unavailable, nats.errors.Error, *UNREACHABLE)


def named(names: Sequence[str]) -> list[Scenario]:
    """The scenarios of these names in the order of a round; without names those that run by default."""
    return [one for one in SCENARIOS.values() if one.name in names or (not names and one.by_default)]


def run_bench(
    plan: Plan, say: Say, options: Mapping[str, Any], command: str = "", note: str = "", folder: Path | None = None
) -> Record:
    """Run it all on a system of its own below `folder`, by default that of temporary files. Nothing is left of it."""
    before = environment.machine()
    with tempfile.TemporaryDirectory(prefix="floodgate-bench-", dir=folder) as scratch:
        Path(scratch).chmod(0o711)  # Root's PostgreSQL runs under another name and has to pass.
        with Bench(Path(scratch), say, options) as bench:
            measured = measure(plan, bench)
            where = environment.describe(before, bench.started, command, note)
    return verdict.record(plan, measured, where)


def measure(plan: Plan, bench: Bench) -> Measured:
    """All rounds."""
    measured = Measured({}, {}, {})
    for scenario in plan.scenarios:
        with _told(bench, measured, scenario):
            scenario.prepare(bench)
    _prime(plan, bench)
    for at in range(1, plan.rounds + 1):
        cells = plan.cells()
        for scenario, cell in cells if at % 2 else reversed(cells):
            if scenario.name not in measured.missing:
                with _told(bench, measured, scenario):
                    _measure_once(plan, bench, measured, scenario, cell, at)
    return measured


def _prime(plan: Plan, bench: Bench) -> None:
    if bench.started is not None:
        seconds = plan.rounds * len(plan.cells()) * (plan.seconds + WARM_UP_S)
        bench.started.prime_log(min(LOG_MIB_PER_S * seconds, LOG_MIB_MAX))


def _measure_once(plan: Plan, bench: Bench, measured: Measured, scenario: Scenario, cell: Cell, at: int) -> None:
    if scenario.warms_up:
        run = replace(scenario.measure(bench, cell, WARM_UP_S), round=at)
        measured.warm_ups.setdefault(cell, []).append(run)
    run = replace(scenario.measure(bench, cell, plan.seconds), round=at)
    measured.runs.setdefault(cell, []).append(run)
    bench.say(f"{at}/{plan.rounds}  {described(cell, scenario.unit, run)}")


@contextmanager
def _told(bench: Bench, measured: Measured, scenario: Scenario) -> Iterator[None]:
    """What a scenario cannot do here is kept with its reason."""
    try:
        yield
    except FAILURES as error:
        measured.missing[scenario.name] = str(error) or repr(error)
        bench.say(f"{scenario.name} cannot be measured: {measured.missing[scenario.name]}")


def described(cell: Cell, unit: str, run: Run) -> str:
    """A run in one line."""
    parts = [f"{cell.key}: {number(run.value)} {unit}"]
    if run.p50_ms is not None and run.p99_ms is not None:
        parts.append(f"p50 {run.p50_ms:.1f} ms, p99 {run.p99_ms:.1f} ms")
    if "backlog_s" in run.figures:
        parts.append(f"events at most {run.figures['backlog_s']:.2f} s behind")
    return ", ".join(parts + verdict.faults_of(run) + ([f"void: {run.void}"] if run.void else []))
