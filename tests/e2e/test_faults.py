"""`floodgate faults` on real processes: a few rows, each a few times, find nothing and leave nothing; and what is
broken behind the system's back is found.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.faults.faults import Asked, Fault
from bench.faults.makers import Scene
from bench.faults.record import RowResult
from bench.faults.rows import BY_NUMBER
from bench.faults.runner import Plan, Runner
from bench.faults.times import SCALED
from deploy.local.stack import COMMAND

ROWS = (1, 11, 26, 31)
INJECTIONS = 3
TIMEOUT_S = 240.0
SEED = 20260
# What no fault may do, done by hand: an order that was acknowledged goes, and with it a unit of stock.
ROBBERY = """
update stock_shard set free = free - 1 where free > 0 and sku like 'FAULT-MANY-%';
delete from orders where order_id = (select order_id from orders where external_id like 'r01-%' limit 1) returning 1
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for temporary files that root's PostgreSQL can pass."""
    made = Path(tempfile.mkdtemp(prefix="faults-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


def run(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TMPDIR": str(folder)} | variables
    return subprocess.run(
        [*COMMAND, "faults", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.timeout(300)
def test_faults_rows_pass_and_leave_nothing(folder: Path) -> None:
    rows = [argument for row in ROWS for argument in ("--row", str(row))]
    done = run(*rows, "--injections", str(INJECTIONS), "--seed", str(SEED), "--json", "-", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout)
    assert [(row["row"], row["status"], row["injections"]) for row in record["rows"]] == [
        (row, "passed", INJECTIONS) for row in ROWS
    ]
    assert all(row["acknowledged"] > 0 for row in record["rows"])
    assert record["seed"] == SEED
    assert list(folder.iterdir()) == []


def robbed(scene: Scene) -> Fault:
    return Asked(scene.site, ROBBERY)


@pytest.mark.timeout(300)
def test_faults_what_is_taken_behind_the_systems_back_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BY_NUMBER, 1, BY_NUMBER[1]._replace(make=robbed))
    runner = Runner(Plan(SEED, SCALED, rows=(1,), injections=1), folder, lambda _: None)
    try:
        (result,) = runner.run()
    finally:
        runner.drop_site()
    assert result.status == "failed"
    assert result.lost > 0
    assert result.stranded > 0
    assert_logs_are_kept(result)


def assert_logs_are_kept(result: RowResult) -> None:
    assert result.logs is not None
    assert {"serve.log", "steward.log", "r01-buyers.jsonl"} <= {path.name for path in Path(result.logs).iterdir()}


def test_faults_row_that_cannot_run_is_said_and_no_failure(folder: Path) -> None:
    done = run("--row", "13", folder=folder, PATH=str(folder))
    assert done.returncode == 0, done.stderr
    assert "not_run" in done.stdout
    assert "strace is not installed" in done.stdout
