"""What `floodgate bench scale` makes of its runs: intervals, findings, faults, and what fits the disk."""

import math
import shutil
from pathlib import Path
from typing import NamedTuple, Self

import msgspec
import pytest
from click.testing import CliRunner

from bench.failure import ScenarioError
from bench.record import Run
from bench.scale import command, growth, loading, memory, shards, skus
from bench.scale.command import Options
from bench.scale.paired import PAIRS_MAX, STUDENT, interval
from bench.scale.record import Place, ScaleRecord, Series, faults_of
from bench.scale.systems import Systems, in_rounds
from gateway.cli import bench_scale
from tests import bench_records


class Usage(NamedTuple):
    """As shutil.disk_usage gives it."""

    total: int
    used: int
    free: int


def run(value: float, worker_us: float = 40.0, at: int = 1, lost: int = 0) -> Run:
    cpu = {"worker": worker_us, "postgres": 10.0, "generator": 99.0}
    return Run(value=value, seconds=1.0, cpu_us_per_order=cpu, verified=bench_records.books(100, lost), round=at)


def place(at: float, *values: float) -> Place:
    return Place(at, [run(value, at=number) for number, value in enumerate(values, 1)])


@pytest.mark.parametrize("apart", [1.01, 1.5])
def test_interval_of_two_pairs_reaches_as_far_as_the_table_says(apart: float) -> None:
    found = interval([apart, 1 / apart])
    assert found.mean == pytest.approx(1.0)
    assert [found.low, found.high] == pytest.approx([apart**-12.706, apart**12.706])


def test_interval_of_ten_pairs_is_the_one_of_the_textbook() -> None:
    logarithms = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]  # mean 0.55, deviation 0.302765
    found = interval([math.exp(one) for one in logarithms])
    reach = 2.262 * 0.302765 / math.sqrt(10)
    assert found == pytest.approx((math.exp(0.55), math.exp(0.55 - reach), math.exp(0.55 + reach)), rel=1e-4)


def test_interval_of_equal_pairs_is_a_point() -> None:
    assert interval([1.25] * 5) == pytest.approx((1.25, 1.25, 1.25))


def test_quantiles_fall_towards_those_of_the_normal_distribution() -> None:
    assert list(STUDENT) == sorted(STUDENT, reverse=True)
    assert STUDENT[-1] > 1.96
    assert interval([1.0, 2.0] + [1.5] * (PAIRS_MAX - 2)).mean == pytest.approx(1.49, abs=0.02)


def test_rounds_go_forwards_and_backwards_in_turn() -> None:
    assert list(in_rounds("abc", 3)) == [
        (at, place) for at, order in ((1, "abc"), (2, "cba"), (3, "abc")) for place in order
    ]


def test_faults_of_runs_are_named_with_their_place() -> None:
    series = [Series("1 worker", [Place(16, [run(1.0), run(1.0, lost=2)])])]
    assert faults_of(series) == [
        "1 worker, 16: 2 acknowledged orders are not in the ledger",
    ]


def test_skus_are_compared_round_by_round() -> None:
    many = Place(100_000, [run(50.0, worker_us=50.0), run(80.0, worker_us=60.0), run(100.0, worker_us=80.0)])
    part = skus.part_of([place(1, 100.0, 100.0, 100.0), many], [run(20.0), run(40.0), run(60.0)])
    assert part.figures["time_ratio"] == pytest.approx(1.25)  # the median of 2, 1.25 and 1
    assert part.figures["worker_cpu_ratio"] == pytest.approx(1.5)
    assert "takes 1.25 times the time of one SKU (1.00 to 2.00)" in part.findings[0]
    assert "50% of the orders/s" in part.findings[1]


def test_skus_with_a_lost_order_have_no_finding() -> None:
    broken = Place(100_000, [run(50.0, lost=1)])
    part = skus.part_of([place(1, 100.0), broken], [run(20.0)])
    assert part.findings == []
    assert len(part.faults) == 1


def test_shards_are_enough_when_no_more_of_them_are_better() -> None:
    places = [place(1, 80.0), place(2, 98.0), place(4, 99.0), place(8, 100.0)]
    assert shards.enough(places).at == 2


def test_shards_whose_runs_overlap_with_the_best_ones_are_as_good() -> None:
    assert shards.enough([place(1, 60.0, 70.0, 80.0), place(2, 70.0, 80.0, 91.0), place(4, 90.0, 100.0, 110.0)]).at == 2


def test_shards_have_a_finding_for_each_number_of_workers() -> None:
    part = shards.part_of(
        [Series("1 worker", [place(1, 99.0), place(2, 100.0)]), Series("4 workers", [place(1, 50.0), place(2, 100.0)])]
    )
    assert part.figures == {"shards, 1 worker": 1, "shards, 4 workers": 2}
    assert [finding.partition(":")[0] for finding in part.findings] == [
        "1 worker, nothing is gained beyond 1 shard",
        "4 workers, nothing is gained beyond 2 shards",
    ]


@pytest.mark.parametrize(
    ("full", "verdict"), [(95.0, "passes, and so does the whole interval (at most 1.10)"), (80.0, "does not pass")]
)
def test_growth_passes_when_the_lower_end_is_low_enough(full: float, verdict: str) -> None:
    pairs = [(run(100.0), run(full)), (run(100.0), run(full * 1.001)), (run(100.0), run(full * 0.999))]
    part = growth.part_of(1_000_000, pairs, {})
    assert part.figures["time_ratio"] == pytest.approx(100.0 / full, rel=1e-3)
    assert part.findings[0].endswith(f": {verdict}.")
    assert [place.at for place in part.series[1].places] == [1, 2, 3]


def test_growth_that_was_measured_too_coarsely_passes_with_a_remark() -> None:
    part = growth.part_of(1_000_000, [(run(100.0), run(100.0)), (run(100.0), run(50.0))], {})
    assert "passes by the lower end of the interval" in part.findings[0]


def test_growth_counts_the_cpu_of_everything_but_the_generator() -> None:
    pairs = [(run(100.0, worker_us=40.0), run(100.0, worker_us=65.0))] * 2
    assert growth.part_of(1000, pairs, {}).figures["cpu_ratio"] == pytest.approx(75.0 / 50.0)


def free(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, free_bytes))


def test_room_for_too_many_orders_is_refused_with_the_number_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, loading.RESERVE_BYTES + 1_000_000 * loading.ORDER_BYTES)
    loading.ensure_room(Path("/data"), 1_000_000)
    with pytest.raises(ScenarioError, match=r"1,000,001 orders do not fit on the disk of /data.* 1,000,000 orders fit"):
        loading.ensure_room(Path("/data"), 1_000_001)


def test_room_on_a_full_disk_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0)
    with pytest.raises(ScenarioError, match=" 0 orders fit"):
        loading.ensure_room(Path("/data"), 1)


async def test_lines_of_a_load_are_orders_with_keys_of_their_own() -> None:
    pieces = [piece async for piece in loading._lines(500, 2_500)]
    lines = [msgspec.json.decode(line) for piece in pieces for line in piece.splitlines()]
    assert [line["idempotency_key"] for line in lines] == [f"load-{number}" for number in range(500, 3_000)]
    assert len({line["order"]["customer_id"] for line in lines}) == len(pieces) == 3
    assert all(line["order"]["ship_to"] for line in lines)


def test_memory_of_a_queued_order_counts_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    class Benches:
        def fresh(self) -> Self:
            return self

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def system(self, _: int) -> None:
            pass

    monkeypatch.setattr(
        memory,
        "_measure",
        lambda _, at: {name: run(1024.0 * at) for name in (memory.SKU, memory.CONNECTION, memory.QUEUED)},
    )
    part = memory.part(Benches(), 3)  # type: ignore[arg-type]
    assert part.figures[memory.QUEUED] == 2048.0
    assert part.findings[2] == "queued order: 2.0 KiB."
    assert [len(one.places[0].runs) for one in part.series] == [3, 3, 3]


def test_part_that_cannot_run_is_missed_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench_records.scale().scale["skus"]

    def refuse(*_: object) -> None:
        raise ScenarioError("wrk is not installed")

    monkeypatch.setattr(shards, "part", refuse)
    monkeypatch.setattr(skus, "part", lambda *_: found)
    record = command.run(Options(parts=("shards", "skus")), lambda _: None)
    assert record.scale == {"skus": found}
    assert record.missed == {"shards": "wrk is not installed"}


def test_part_on_a_system_that_is_not_durable_has_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    where = msgspec.structs.replace(bench_records.environment(), durability={"fsync": "off"})
    monkeypatch.setattr(skus, "part", lambda *_: bench_records.scale().scale["skus"])
    monkeypatch.setattr(Systems, "where", lambda _: where)
    part = command.run(Options(parts=("skus",)), lambda _: None).scale["skus"]
    assert part.findings == []
    assert part.faults == ["durability was off: fsync was off, and has to be on"]


def scaled(monkeypatch: pytest.MonkeyPatch, record: ScaleRecord, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(bench_scale, "run", lambda *_: record)
    done = CliRunner().invoke(bench_scale.scale, list(arguments))
    return done.exit_code, done.stdout


def test_command_prints_every_place_and_the_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = scaled(monkeypatch, msgspec.structs.replace(bench_records.scale(), missed={}))
    assert status == 0
    assert "It is dearer by a third." in said
    assert "100,000" in said


def test_command_exits_1_when_a_part_has_faults_or_could_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scaled(monkeypatch, bench_records.scale())[0] == 1
    faulty = msgspec.structs.replace(bench_records.scale(faults=["1 orders are doubled"]), missed={})
    status, said = scaled(monkeypatch, faulty)
    assert status == 1
    assert "No finding: 1 orders are doubled." in said


def test_command_writes_the_record_and_the_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    files = tmp_path / "s.json", tmp_path / "s.html"
    scaled(monkeypatch, bench_records.scale(), "--json", str(files[0]), "--html", str(files[1]))
    assert msgspec.json.decode(files[0].read_bytes(), type=ScaleRecord) == bench_records.scale()
    assert "It is dearer by a third." in files[1].read_text()


def test_command_prints_nothing_but_json_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    _, said = scaled(monkeypatch, bench_records.scale(), "--json", "-")
    assert msgspec.json.decode(said, type=ScaleRecord) == bench_records.scale()


def test_growth_of_memory_is_shared_among_all_that_grew() -> None:
    grown = memory._growth(1000, 5000, 4, 1)
    assert grown.value == 1000.0
    assert (grown.figures["before_bytes"], grown.figures["after_bytes"]) == (1000.0, 5000.0)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_run_that_measured_nothing_is_a_fault_and_no_figure(value: float) -> None:
    part = skus.part_of([place(1, 100.0), place(100_000, value)], [run(20.0)])
    assert part.findings == []
    assert part.figures == {}
    assert "100,000: nothing was measured" in part.faults[0]
    assert growth.part_of(1000, [(run(100.0), run(value))] * 2, {}).faults
