"""`floodgate bench` from end to end: a system of its own, scenarios of wrk once each, the books, the record; and
nothing of it is left.
"""

import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from bench.record import Record, Run
from deploy.local import process_table
from deploy.local.stack import COMMAND, OWNED_VARIABLE
from tests.tools import needs_wrk

CONNECTIONS = 32
TIMEOUT_S = 280.0
SLOW = "behind the orders"  # the one fault that is about speed: a busy machine may be slow
ROLES = {"generator", "worker", "postgres", "nats", "redis", "steward", "projector"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the data lie meanwhile; root's PostgreSQL has to pass."""
    tmp_path.chmod(0o711)
    made = tmp_path / "here"
    made.mkdir(mode=0o711)
    return made


def command(folder: Path, *scenarios: str) -> list[str]:
    options = ("--runs", "1", "--seconds", "1", "--connections", str(CONNECTIONS), "--folder", str(folder))
    return [*COMMAND, "bench", *scenarios, *options]


def left(folder: Path) -> list[int]:
    """Processes of a system below this folder."""
    mark = str(folder).encode()
    found = []
    for entry in process_table.entries():
        environment = process_table._environment(entry.pid)
        if any(line.startswith(OWNED_VARIABLE.encode()) and mark in line for line in environment):
            found.append(entry.pid)
    return found


def check_orders(run: Run) -> None:
    """Every order that was answered is in the ledger with its event, under one key."""
    assert run.verified is not None
    assert run.verified.faults() == []
    assert run.verified.acknowledged == run.answers["201"] > 0
    assert run.verified.rows == run.verified.events == run.verified.acknowledged + run.verified.orphans
    assert run.value == pytest.approx(run.verified.acknowledged / run.seconds)
    assert set(run.cpu_us_per_order) == ROLES
    assert run.cpu_us_per_order["worker"] > 0


def check_refusals(run: Run) -> None:
    assert run.verified is not None
    assert (run.verified.acknowledged, run.verified.rows, run.verified.events) == (0, 0, 0)
    assert list(run.answers) == ["409"]
    assert run.value == pytest.approx(run.answers["409"] / run.seconds)


@needs_wrk
@pytest.mark.timeout(300)
def test_bench_measures_verifies_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    file, page = tmp_path / "result.json", tmp_path / "result.html"
    files = ("--workers", "1,2", "--json", str(file), "--html", str(page))
    done = subprocess.run(
        [*command(folder, "echo", "accept", "soldout"), *files],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert file.exists(), done.stderr
    record = msgspec.json.decode(file.read_bytes(), type=Record)
    assert [fault for fault in record.faults if SLOW not in fault] == []
    assert done.returncode == bool(record.faults), done.stderr
    at = f"x{CONNECTIONS}"
    cells = [f"{name}@{workers}{at}" for workers in (1, 2) for name in ("echo", "accept", "soldout")]
    assert list(record.scenarios) == cells
    for workers in (1, 2):
        check_orders(record.scenarios[f"accept@{workers}{at}"].runs[0])
        check_refusals(record.scenarios[f"soldout@{workers}{at}"].runs[0])
        assert list(record.scenarios[f"echo@{workers}{at}"].runs[0].answers) == ["201"]
    assert {f"accept/echo@{place}{at}" for place in ("1", "2", "best")} < set(record.ratios)
    assert record.environment.durability["sync_interval"] == "always"
    assert record.environment.durability["fsync"] == "on"
    assert record.environment.core == "compiled"
    assert (record.headline is None) == bool(record.faults)
    assert [key for key in cells if key not in done.stdout] == []
    assert "accept" in page.read_text()
    assert list(folder.iterdir()) == []
    assert left(folder) == []


@needs_wrk
@pytest.mark.timeout(200)
def test_bench_that_is_interrupted_leaves_nothing(folder: Path) -> None:
    with subprocess.Popen(command(folder, "accept"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr
        assert process.stderr.readline() == b"Starting a system of its own.\n"
        # While the system starts, or any time after: it does not matter which.
        os.kill(process.pid, signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 1
    assert list(folder.iterdir()) == []
    assert left(folder) == []


def test_bench_without_wrk_says_how_to_get_it(folder: Path) -> None:
    environment = os.environ | {"PATH": "/nonexistent"}
    done = subprocess.run(
        command(folder, "accept"), env=environment, capture_output=True, text=True, timeout=60.0, check=False
    )
    assert done.returncode == 1
    assert "apt-get install wrk" in done.stdout
    assert list(folder.iterdir()) == []
