"""The verdict of a bench: ratios of paired runs, targets, and a headline only where nothing was lost, doubled or made
faster than it may be.
"""

from typing import Any

import pytest
from msgspec.structs import replace

from bench import verdict
from bench.plan import Measured, Plan
from bench.record import Cell, Environment, Record, Run, Verified
from bench.scenario import Against, Bench, Goal, Scenario

DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "sync_interval": "always"}
WHERE = Environment(date="2026-01-01", machine={}, versions={}, core="compiled", durability=DURABLE)
GOOD = Verified(acknowledged=100, rows=100, events=100, orphans_max=256)


def never(_bench: Bench, _cell: Cell, _seconds: int) -> Run:
    raise AssertionError("nothing is measured here")


def scenario(name: str, *against: Against, goals: tuple[Goal, ...] = (), per: bool = True) -> Scenario:
    return Scenario(name, "orders/s", "", never, per_workers=per, per_connections=per, against=against, goals=goals)


ECHO = scenario("echo")
ACCEPT = scenario("accept", Against("echo", ("echo",)), Against("echo", ("echo",), role="worker"))


def runs(*values: float, verified: Verified | None = None, us: float = 10.0) -> list[Run]:
    return [
        Run(value=value, seconds=1.0, round=at, verified=verified, cpu_us_per_order={"worker": us})
        for at, value in enumerate(values, 1)
    ]


def made(
    of: dict[Cell, list[Run]],
    scenarios: tuple[Scenario, ...] = (ECHO, ACCEPT),
    where: Environment = WHERE,
    warm_ups: dict[Cell, list[Run]] | None = None,
) -> Record:
    workers = sorted({cell.workers for cell in of if cell.workers})
    connections = sorted({cell.connections for cell in of if cell.connections}, reverse=True)
    plan = Plan(scenarios, 3, 1, workers or (1,), connections or (256,))
    return verdict.record(plan, Measured(of, warm_ups or {}, {}), where)


def accepted(verified: Verified = GOOD, **fields: Any) -> dict[Cell, list[Run]]:
    return {Cell("accept", 1, 256): [replace(run, **fields) for run in runs(100, 110, 120, verified=verified)]}


def test_headline_of_clean_runs_is_the_median_of_the_best_cell() -> None:
    slower = {Cell("accept", 2, 256): runs(60, 70, 80, verified=GOOD)}
    record = made(accepted() | slower)
    assert record.faults == []
    assert record.headline is not None
    assert record.headline["orders_per_second"] == 110
    assert record.headline["workers"] == 1


@pytest.mark.parametrize(
    ("books", "reason"),
    [
        (replace(GOOD, lost=1), "1 acknowledged orders are not in the ledger"),
        (replace(GOOD, doubled=2), "2 orders are doubled"),
        (replace(GOOD, orphans=257), "257 orders without an answer"),
        (replace(GOOD, events=99), "100 orders in the ledger, and 99 events"),
        (replace(GOOD, events=101), "100 orders in the ledger, and 101 events"),
    ],
)
def test_headline_of_books_that_do_not_balance_is_refused(books: Verified, reason: str) -> None:
    record = made(accepted(books))
    assert record.headline is None
    assert len(record.faults) == 3
    assert record.faults[0].startswith(f"accept@1, round 1: {reason}")


def test_headline_with_as_many_orphans_as_connections_is_given() -> None:
    assert made(accepted(replace(GOOD, orphans=256))).headline is not None


def test_headline_after_a_fault_of_a_run_is_refused() -> None:
    record = made(accepted(faults=["the events fell 1.3 s behind the orders"]))
    assert record.headline is None
    assert record.faults[2] == "accept@1, round 3: the events fell 1.3 s behind the orders"


def test_headline_after_a_loss_in_a_warm_up_is_refused() -> None:
    record = made(accepted(), warm_ups=accepted(replace(GOOD, lost=3)))
    assert record.headline is None
    assert record.faults[0] == "accept@1, warm-up 1: 3 acknowledged orders are not in the ledger"


def test_headline_after_a_loss_in_another_scenario_is_refused() -> None:
    lossy = {Cell("bulk", 1): runs(10, verified=replace(GOOD, lost=1))}
    assert made(accepted() | lossy, (ACCEPT, scenario("bulk"))).headline is None


@pytest.mark.parametrize("setting", list(DURABLE))
def test_headline_without_durability_is_refused(setting: str) -> None:
    record = made(accepted(), where=replace(WHERE, durability=DURABLE | {setting: "off"}))
    assert record.headline is None
    assert record.faults[0].startswith(f"durability was off: {setting} was off")


def test_headline_on_a_memory_disk_is_refused() -> None:
    record = made(accepted(), where=replace(WHERE, durability=DURABLE | {"fsyncs_per_second": "900000"}))
    assert record.headline is None


def test_headline_of_the_readable_twin_is_refused() -> None:
    record = made(accepted(), where=replace(WHERE, core="reference"))
    assert record.headline is None
    assert record.faults == ["the gateway ran with FLOODGATE_CORE=reference"]


def test_headline_without_orders_is_none_and_no_fault() -> None:
    record = made({Cell("echo", 1, 256): runs(10)})
    assert record.headline is None
    assert record.faults == []


def test_runs_with_faults_stay_in_the_record() -> None:
    record = made(accepted(replace(GOOD, lost=1)))
    assert [run.value for run in record.scenarios["accept@1"].runs] == [100, 110, 120]


def test_ratio_is_the_median_of_the_rounds_and_no_quotient_of_medians() -> None:
    record = made({Cell("echo", 1, 256): runs(100, 200, 400), Cell("accept", 1, 256): runs(50, 20, 100)})
    found = record.ratios["accept/echo@1"]
    assert found.rounds == [0.5, 0.1, 0.25]
    assert (found.median, found.min, found.max) == (0.25, 0.1, 0.5)


def test_ratio_of_a_round_that_one_side_lacks_is_left_out() -> None:
    record = made({Cell("echo", 1, 256): runs(100, 200), Cell("accept", 1, 256): runs(50, 20, 100)})
    assert record.ratios["accept/echo@1"].rounds == [0.5, 0.1]


def test_ratio_at_best_takes_the_better_number_of_workers_on_either_side() -> None:
    record = made(
        {
            Cell("echo", 1, 256): runs(100),
            Cell("echo", 2, 256): runs(80),
            Cell("accept", 1, 256): runs(40),
            Cell("accept", 2, 256): runs(50),
        }
    )
    assert record.ratios["accept/echo@1"].median == 0.4
    assert record.ratios["accept/echo@2"].median == 0.625
    assert record.ratios["accept/echo@best"].median == record.ratios["accept/echo"].median == 0.5


def test_ratio_at_other_connections_stands_beside_it() -> None:
    record = made(
        {
            Cell("echo", 1, 256): runs(100),
            Cell("echo", 1, 64): runs(200),
            Cell("accept", 1, 256): runs(50),
            Cell("accept", 1, 64): runs(50),
        }
    )
    assert record.ratios["accept/echo@1"].median == record.ratios["accept/echo"].median == 0.5
    assert record.ratios["accept/echo@1x64"].median == record.ratios["accept/echo@bestx64"].median == 0.25


def test_ratio_to_parts_is_that_of_doing_them_one_after_the_other() -> None:
    parts = scenario("accept", Against("parts", ("echo", "copy", "stream")))
    record = made(
        {
            Cell("echo", 1, 256): runs(60),
            Cell("copy"): runs(30),
            Cell("stream"): runs(20),
            Cell("accept", 1, 256): runs(5),
        },
        (ECHO, scenario("copy", per=False), scenario("stream", per=False), parts),
    )
    assert record.ratios["accept/parts@1"].median == pytest.approx(0.5)  # 1 / (1/60 + 1/30 + 1/20) is 10
    assert record.ratios["accept/parts"].median == pytest.approx(0.5)


def test_ratio_of_cpu_is_by_the_role_and_has_no_best() -> None:
    record = made({Cell("echo", 1, 256): runs(100, us=20), Cell("accept", 1, 256): runs(50, us=30)})
    assert record.ratios["accept/echo:worker_cpu@1"].median == 1.5
    assert "accept/echo:worker_cpu@best" not in record.ratios
    assert "accept/echo:worker_cpu" not in record.ratios


def test_target_is_looked_at_in_ratios_cells_and_figures() -> None:
    goals = (
        Goal("accept/echo@1", at_least=0.5),
        Goal("accept@1", at_least=51),
        Goal("accept@1:late_ms", at_most=20),
        Goal("accept/naive", at_least=5),
    )
    of = {Cell("echo", 1, 256): runs(100), Cell("accept", 1, 256): [replace(runs(50)[0], figures={"late_ms": 19.0})]}
    record = made(of, (ECHO, scenario("accept", Against("echo", ("echo",)), goals=goals)))
    assert [(target.of, target.met) for target in record.targets] == [
        ("accept/echo@1", True),
        ("accept@1", False),
        ("accept@1:late_ms", True),
    ]
    assert list(record.missed) == ["accept/naive"]


def test_result_has_the_medians_of_what_its_runs_have() -> None:
    cell = Cell("accept", 1, 64)
    of = [
        replace(run, cpu_us_per_order={"worker": us, **more}, figures={"drain_s": us})
        for run, us, more in zip(runs(1, 2, 9), (5.0, 7.0, 6.0), ({}, {"redis": 1.0}, {}), strict=True)
    ]
    found = made({cell: of}).scenarios["accept@1x64"]
    assert (found.median, found.min, found.max) == (2, 1, 9)
    assert found.cpu_us_per_order == {"worker": 6.0, "redis": 1.0}
    assert found.figures == {"drain_s": 6.0}


def test_target_of_a_run_that_was_measured_badly_is_missing_and_no_fault() -> None:
    goal = Goal("lag", at_most=20.0)
    late = [
        Run(value=5.0, seconds=2.0, round=1),
        Run(value=6.0, seconds=2.0, round=2, void="the generator fell behind"),
    ]
    record = made({**accepted(), Cell("lag"): late}, (ACCEPT, scenario("lag", goals=(goal,), per=False)))
    assert record.targets == []
    assert record.missed == {"lag": "void in 1 of 2 runs: the generator fell behind"}
    assert record.faults == []
    assert record.headline
