"""What `floodgate bench scale` writes: the shapes of its JSON.

A part holds series over places of one axis, each place with every run that was made there. What a part has found is
said in words that are made from its figures. A fault is never taken out, and takes the findings' place.
"""

from collections.abc import Sequence
from statistics import median

from msgspec import Struct

from bench.record import Environment, Run


class Place(Struct, frozen=True):
    """A place of the axis (so many SKUs, so many shards, the number of a pair) with its runs."""

    at: float
    runs: list[Run]

    @property
    def values(self) -> list[float]:
        return [run.value for run in self.runs]

    @property
    def median(self) -> float:
        return median(self.values)


class Series(Struct, frozen=True):
    name: str
    places: list[Place]


class Part(Struct, frozen=True, kw_only=True):
    """One question. `findings` are sentences; empty when there are `faults`."""

    title: str
    method: list[str]
    axis: str
    unit: str
    series: list[Series]
    figures: dict[str, float] = {}
    findings: list[str] = []
    faults: list[str] = []


class ScaleRecord(Struct, frozen=True, kw_only=True):
    """`missed` are parts that could not be measured, with the reason."""

    environment: Environment
    method: list[str]
    scale: dict[str, Part]
    missed: dict[str, str] = {}


def faults_of(series: Sequence[Series]) -> list[str]:
    """Why the runs of a part allow no finding."""
    found = [
        f"{one.name}, {place.at:,g}: {fault}"
        for one in series
        for place in one.places
        for run in place.runs
        for fault in _faults(run)
    ]
    return list(dict.fromkeys(found))


def _faults(run: Run) -> list[str]:
    nothing = [f"nothing was measured; the answers were {run.answers}"] if run.value <= 0 else []
    return [*nothing, *run.faults, *(run.verified.faults() if run.verified else ())]
