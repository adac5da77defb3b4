"""Rows of the matrix at the same time, each job with systems of its own: most of a row is waiting.

Which job runs a row decides nothing about it: its choices are its seed's. Jobs end with whoever started them.
"""

import selectors
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from bench.failure import ScenarioError
from bench.faults.job import Assignment
from bench.faults.record import RowResult
from bench.faults.rows import Row
from bench.faults.runner import Plan, Say, described
from bench.system import uninterrupted

COMMAND = (sys.executable, "-P", "-m", "bench.faults.job")
STOP_S = 90.0  # A job that is told to end takes its system down first.


class Job:
    """A process that runs one row after the other."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        folder.mkdir(mode=0o711)  # Root's PostgreSQL has to pass.
        self.mode = ""  # of the row that it was given last
        self._is_busy = False
        self._folder = folder
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # The terminal's Ctrl-C is ours alone.
        )
        assert self._process.stdout is not None
        self.answers = self._process.stdout
        assignment = Assignment(plan.seed, plan.times, plan.injections, plan.rate, str(folder))
        self._send(msgspec.json.encode(assignment))

    def give(self, row: Row) -> None:
        self.mode, self._is_busy = row.mode, True
        self._send(b"%d" % row.number)

    def answer(self) -> RowResult:
        """Of the row that it was given last. Raises ScenarioError."""
        line = self.answers.readline()
        if not line:
            raise ScenarioError(f"a job of the matrix has ended with {self._process.wait()}")
        self._is_busy = False
        return msgspec.json.decode(line, type=RowResult)

    def close(self) -> None:
        """End it, whatever it does just then."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._is_busy:
            self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.answers.close()
        if not any(self._folder.iterdir()):  # Logs of failed rows stay.
            self._folder.rmdir()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
        except OSError as error:
            raise ScenarioError(f"a job of the matrix has ended with {self._process.wait()}") from error


def run_rows(plan: Plan, count: int, folder: Path, say: Say) -> list[RowResult]:
    """Every row of the plan, over so many jobs. Raises ScenarioError."""
    waiting = list(plan.rows)
    results: list[RowResult] = []
    with ExitStack() as closing, selectors.DefaultSelector() as events:
        for number in range(1, min(count, len(waiting)) + 1):
            job = Job(plan, folder / f"job-{number}")
            closing.callback(_close, job)
            events.register(job.answers, selectors.EVENT_READ, job)
            job.give(take_next(waiting, job.mode))
        while len(results) < len(plan.rows):
            for key, _ in events.select():
                job = key.data
                results.append(job.answer())
                say(described(results[-1]))
                if waiting:
                    job.give(take_next(waiting, job.mode))
    return sorted(results, key=lambda result: result.row)


def take_next(waiting: list[Row], mode: str) -> Row:
    """A row of this mode, for which a system is running; else one of the mode that has the fewest, so that the jobs
    come together where there is most to do. It is no longer in `waiting`.
    """
    own = [row for row in waiting if row.mode == mode]
    row = own[0] if own else _of_the_fewest(waiting)
    waiting.remove(row)
    return row


def _of_the_fewest(waiting: Sequence[Row]) -> Row:
    counts = Counter(row.mode for row in waiting)
    return min(waiting, key=lambda row: counts[row.mode])


def _close(job: Job) -> None:
    with uninterrupted():
        job.close()
