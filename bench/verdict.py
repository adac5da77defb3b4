"""Makes the record of what was measured: ratios of runs of the same round, targets, and the headline or the reasons why
there is none.

There is no headline when an order was lost or doubled, in a warm-up neither, or when something made the system faster
than it may be. A target that could not be looked at is said to be missing, and never taken for met.
"""

from collections.abc import Iterator, Mapping, Sequence

from bench import environment
from bench.plan import Measured, Plan
from bench.record import BEST, CONNECTIONS, Cell, Environment, Ratio, Record, Result, Run, Target, place, ratio, result
from bench.scenario import Against, Goal, Scenario

HEADLINE = "accept"
METHOD = """
One machine runs everything: PostgreSQL, NATS, Valkey, the gateway, steward, projector, and the generator, which takes a
part of the same processor cores. The generator is wrk, a closed loop: each connection sends its next request when the
last one is answered.

All is on: tokens, a key of its own for every request, validation, encrypted personal data, history, events, and every
store writes through to the disk. An order has a customer, a note of 20 Chinese characters and an address.

Each cell has one run a round, after a warm-up of its own, beside what it is held against; every second round runs the
other way about. A ratio is the median of the ratios of the rounds.

Only orders count that are acknowledged, in the ledger, and in the stream. The clock of a run stops with the event of
its last order. After each run the ids of all its answers are compared with the ledger, its rows with their keys, and
with the events in the stream. Requests in flight when the load stops are orders that nobody was told of.

The ceiling `echo` is the better of Granian's two interfaces in each round, with the gateway resting beside it: the same
server, flags, script, bytes and size of answer; it decodes the order and does nothing else.

`best` takes the better number of workers on either side. CPU is that of all threads and processes of a role, from
/proc, with the drain of the events.
"""


def record(plan: Plan, measured: Measured, where: Environment) -> Record:
    """The whole record."""
    results = {cell.key: _result(plan, cell, runs) for cell, runs in measured.runs.items()}
    ratios = Rates(plan, measured.runs).ratios()
    targets, missed = look(plan.scenarios, results, ratios)
    faults = environment.faults(where) + all_faults(measured)
    return Record(
        environment=where,
        method=[" ".join(part.split()) for part in METHOD.strip().split("\n\n")],
        scenarios=results,
        ratios=ratios,
        targets=targets,
        faults=faults,
        headline=None if faults else headline(results, ratios),
        missed=measured.missing | missed,
    )


def faults_of(run: Run) -> list[str]:
    """Why this run allows no headline."""
    return [*run.faults, *(run.verified.faults() if run.verified else ())]


def all_faults(measured: Measured) -> list[str]:
    """The faults of every run, each with its place."""
    return [
        f"{cell.key}, {kind} {run.round}: {fault}"
        for kind, of in (("warm-up", measured.warm_ups), ("round", measured.runs))
        for cell, runs in of.items()
        for run in runs
        for fault in faults_of(run)
    ]


def headline(results: Mapping[str, Result], ratios: Mapping[str, Ratio]) -> dict[str, float] | None:
    """Accepted orders a second, at the number of workers where they are most; None when they were not measured."""
    found = [result for result in results.values() if result.scenario == HEADLINE]
    if not found:
        return None
    best = max(found, key=lambda result: result.median)
    said = {"orders_per_second": best.median, "workers": best.workers or 0, "connections": best.connections or 0}
    return said | {key: ratios[key].median for key in (f"{HEADLINE}/echo@1", f"{HEADLINE}/naive") if key in ratios}


def look(
    scenarios: Sequence[Scenario], results: Mapping[str, Result], ratios: Mapping[str, Ratio]
) -> tuple[list[Target], dict[str, str]]:
    """The targets of the scenarios, and those that could not be looked at."""
    targets, missed = [], {}
    for goal in (goal for scenario in scenarios for goal in scenario.goals):
        measured = _measured(goal.of, results, ratios)
        void = _void(goal.of, results)
        if void or measured is None:
            missed[goal.of] = void or "what it needs did not run"
        else:
            targets.append(_target(goal, measured))
    return targets, missed


def _void(of: str, results: Mapping[str, Result]) -> str:
    """Why the runs of the goal's cell say nothing, if that is so of one of them: it is not known which way it errs."""
    found = results.get(of.partition(":")[0])
    reasons = [run.void for run in found.runs if run.void] if found is not None else []
    return f"void in {len(reasons)} of {len(found.runs)} runs: {reasons[0]}" if found is not None and reasons else ""


def _measured(of: str, results: Mapping[str, Result], ratios: Mapping[str, Ratio]) -> float | None:
    """What a goal is about: a ratio, a figure of a cell, or a cell."""
    if of in ratios:
        return ratios[of].median
    cell, _, figure = of.partition(":")
    if cell not in results:
        return None
    return results[cell].figures.get(figure) if figure else results[cell].median


def _target(goal: Goal, measured: float) -> Target:
    met = (goal.at_least is None or measured >= goal.at_least) and (goal.at_most is None or measured <= goal.at_most)
    return Target(of=goal.of, at_least=goal.at_least, at_most=goal.at_most, measured=measured, met=met)


def _result(plan: Plan, cell: Cell, runs: Sequence[Run]) -> Result:
    scenario = next(one for one in plan.scenarios if one.name == cell.scenario)
    return result(cell, scenario.unit, scenario.about, runs)


class Rates:
    """The runs by round, and the ratios between them."""

    def __init__(self, plan: Plan, runs: Mapping[Cell, Sequence[Run]]) -> None:
        self._plan = plan
        self._runs = {cell: {run.round: run for run in of} for cell, of in runs.items()}
        self._connections = CONNECTIONS if CONNECTIONS in plan.connections else plan.connections[0]

    def ratios(self) -> dict[str, Ratio]:
        """Every ratio that can be had, by its key."""
        found = {}
        for scenario in self._plan.scenarios:
            for against in scenario.against:
                for key, workers, connections in self._places(scenario, against):
                    rounds = list(self._rounds(scenario.name, against, workers, connections))
                    if rounds:
                        found[key] = ratio(rounds)
        return found

    def _places(self, scenario: Scenario, against: Against) -> Iterator[tuple[str, int | None, int | None]]:
        """Key, workers and connections of each ratio; None: the best of them."""
        for connections in self._plan.connections if scenario.per_connections else (None,):
            for workers in self._plan.workers if scenario.per_workers else (None,):
                yield against.key(scenario.name, place(workers, connections)), workers, connections
            if scenario.per_workers and against.role is None:
                yield against.key(scenario.name, place(BEST, connections)), None, connections
        if scenario.per_workers and against.role is None:
            yield against.key(scenario.name, ""), None, self._connections if scenario.per_connections else None

    def _rounds(self, name: str, against: Against, workers: int | None, connections: int | None) -> Iterator[float]:
        for number in sorted({number for runs in self._runs.values() for number in runs}):
            ours = self._value(name, number, workers, connections, against.role)
            theirs = [self._value(other, number, workers, connections, against.role) for other in against.scenarios]
            known = [value for value in theirs if value]
            if ours is not None and len(known) == len(theirs):
                yield ours * sum(1 / value for value in known)

    def _value(
        self, name: str, number: int, workers: int | None, connections: int | None, role: str | None
    ) -> float | None:
        """The best of a scenario in a round, at these numbers where it knows them."""
        runs = [
            of[number]
            for cell, of in self._runs.items()
            if cell.scenario == name
            and number in of
            and (workers is None or cell.workers in (None, workers))
            and cell.connections in (None, connections or self._connections)
        ]
        values = [run.value if role is None else run.cpu_us_per_order.get(role, 0.0) for run in runs]
        return max(values, default=None)
