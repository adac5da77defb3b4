"""Rows at the same time: every row is run once, each job goes on with the system that it has, and one that ends early
is an error and never a row that has passed.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.failure import ScenarioError
from bench.faults import jobs
from bench.faults.jobs import run_rows, take_next
from bench.faults.rows import BY_NUMBER, ROWS
from bench.faults.runner import Plan
from bench.faults.times import SCALED

# Answers each row as a job does, without a system; row 3 never comes to its end.
JOB = """
import json, sys
assignment = json.loads(sys.stdin.buffer.readline())
for line in iter(sys.stdin.buffer.readline, b""):
    number = int(line)
    if number == 3:
        sys.exit(7)
    row = {"row": number, "name": "", "how": "", "status": "passed", "injections": assignment["injections"]}
    print(json.dumps(row), flush=True)
"""


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "COMMAND", (sys.executable, "-c", JOB))


def numbers(rows: Sequence[int], count: int, folder: Path, said: list[str]) -> list[int]:
    plan = Plan(1, SCALED, rows=tuple(rows), injections=4)
    results = run_rows(plan, count, folder, said.append)
    assert all(result.injections == 4 for result in results)
    return [result.row for result in results]


@pytest.mark.parametrize("count", [1, 2, 8])
def test_run_rows_runs_each_row_once_and_leaves_nothing(tmp_path: Path, count: int) -> None:
    said: list[str] = []
    assert numbers((40, 1, 5, 33), count, tmp_path, said) == [1, 5, 33, 40]
    assert len(said) == 4
    assert list(tmp_path.iterdir()) == []


def test_run_rows_of_a_job_that_ends_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="ended with 7"):
        numbers((1, 3), 2, tmp_path, [])


def test_take_next_goes_on_with_the_mode_that_there_is() -> None:
    waiting = [BY_NUMBER[1], BY_NUMBER[4], BY_NUMBER[2]]
    assert take_next(waiting, BY_NUMBER[4].mode) is BY_NUMBER[4]
    assert take_next(waiting, BY_NUMBER[4].mode).mode == BY_NUMBER[1].mode
    assert len(waiting) == 1


def test_take_next_without_a_system_takes_the_mode_with_the_fewest_rows() -> None:
    waiting = list(ROWS)
    counts = Counter(row.mode for row in ROWS)
    taken = take_next(waiting, "")
    assert counts[taken.mode] == min(counts.values()) < max(counts.values())
    assert waiting == [row for row in ROWS if row is not taken]
