"""The rounds of a bench: every cell once a round, beside each other, after a warm-up; what cannot run is named."""

from pathlib import Path

import pytest

from bench import runner
from bench.failure import ScenarioError
from bench.plan import Plan
from bench.record import Cell, Run
from bench.scenario import Bench, Scenario


class Scene:
    """A scenario that notes what it is asked to measure."""

    def __init__(self, name: str, notes: list[tuple[str, int]], *, failing: bool = False) -> None:
        self.name = name
        self._notes = notes
        self._failing = failing

    def measure(self, _: Bench, cell: Cell, seconds: int) -> Run:
        if self._failing:
            raise ScenarioError("wrk is not installed")
        self._notes.append((cell.key, seconds))
        return Run(value=float(seconds), seconds=seconds)

    def scenario(self, *, per: bool = True, warms_up: bool = True) -> Scenario:
        return Scenario(
            self.name, "orders/s", "", self.measure, per_workers=per, per_connections=per, warms_up=warms_up
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, lambda _: None)


def test_cells_stand_together_by_workers_and_connections() -> None:
    notes: list[tuple[str, int]] = []
    scenarios = [Scene("echo", notes).scenario(), Scene("copy", notes).scenario(per=False)]
    plan = Plan(scenarios, 1, 5, (1, 2), (256, 64))
    assert [cell.key for _, cell in plan.cells()] == ["echo@1", "copy", "echo@1x64", "echo@2", "echo@2x64"]


def test_rounds_turn_about_and_each_run_has_a_warm_up(bench: Bench) -> None:
    notes: list[tuple[str, int]] = []
    scenarios = [Scene("echo", notes).scenario(), Scene("accept", notes).scenario()]
    measured = runner.measure(Plan(scenarios, 2, 5, (1,), (256,)), bench)
    there, back = [("echo@1", 1), ("echo@1", 5), ("accept@1", 1), ("accept@1", 5)], ["accept@1", "echo@1"]
    assert notes == there + [(key, seconds) for key in back for seconds in (1, 5)]
    assert [run.round for run in measured.runs[Cell("echo", 1, 256)]] == [1, 2]
    assert [run.seconds for run in measured.runs[Cell("echo", 1, 256)]] == [5, 5]
    assert [run.seconds for run in measured.warm_ups[Cell("echo", 1, 256)]] == [1, 1]


def test_scenario_that_needs_no_warm_up_has_none(bench: Bench) -> None:
    notes: list[tuple[str, int]] = []
    measured = runner.measure(Plan([Scene("core", notes).scenario(warms_up=False)], 1, 5, (1,), (256,)), bench)
    assert notes == [("core@1", 5)]
    assert measured.warm_ups == {}


def test_scenario_that_cannot_run_is_named_and_the_others_go_on(bench: Bench) -> None:
    notes: list[tuple[str, int]] = []
    scenarios = [Scene("naive", notes, failing=True).scenario(), Scene("accept", notes).scenario()]
    measured = runner.measure(Plan(scenarios, 2, 5, (1,), (256,)), bench)
    assert measured.missing == {"naive": "wrk is not installed"}
    assert list(measured.runs) == [Cell("accept", 1, 256)]
    assert len(measured.runs[Cell("accept", 1, 256)]) == 2


def test_scenario_that_cannot_be_prepared_is_not_measured(bench: Bench) -> None:
    def prepare(_: Bench) -> None:
        raise ScenarioError("no room")

    notes: list[tuple[str, int]] = []
    scenario = Scene("scale", notes).scenario()._replace(prepare=prepare)
    assert runner.measure(Plan([scenario], 1, 5, (1,), (256,)), bench).missing == {"scale": "no room"}
    assert notes == []
