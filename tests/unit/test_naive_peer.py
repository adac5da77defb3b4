"""The environment of the naive peer: made once in the cache, made anew when it is another one, and never half."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.baselines.naive import peer
from deploy.local.failure import StackError


class FakePrograms:
    """What `venv` and `pip` are asked; pip fails while `complaint` says so."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.complaint = ""

    def run(self, command: list[str], **_: Any) -> None:
        self.commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)
        elif self.complaint:
            raise subprocess.CalledProcessError(1, command, stderr=self.complaint)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> FakePrograms:
    made = FakePrograms()
    monkeypatch.setattr(subprocess, "run", made.run)
    return made


def test_environment_is_installed_at_first_use_and_not_again(tmp_path: Path, programs: FakePrograms) -> None:
    python = peer.environment(tmp_path)
    assert peer.environment(tmp_path) == python
    venv, pip = programs.commands
    assert venv[0] == sys.executable
    assert pip[0] == str(python)
    assert pip[-2:] == ["-r", str(peer.REQUIREMENTS)]


def test_environment_lies_in_the_user_s_cache_and_never_in_the_project(
    tmp_path: Path, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert peer.environment().is_relative_to(tmp_path / "floodgate")
    assert len(programs.commands) == 2


def test_environment_of_other_requirements_is_another_one(
    tmp_path: Path, programs: FakePrograms, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = peer.environment(tmp_path)
    other = tmp_path / "requirements.txt"
    other.write_text("fastapi==1\n")
    monkeypatch.setattr(peer, "REQUIREMENTS", other)
    assert peer.environment(tmp_path) != first
    assert len(programs.commands) == 4


def test_environment_that_could_not_be_installed_says_why_and_is_tried_again(
    tmp_path: Path, programs: FakePrograms
) -> None:
    programs.complaint = "noise\nERROR: Could not find a version that satisfies the requirement fastapi\n"
    with pytest.raises(StackError, match="Could not find a version that satisfies the requirement fastapi"):
        peer.environment(tmp_path)
    programs.complaint = ""
    assert peer.environment(tmp_path).parent.parent.is_dir()
    assert len(programs.commands) == 4


def test_requirements_are_bounded() -> None:
    lines = [line for line in peer.REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    assert [line for line in lines if "~=" not in line] == []
