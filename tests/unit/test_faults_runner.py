"""The runner of the matrix: whatever happens a fault is undone, and what could not run is never called passed."""

import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.failure import ScenarioError
from bench.faults.checker import Came, Checker
from bench.faults.faults import BrokenError, Fault, MissedError, Together
from bench.faults.history import Entry
from bench.faults.record import Matrix, Mutation, RowResult, Verdict
from bench.faults.rows import BY_NUMBER, ROWS
from bench.faults.runner import MODES, Plan, Runner, inject, silence
from bench.faults.soak import first_requests
from bench.faults.times import FULL, SCALED
from gateway.settings import load


class Recorded(Fault):
    def __init__(self, log: list[str], name: str = "", error: Exception | None = None) -> None:
        self._log = log
        self._name = name
        self._error = error

    def inject(self) -> None:
        self._log.append(f"inject{self._name}")
        if self._error is not None:
            raise self._error

    def undo(self) -> None:
        self._log.append(f"undo{self._name}")


@pytest.mark.parametrize("error", [MissedError(), BrokenError("broken"), ScenarioError("gone"), OSError("none")])
def test_inject_that_fails_is_undone_all_the_same(error: Exception) -> None:
    log: list[str] = []
    with pytest.raises(type(error)):
        inject(Recorded(log, error=error), lambda: log.append("waited"))
    assert log == ["inject", "undo"]


def test_inject_waits_between_breaking_and_mending() -> None:
    log: list[str] = []
    before = time.monotonic()
    assert inject(Recorded(log), lambda: log.append("waited")) >= before
    assert log == ["inject", "waited", "undo"]


def test_faults_together_are_undone_backwards() -> None:
    log: list[str] = []
    inject(Together(Recorded(log, "1"), Recorded(log, "2")), lambda: None)
    assert log == ["inject1", "inject2", "undo2", "undo1"]


@pytest.mark.parametrize(("silent_s", "found"), [(1.001, 1), (1.0, 0), (None, 0)])
def test_row_in_which_orders_go_on_must_not_be_silent_for_longer_than_it_may(
    silent_s: float | None, found: int
) -> None:
    assert BY_NUMBER[8].within_s == 1.0
    assert len(silence(BY_NUMBER[8], RowResult(8, "", "", "passed", silent_s=silent_s))) == found


def test_rows_are_numbered_once_and_in_order() -> None:
    numbers = [row.number for row in ROWS]
    assert numbers == sorted(set(numbers))
    assert set(range(1, 41)) - set(numbers) == {34, 35}
    assert all(row.mode in MODES for row in ROWS)
    assert all(not isinstance(row.hold, str) or row.hold in SCALED._fields for row in ROWS)


def test_row_whose_tool_is_absent_is_not_run_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    said: list[str] = []
    (result,) = Runner(Plan(1, SCALED, rows=(13,)), tmp_path, said.append).run()
    assert (result.status, result.injections) == ("not_run", 0)
    assert "apt-get install strace" in (result.reason or "")
    assert "not_run" in said[0]


@pytest.mark.parametrize("times", [SCALED, FULL])
def test_times_are_settings_that_a_process_starts_with(times: object) -> None:
    settings = load(environ=times.environment())  # type: ignore[attr-defined]  # of either
    assert settings.owner.timeout_ms == times.owner_timeout * 1000  # type: ignore[attr-defined]  # as above
    assert settings.nats.duplicate_window_s == times.duplicate_window  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize(
    "broken", [Verdict(lost=1), Verdict(oversold=1), Verdict(stranded=1), Verdict(doubled=1), Verdict(hung=1)]
)
def test_verdict_with_anything_in_it_is_not_clean(broken: Verdict) -> None:
    total = Verdict()
    total.add(broken)
    assert [total.clean, Verdict().clean, Verdict(found=["something"]).clean] == [False, True, False]


def test_matrix_with_a_failed_row_has_failed() -> None:
    passed, absent = RowResult(1, "", "", "passed"), RowResult(2, "", "", "not_run")
    assert not Matrix(1, {}, {}, [passed, absent]).failed
    assert Matrix(1, {}, {}, [passed, RowResult(3, "", "", "failed")]).failed


def test_checker_event_that_comes_again_has_to_be_the_same() -> None:
    checker = Checker(None)  # type: ignore[arg-type]  # Nothing is asked of the site here.
    assert checker._keep([Came("a.1", b"{}"), Came("a.1", b"{}"), Came("a.2", b"{}")], 4.0).clean
    assert checker._keep([Came("a.1", b"{ }")], 4.0).doubled == 1


@pytest.mark.parametrize(("again_s", "doubled"), [(0.0, 0), (0.1, 1), (3.5, 1), (4.1, 0)])
def test_checker_event_is_stored_once_while_the_stream_knows_its_id(again_s: float, doubled: int) -> None:
    checker = Checker(None)  # type: ignore[arg-type]  # Nothing is asked of the site here.
    came = [Came("a.1", b"{}", 100.0), Came("a.1", b"{}", 100.0 + again_s)]
    assert checker._keep(came, 4.0).doubled == doubled


def test_matrix_with_a_guard_that_nobody_missed_has_failed() -> None:
    missed = Mutation("limit", "row 36: oversold 3")
    assert not Matrix(1, {}, {}, [], [missed]).failed
    assert Matrix(1, {}, {}, [], [missed, Mutation("key claim", None)]).failed


def test_soak_counts_first_requests_that_were_right_in_time() -> None:
    entries = [
        Entry(0.0, "invoke", "a", 1),
        Entry(0.5, "ok", "a", 1, status=201),
        Entry(0.0, "invoke", "late", 1),
        Entry(1.5, "ok", "late", 1, status=201),
        Entry(0.0, "invoke", "away", 1),
        Entry(0.1, "refused", "away", 1, status=503, code="ledger_away"),
        Entry(0.2, "invoke", "away", 2),
        Entry(0.3, "ok", "away", 2, status=201),
        Entry(0.0, "invoke", "sold", 1),
        Entry(0.1, "refused", "sold", 1, status=409, code="sold_out"),
    ]
    assert first_requests(entries) == (4, 2)


def test_checker_what_is_put_aside_is_found_once_unless_the_row_may_leave_it(tmp_path: Path) -> None:
    checker = Checker(SimpleNamespace(journals=tmp_path))  # type: ignore[arg-type]  # as much of a site as it asks
    for name in ("a.journal", "a.quarantine", "b.journal.1.damaged"):
        (tmp_path / name).touch()
    assert checker._put_aside((".damaged",)) == ["put aside: a.quarantine"]
    assert checker._put_aside(()) == []
    (tmp_path / "c.unreadable").touch()
    assert checker._put_aside(()) == ["put aside: c.unreadable"]
