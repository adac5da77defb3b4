"""`floodgate bench scale` from end to end: one part on a system of its own, of which nothing is left."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from bench.scale import memory
from bench.scale.record import ScaleRecord
from deploy.local.stack import COMMAND
from tests.tools import needs_wrk

TIMEOUT_S = 110.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the data lie meanwhile; root's PostgreSQL has to pass."""
    tmp_path.chmod(0o711)
    made = tmp_path / "here"
    made.mkdir(mode=0o711)
    return made


def scale(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "bench", "scale", "--folder", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@needs_wrk
def test_scale_tells_what_a_sku_a_connection_and_a_queued_order_take(folder: Path, tmp_path: Path) -> None:
    files = [tmp_path / "scale.json", tmp_path / "scale.html"]
    done = scale(folder, "--part", "memory", "--runs", "1", "--json", str(files[0]), "--html", str(files[1]))
    assert done.returncode == 0, done.stderr
    record = msgspec.json.decode(files[0].read_bytes(), type=ScaleRecord)
    part = record.scale["memory"]
    assert (part.faults, record.missed) == ([], {})
    assert set(part.figures) == {memory.SKU, memory.CONNECTION, memory.QUEUED}
    assert all(0 < value < 1 << 20 for value in part.figures.values())
    assert record.environment.durability["fsync"] == "on"
    assert part.findings[0] in done.stdout
    assert part.findings[0] in files[1].read_text()
    assert list(folder.iterdir()) == []


@needs_wrk
def test_scale_names_the_size_that_fits_when_the_disk_is_too_small(folder: Path) -> None:
    done = scale(folder, "--part", "orders", "--orders", str(10**15))
    assert done.returncode == 1
    assert "Not measured: orders: 1,000,000,000,000,000 orders do not fit on the disk" in done.stdout
    assert list(folder.iterdir()) == []
