"""One of several that run rows of the matrix at the same time: `python -m bench.faults.job` reads an Assignment, then
numbers of rows, a line each, from its standard input, and answers each with its result.

It has systems of its own. It ends when its input does, or when whoever started it has gone; either way nothing of them
is left but the logs of failed rows.
"""

import signal
import sys
from pathlib import Path

import msgspec

from bench.faults.rows import BY_NUMBER
from bench.faults.runner import Plan, Runner
from bench.faults.times import Times
from bench.system import ENDS, uninterrupted
from deploy.local.process import LIBC, PR_SET_PDEATHSIG


class Assignment(msgspec.Struct, frozen=True):
    """What every row of a job has; `folder` is the job's own, and exists."""

    seed: int
    times: Times
    injections: int
    rate: float
    folder: str

    def plan(self) -> Plan:
        return Plan(self.seed, self.times, injections=self.injections, rate=self.rate)


def main() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    for number in ENDS:
        signal.signal(number, signal.default_int_handler)
    assignment = msgspec.json.decode(sys.stdin.buffer.readline(), type=Assignment)
    try:
        _serve(Runner(assignment.plan(), Path(assignment.folder), _say))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _serve(runner: Runner) -> None:
    try:
        for line in iter(sys.stdin.buffer.readline, b""):
            result = runner.run_row(BY_NUMBER[int(line)])
            sys.stdout.buffer.write(msgspec.json.encode(result) + b"\n")
            sys.stdout.buffer.flush()
    finally:
        with uninterrupted():
            runner.drop_site()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
