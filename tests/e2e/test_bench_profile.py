"""`python -m bench.profile` finds out where the microseconds go, of a worker of its own, and leaves nothing running."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import profile
from deploy.local import process_table
from deploy.local.stack import OWNED_VARIABLE
from tests.tools import needs_wrk

TIMEOUT_S = 110.0
ROOT = Path(__file__).parents[2]


@needs_wrk
def test_profile_shows_threads_and_draws_a_flame_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")  # PostgreSQL's account does not reach pytest's folder.
    command = [sys.executable, "-m", "bench.profile", "--out", str(tmp_path), "--seconds", "3", "--no-core"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    text = (tmp_path / "profile.txt").read_text()
    assert re.search(r"By thread, nobody looking on: [\d,]+ orders/s, [\d.]+ us of CPU per order", text), done.stderr
    assert re.search(r"^ +[\d.]+ +[\d.]+%  event loop$", text, re.MULTILINE)
    assert "By library" in text
    # What it started carries a variable with the path of its folder, which lies below this prefix.
    assert [folder for folder in owned().values() if "floodgate-profile-" in folder] == []
    if done.returncode:
        assert profile.PTRACE in done.stderr
        pytest.skip("this user may not look into a process")
    picture = (tmp_path / "worker.svg").read_text()
    assert "<svg" in picture
    assert "gateway/" in picture
    # It has to be complete by itself.
    assert re.findall(r'<(?:script|image|link|use)[^>]*(?:src|href)="(?!#)', picture) == []


def owned() -> dict[int, str]:
    """Processes of local systems, with the folder of each."""
    found = {}
    for entry in process_table.entries():
        try:
            environment = Path(f"/proc/{entry.pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        folders = [one for one in environment if one.startswith(f"{OWNED_VARIABLE}=".encode())]
        if folders:
            found[entry.pid] = folders[0].decode()
    return found
