"""The mutation run as the matrix sees it: a program of the tests, which may be absent, or end without a word."""

import sys
from pathlib import Path

import pytest

from bench.failure import ScenarioError
from bench.faults import guarding
from bench.faults.record import Mutation
from gateway.cli import faults

WRITES = """
import sys
print('limit: row 36: oversold 3')
found = '[{"guard": "limit", "caught_by": "row 36: oversold 3"}, {"guard": "CRC", "caught_by": null}]'
open(sys.argv[2], 'w').write(found)
sys.exit(1)
"""


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(guarding, "COMMAND", (sys.executable, "-c", text))


def test_mutations_are_as_the_program_has_written_them(monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, WRITES)
    said: list[str] = []
    assert guarding.run_mutations(said.append) == [Mutation("limit", "row 36: oversold 3"), Mutation("CRC", None)]
    assert said == ["limit: row 36: oversold 3"]


def test_mutations_program_that_leaves_no_record_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "import sys; sys.exit(3)")
    with pytest.raises(ScenarioError, match="ended with 3"):
        guarding.run_mutations(lambda _: None)


def test_faults_mutations_that_could_not_be_run_count_as_noticed_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "raise SystemExit(3)")
    (mutation,) = faults._take_guards_away()
    assert mutation.caught_by is None


def test_faults_without_the_tests_says_that_there_are_no_mutations(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guarding, "PROGRAM", tmp_path / "__main__.py")
    assert faults._take_guards_away() == []
    assert "not run" in capsys.readouterr().err


def test_mutations_program_is_in_the_project() -> None:
    assert guarding.is_here()
