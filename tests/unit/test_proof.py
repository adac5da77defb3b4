"""What documents say of faults, simulation and fuzzing is what their records hold, failures first of all."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from bench.faults.record import Matrix, Mutation, RowResult, Soak, Verdict
from bench.report import proof
from bench.report.__main__ import main
from bench.report.proof import Fuzzed, Meeting, Piece, Records, Simulated

HERE = {"processor": "A processor", "cores": "2", "memory_gib": "24", "kernel": "6.1", "date": "2026-11-24"}
KILLED = RowResult(8, "PostgreSQL killed, and away", "SIGKILL", "passed", 20, 1200, 300, recover_s=0.4, silent_s=0.412)
ABSENT = RowResult(13, "slow disk", "strace", "not_run", reason="strace is not installed")
LOSING = RowResult(10, "reset", "a proxy cuts", "failed", 7, 500, lost=2, recover_s=1.5, found=["k-1 is lost"])
PIECE = Piece("body", "hypothesis", "passed", "", 400_000, 1000, 399_000, 0, 0, 80.0, 81.5, 60.0)


def written(path: Path, record: Any) -> Path:
    path.write_bytes(msgspec.json.encode(record))
    return path


def matrix(*rows: RowResult, **changes: Any) -> Matrix:
    return Matrix(7, HERE, {"outage": 5.0}, list(rows), **changes)


@pytest.fixture
def files(tmp_path: Path) -> Records:
    """Where nothing has been measured yet."""
    return Records(*(tmp_path / f"{name}.json" for name in Records._fields))


def test_summary_of_nothing_says_that_nothing_was_measured(files: Records) -> None:
    lines = proof.summary(files).splitlines()[2:]
    assert len(lines) == len(Records._fields)
    assert all("not measured" in line for line in lines)


def test_summary_adds_up_the_rows_that_ran_and_names_those_that_failed(files: Records) -> None:
    written(files.matrix, matrix(KILLED, ABSENT, LOSING))
    text = proof.summary(files)
    assert "2 faults, each at least 7 times: 27 in all, 1,700 orders acknowledged" in text
    assert "lost 2, oversold 0, stranded 0, doubled 0, hung 0, row 10 failed" in text
    assert "never without an acknowledged order for longer than 0.41 s" in text


@pytest.mark.parametrize(
    ("caught_by", "said"), [("row 20: lost 3", "each time something failed"), (None, "not noticed: CRC")]
)
def test_summary_says_whether_every_guard_was_missed(files: Records, caught_by: str | None, said: str) -> None:
    written(files.matrix, matrix(KILLED, mutations=[Mutation("limit", "row 36"), Mutation("CRC", caught_by)]))
    assert said in proof.summary(files)


def test_summary_of_a_soak_says_how_many_were_answered_right(files: Records) -> None:
    soak = Soak(3600, 59, 216_000, 0.99951, Verdict(hung=1))
    written(files.soak, matrix(soak=soak))
    assert "99.951% of the requests" in proof.summary(files)
    assert "hung 1" in proof.summary(files)


def test_summary_of_worlds_names_the_rarest_meeting(files: Records) -> None:
    coverage = [Meeting("reset", "take", 9000), Meeting("late", "drain", 1203)]
    written(files.simulated, Simulated(HERE, 1_000_000, 450_000_000, 3_000_000, 1, 7200, 1, [{"seed": 1}], coverage))
    assert "1,000,000 worlds in 2.0 h" in proof.summary(files)
    assert "1 failed; the rarest meeting of a fault with a step came 1,203 times" in proof.summary(files)
    assert "| `drain` | late 1,203 |" in proof.worlds_table(files.simulated)


def test_summary_of_inputs_adds_up_what_ran_and_says_what_failed(files: Records) -> None:
    failed = msgspec.structs.replace(PIECE, target="lua", status="failed", errors_500=1, inputs=100)
    absent = msgspec.structs.replace(PIECE, engine="atheris", status="not_run", reason="no atheris", inputs=0)
    written(files.fuzzed, Fuzzed(HERE, 3, [PIECE, failed, absent]))
    assert "400,100 inputs that nobody should send: body, lua" in proof.summary(files)
    assert "1 answered 500, 0 crashes, memory grew by 1.5 MiB at most; failed: lua" in proof.summary(files)
    assert "| body | atheris | not run |" in proof.inputs_table(files.fuzzed)


def test_matrix_table_shows_failures_and_what_did_not_run(files: Records) -> None:
    table = proof.matrix_table(written(files.matrix, matrix(KILLED, ABSENT, LOSING)))
    assert "2 / 0 / 0 / 0 / 0 **failed**: k-1 is lost" in table
    assert "| not run |" in table
    assert "strace is not installed" in table


def test_guards_table_has_a_line_for_each_guard_with_all_who_missed_it(files: Records) -> None:
    mutations = [Mutation("CRC", "row 20"), Mutation("CRC", "simulation, seed 3"), Mutation("limit", None)]
    table = proof.guards_table(written(files.matrix, matrix(mutations=mutations)))
    assert "| CRC | row 20; simulation, seed 3 |" in table
    assert "| limit | **nobody** |" in table


def test_recovery_chart_has_a_bar_for_each_row_that_ran(files: Records) -> None:
    svg = proof.recovery_svg(written(files.matrix, matrix(KILLED, ABSENT, LOSING)))
    root = ET.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [text for text in texts if text and text.endswith(" s")] == ["0.40 s", "1.50 s"]
    assert 'class="missed"' in svg


def test_report_of_a_matrix_is_a_table_and_a_chart_and_no_page(files: Records) -> None:
    record = str(written(files.matrix, matrix(KILLED)))
    assert "PostgreSQL killed, and away" in CliRunner().invoke(main, [record]).output
    folder = files.matrix.parent / "charts"
    assert CliRunner().invoke(main, [record, "--svg", str(folder)]).exit_code == 0
    assert [path.name for path in folder.iterdir()] == ["faults.svg"]
    assert CliRunner().invoke(main, [record, "--html", str(folder / "page.html")]).exit_code == 2
