"""What `floodgate bench` writes: the shapes of its JSON, and how medians, ratios and the headline come out of runs.

Every run stands in the record whole, also one that is not counted. A ratio is the median of ratios of runs of the same
round, never a quotient of medians. There is no headline when an order was lost or doubled, or when something made the
system faster than it may be; a fault is never taken out of the record.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from msgspec import Struct

CONNECTIONS = 256  # those of a cell whose key names none
BEST = "best"


class Cell(NamedTuple):
    """One scenario at one number of workers and of connections; None where the scenario has no such number."""

    scenario: str
    workers: int | None = None
    connections: int | None = None

    @property
    def key(self) -> str:
        """`accept@1`, `accept@1x64`, `copy`."""
        return f"{self.scenario}{self.suffix}"

    @property
    def suffix(self) -> str:
        """`@1`, `@1x64`, or nothing."""
        return place(self.workers, self.connections)


def place(workers: int | str | None, connections: int | None) -> str:
    """What stands behind a name in a key: `@1`, `@1x64`, `@best`, or nothing."""
    at = "" if workers is None else f"@{workers}"
    return at if connections in (None, CONNECTIONS) else f"{at}x{connections}"


class Verified(Struct, frozen=True):
    """What the stores hold of a run, beside what the generator was told. `orphans` are orders in the ledger whose
    answer nobody received: those in flight when the generator stopped, at most one for each of its connections.
    """

    acknowledged: int
    rows: int
    events: int
    lost: int = 0  # acknowledged, and not in the ledger
    doubled: int = 0  # rows beyond the first one of their idempotency key
    orphans: int = 0
    orphans_max: int = 0

    def faults(self) -> list[str]:
        """Why a run with these books allows no headline."""
        found = []
        if self.lost:
            found.append(f"{self.lost} acknowledged orders are not in the ledger")
        if self.doubled:
            found.append(f"{self.doubled} orders are doubled")
        if self.orphans > self.orphans_max:
            found.append(f"{self.orphans} orders without an answer, and {self.orphans_max} connections")
        if self.events != self.rows:
            found.append(f"{self.rows} orders in the ledger, and {self.events} events in the stream")
        return found


class Run(Struct, frozen=True, kw_only=True):
    """One measured run. `value` is in the scenario's unit; `seconds` is what the clock showed when it stopped;
    `answers` counts by HTTP status; `cpu_us_per_order` is by role; `figures` is what else the scenario has found out.
    """

    value: float
    seconds: float
    answers: dict[str, int] = {}
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_us_per_order: dict[str, float] = {}
    verified: Verified | None = None
    figures: dict[str, float] = {}
    faults: list[str] = []  # beside those of `verified`: why this run allows no headline
    void: str = ""  # why this run says nothing about the system: it was measured badly
    round: int = 0  # set by the runner


class Result(Struct, frozen=True, kw_only=True):
    """All runs of a cell."""

    scenario: str
    workers: int | None
    connections: int | None
    unit: str
    about: str
    runs: list[Run]
    median: float
    min: float
    max: float
    cpu_us_per_order: dict[str, float]  # medians by role
    figures: dict[str, float]  # medians


class Ratio(Struct, frozen=True):
    """The median of the ratios of the rounds, which stand in `rounds`."""

    median: float
    min: float
    max: float
    rounds: list[float]


class Target(Struct, frozen=True, kw_only=True):
    """A target that was looked at. `of` is the key of a ratio, of a cell, or `CELL:FIGURE`."""

    of: str
    at_least: float | None = None
    at_most: float | None = None
    measured: float
    met: bool


class Environment(Struct, frozen=True, kw_only=True):
    """Where and with what it ran. `core` is FLOODGATE_CORE; `durability` is what the running servers say, empty when no
    server ran; `settings` are the variables that were set; `commit` is the revision of the source, if it is known.
    """

    date: str
    machine: dict[str, str | int | float]
    versions: dict[str, str]
    core: str
    durability: dict[str, str]
    settings: dict[str, str] = {}
    commit: str | None = None
    command: str = ""
    note: str = ""


class Record(Struct, frozen=True, kw_only=True):
    """`headline` is None when there are `faults`. `missed` are targets that could not be looked at, and scenarios
    that could not run, with the reason.
    """

    environment: Environment
    method: list[str]
    scenarios: dict[str, Result]
    ratios: dict[str, Ratio]
    targets: list[Target]
    faults: list[str]
    headline: dict[str, float] | None
    missed: dict[str, str] = {}


def result(cell: Cell, unit: str, about: str, runs: Sequence[Run]) -> Result:
    """The runs of a cell with their medians."""
    assert runs, "a cell without a run is not in the record"
    values = [run.value for run in runs]
    return Result(
        scenario=cell.scenario,
        workers=cell.workers,
        connections=cell.connections,
        unit=unit,
        about=about,
        runs=list(runs),
        median=median(values),
        min=min(values),
        max=max(values),
        cpu_us_per_order=medians(run.cpu_us_per_order for run in runs),
        figures=medians(run.figures for run in runs),
    )


def ratio(rounds: Sequence[float]) -> Ratio:
    return Ratio(median(rounds), min(rounds), max(rounds), list(rounds))


def medians(runs: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """By name, of the runs that have it."""
    values: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run.items():
            values.setdefault(name, []).append(value)
    return {name: median(found) for name, found in values.items()}
