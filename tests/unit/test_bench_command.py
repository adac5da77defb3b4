"""`floodgate bench`: what it prints of a record, and how it exits."""

import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from bench import verdict
from bench.plan import Measured, Plan
from bench.record import Cell, Environment, Record, Run, Verified
from bench.scenarios import SCENARIOS
from gateway.cli import bench as command
from gateway.cli import main

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "sync_interval": "always"}
MACHINE: dict[str, str | int | float] = {"processor": "One", "cores": 2, "load_before": 0.1}
WHERE = Environment(date="2026-01-01", machine=MACHINE, versions={}, core="compiled", durability=DURABLE)
BOOKS = Verified(acknowledged=1234, rows=1234, events=1234, orphans_max=256)


def record(books: Verified = BOOKS, where: Environment = WHERE, missing: dict[str, str] | None = None) -> Record:
    runs = [
        Run(
            value=value, seconds=1.0, answers={"201": int(value)}, verified=books, round=at, figures={"backlog_s": 0.25}
        )
        for at, value in enumerate((1234.0, 1567.0), 1)
    ]
    plan = Plan([SCENARIOS["accept"]], 2, 1, (1,), (256,))
    return verdict.record(plan, Measured({Cell("accept", 1, 256): runs}, {}, missing or {}), where)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """What is asked for; nothing is measured. Signals stay as they are."""
    asked: list[Plan] = []

    def run_bench(plan: Plan, *_: Any) -> Record:
        asked.append(plan)
        return record()

    monkeypatch.setattr(command, "run_bench", run_bench)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return asked


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


def measured(monkeypatch: pytest.MonkeyPatch, found: Record, *arguments: str) -> Result:
    monkeypatch.setattr(command, "run_bench", lambda *_: found)
    return bench("accept", *arguments)


def test_bench_without_a_command_runs_the_scenarios_that_are_named(plans: list[Plan]) -> None:
    assert bench("accept", "echo", "--workers", "2,1,2", "--connections", "8").exit_code == 0
    (plan,) = plans
    assert [scenario.name for scenario in plan.scenarios] == ["echo", "accept"]
    assert (plan.workers, plan.connections, plan.rounds, plan.seconds) == ((2, 1), (8,), 3, 5)


def test_bench_without_names_runs_the_ceilings_beside_what_is_held_against_them(plans: list[Plan]) -> None:
    assert bench().exit_code == 0
    names = {scenario.name for scenario in plans[0].scenarios}
    assert {other for one in plans[0].scenarios for against in one.against for other in against.scenarios} <= names
    assert (plans[0].workers, plans[0].connections) == ((1, 2), (256, 64))


@pytest.mark.parametrize("given", [("--workers", "0"), ("--connections", "1,x"), ("--seconds", "0"), ("nothing",)])
def test_bench_with_a_wrong_argument_is_refused(plans: list[Plan], given: tuple[str, ...]) -> None:
    assert bench(*given).exit_code == 2
    assert plans == []


@pytest.mark.usefixtures("plans")
def test_bench_prints_every_run_and_the_headline() -> None:
    said = bench("accept").stdout
    assert "1,234" in said
    assert "1,567" in said
    assert "durable orders/s at 1 worker and 256 connections" in said


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (record(replace(BOOKS, lost=1)), "accept@1, round 1: 1 acknowledged orders are not in the ledger"),
        (record(replace(BOOKS, doubled=1)), "accept@1, round 2: 1 orders are doubled"),
        (record(where=replace(WHERE, durability=DURABLE | {"fsync": "off"})), "durability was off: fsync was off"),
        (record(where=replace(WHERE, core="reference")), "FLOODGATE_CORE=reference"),
    ],
)
@pytest.mark.usefixtures("plans")
def test_bench_with_a_fault_has_no_headline_and_fails_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, found: Record, reason: str
) -> None:
    result = measured(monkeypatch, found)
    assert result.exit_code == 1
    assert f"Fault: {reason}" in result.stdout.replace("the gateway ran with ", "")
    assert "No headline" in result.stdout
    assert "durable orders/s" not in result.stdout


@pytest.mark.usefixtures("plans")
def test_bench_whose_scenario_could_not_run_fails_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    result = measured(monkeypatch, record(missing={"naive": "no network"}))
    assert result.exit_code == 1
    assert "Not measured: naive: no network" in result.stdout


@pytest.mark.usefixtures("plans")
def test_bench_writes_the_record_with_every_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file, faulty = tmp_path / "result.json", record(replace(BOOKS, lost=1))
    assert measured(monkeypatch, faulty, "--json", str(file)).exit_code == 1
    assert msgspec.json.decode(file.read_bytes(), type=Record) == faulty


@pytest.mark.usefixtures("plans")
def test_bench_prints_the_record_alone_when_it_is_to_print_json() -> None:
    assert msgspec.json.decode(bench("accept", "--json", "-").stdout, type=Record) == record()
