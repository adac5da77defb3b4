"""`core` and `core_full` count microseconds of one order in this process, by repetitions of many."""

from typing import Any

import pytest

from bench.record import Cell
from bench.scenarios import SCENARIOS, core

ANY: Any = None


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repetitions of a hundred orders."""
    repetition_us = core.repetition_us
    monkeypatch.setattr(core, "repetition_us", lambda place: repetition_us(place, 100))


def test_repetition_places_as_many_orders_as_it_divides_by() -> None:
    placed = 0

    def place() -> None:
        nonlocal placed
        placed += 1

    assert core.repetition_us(place, 1000) >= 0
    assert placed == 1000
    assert core.ORDERS >= 50_000


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("name", ["core", "core_full"])
def test_run_is_the_median_of_several_repetitions(name: str) -> None:
    run = SCENARIOS[name].measure(ANY, Cell(name), 0)
    assert run.figures["repetitions"] >= core.REPETITIONS_MIN
    assert 0 < run.figures["fastest_us"] <= run.value <= run.figures["slowest_us"]
    assert run.cpu_us_per_order == {"generator": run.value}
    assert run.faults == []


@pytest.mark.usefixtures("_quick")
def test_scenarios_measure_different_passes() -> None:
    """The one without the request, the event and the answer is the smaller one by far."""
    small, whole = (SCENARIOS[name].measure(ANY, Cell(name), 0) for name in ("core", "core_full"))
    assert small.figures["fastest_us"] < whole.figures["fastest_us"]


def test_scenarios_have_the_targets_of_the_design() -> None:
    goals = [goal for name in ("core", "core_full") for goal in SCENARIOS[name].goals]
    assert [(goal.of, goal.at_most) for goal in goals] == [("core", 1.0), ("core_full", 5.0)]
