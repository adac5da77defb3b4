"""A gateway worker under load, with somebody looking on: time by thread, samples by perf, a flame graph by py-spy.

It promises that what slows the worker is told apart from what does not: each of the three is a load of its own, with
the orders/s of that load beside it. Whoever looks on has ended when the load has.
"""

import asyncio
import os
import shutil
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import uvloop

from bench import threads, usage, workload, wrk
from bench.failure import ScenarioError
from bench.system import System
from bench.threads import Place

RAMP_S = 1.0  # from the start of wrk to the first sample
SAMPLES_HZ = 100  # of py-spy, which stops the worker for each
PERF_HZ = 499


class Loaded(NamedTuple):
    """A load of the worker: orders, how long it took, and the seconds of CPU of the worker's threads."""

    orders: int
    seconds: float
    cpu_s: dict[int, float]
    failure: str = ""  # of the program that looked on

    @property
    def rate(self) -> float:
        return self.orders / self.seconds

    @property
    def us(self) -> float:
        """Microseconds of CPU of all threads for one order."""
        return sum(self.cpu_s.values()) / self.orders * 1e6

    def us_per_order(self, thread: int) -> float:
        return self.cpu_s[thread] / self.orders * 1e6


class Worker:
    """The one worker of a system, which is loaded several times."""

    def __init__(self, system: System, scratch: Path, seconds: int, connections: int) -> None:
        (self.pid,) = usage.children_of(system.pids["worker"])
        self._system = system
        self._scratch = scratch
        self._seconds = seconds
        self._connections = connections

    def alone(self, seconds: int | None = None) -> Loaded:
        """A load that nobody looks at."""
        return uvloop.run(self._load(seconds or self._seconds, None))

    def sampled(self) -> tuple[Loaded, Counter[Place]]:
        """A load under perf, and where its samples fell; none when perf may not look."""
        data = self._scratch / "perf.data"
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(PERF_HZ), "-p", str(self.pid)]
        loaded = uvloop.run(self._load(self._seconds, [*command, "-o", str(data), "--", "sleep", self._watched]))
        if loaded.failure:
            return loaded, Counter()
        script = uvloop.run(_ask(["perf", "script", "-i", str(data), "-F", "tid,ip,dso"]))
        return loaded, threads.samples(script.text)

    def drawn(self, picture: Path) -> Loaded:
        """A load under py-spy, which writes its flame graph. Raises ScenarioError when py-spy is not installed."""
        # Without --gil the threads that wait would fill the picture: with native frames py-spy takes them for busy.
        command = [_beside("py-spy"), "record", "--pid", str(self.pid), "--native", "--gil"]
        options = [
            "--function",
            "--threads",
            "--rate",
            str(SAMPLES_HZ),
            "--duration",
            self._watched,
            "--output",
            str(picture),
        ]
        return uvloop.run(self._load(self._seconds, [*command, *options]))

    @property
    def _watched(self) -> str:
        """For how many seconds a load is looked at."""
        return str(max(1, self._seconds - 2 * int(RAMP_S)))

    async def _load(self, seconds: int, looker: list[str] | None) -> Loaded:
        after: dict[int, float] = {}

        async def stopped(_: float) -> None:
            after.update(threads.read(self.pid))

        variables = {"TOKEN": self._system.token, "CUSTOMER": workload.new_customer()}
        before = threads.read(self.pid)
        looking = asyncio.create_task(_look(looker))
        try:
            load = await wrk.load(
                self._system.url, self._connections, seconds, variables, self._scratch / "ids", stopped
            )
            failure = await looking
        finally:
            looking.cancel()
        orders = load.answers.get("201", 0)
        if not orders:
            raise ScenarioError(f"the gateway has taken no order: {load.answers}")
        return Loaded(orders, load.seconds, threads.spent(before, after), failure)


class Said(NamedTuple):
    text: str
    failure: str


async def _look(command: list[str] | None) -> str:
    """Run what looks on once the load is under way; what it complains of if it fails."""
    if command is None:
        return ""
    await asyncio.sleep(RAMP_S)
    return (await _ask(command)).failure


async def _ask(command: list[str]) -> Said:
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        text, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    failure = complaint.decode(errors="replace").strip()[-400:] or "it gives no reason"
    return Said(text.decode(errors="replace"), failure if process.returncode else "")


def _beside(program: str) -> str:
    """A program of our own environment. Raises ScenarioError."""
    found = shutil.which(program, path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    if found is None:
        raise ScenarioError(f"{program} is not installed: pip install 'floodgate[dev]'")
    return found
