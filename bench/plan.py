"""What a bench is asked to measure, and what came of it."""

from collections.abc import Sequence
from typing import NamedTuple

from bench.record import Cell, Run
from bench.scenario import Scenario


class Plan(NamedTuple):
    """What is asked for: scenarios, and at which numbers of workers and connections."""

    scenarios: Sequence[Scenario]
    rounds: int
    seconds: int
    workers: Sequence[int]
    connections: Sequence[int]

    def cells(self) -> list[tuple[Scenario, Cell]]:
        """In the order of a round: the same numbers together, so that the gateway changes seldom."""
        found: dict[Cell, Scenario] = {}
        for workers in self.workers:
            for connections in self.connections:
                for scenario in self.scenarios:
                    found.setdefault(_cell(scenario, workers, connections), scenario)
        return [(scenario, cell) for cell, scenario in found.items()]


class Measured(NamedTuple):
    """`runs` by cell, `warm_ups` likewise; `missing` says of scenarios why they could not run."""

    runs: dict[Cell, list[Run]]
    warm_ups: dict[Cell, list[Run]]
    missing: dict[str, str]


def _cell(scenario: Scenario, workers: int, connections: int) -> Cell:
    return Cell(
        scenario.name,
        workers if scenario.per_workers else None,
        connections if scenario.per_connections else None,
    )
