"""Drives wrk: one closed-loop load with a script of bench/wrk, told apart by the script's variables.

It promises that the clock of a run is wrk's own, and that wrk has stopped sending before anything is counted; it never
leaves a wrk running.
"""

import asyncio
import os
import re
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench import usage
from bench.failure import ScenarioError

SCRIPTS = Path(__file__).parent / "wrk"
ORDER = SCRIPTS / "order.lua"
MISSING = (
    "wrk is not installed: `apt-get install wrk` (Debian, Ubuntu), `dnf install wrk` (Fedora) or `brew install wrk`"
)
STOP_GRACE_S = 15.0
GRACE_S = 60.0  # for what comes after the load: collecting the answers of every thread
STATUS = re.compile(rb"^HTTP (\d+): (\d+)$", re.MULTILINE)
SUMMARY = re.compile(rb"^seconds ([\d.]+) p50_ms ([\d.]+) p99_ms ([\d.]+) unanswered (\d+)$", re.MULTILINE)
GENERATOR = "generator"


class Load(NamedTuple):
    """What wrk has seen. `ids` are those of the orders that were answered with 201; `stopped_at` is of the monotonic
    clock; `cpu_s` is wrk's own; `unanswered` are errors of connections and time-outs.
    """

    answers: dict[str, int]
    ids: list[str]
    seconds: float
    stopped_at: float
    p50_ms: float
    p99_ms: float
    cpu_s: float
    unanswered: int


def program() -> str:
    """The path of wrk. Raises ScenarioError that says how to get it."""
    found = shutil.which("wrk")
    if found is None:
        raise ScenarioError(MISSING)
    return found


async def load(
    url: str,
    connections: int,
    seconds: int,
    variables: Mapping[str, str],
    ids_file: Path,
    stopped: Callable[[float], Awaitable[None]],
    script: Path = ORDER,
) -> Load:
    """One load. `stopped` is called when it has stopped, with that moment, and wrk waits meanwhile without a load."""
    threads = min(connections, max(1, (os.cpu_count() or 1) // 2))
    command = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script), url]
    process = await asyncio.create_subprocess_exec(
        program(),
        *command,
        env=os.environ | dict(variables) | {"IDS": str(ids_file)},
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        async with asyncio.timeout(seconds + STOP_GRACE_S):
            stopped_at = await _stop_of(process)
        cpu_s = usage.read({GENERATOR: process.pid})[GENERATOR]
        await stopped(stopped_at)
        async with asyncio.timeout(GRACE_S):
            said, _ = await process.communicate(b"\n")
    except TimeoutError as error:
        raise ScenarioError("wrk did not end in time") from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    ids = ids_file.read_text().split()  # noqa: ASYNC240 - the load is over
    return read_load(said, ids, stopped_at, cpu_s)


async def _stop_of(process: Process) -> float:
    """When the load has stopped. Raises ScenarioError when wrk ends before."""
    assert process.stderr
    said = b""
    async for line in process.stderr:
        said += line
        if line.startswith(b"stopped "):
            return float(line.split()[1])
    raise ScenarioError(f"wrk has ended early: {said.decode(errors='replace').strip()}")


def read_load(said: bytes, ids: list[str], stopped_at: float, cpu_s: float) -> Load:
    """What the script has printed. Raises ScenarioError when it is something else."""
    summary = SUMMARY.search(said)
    if summary is None:
        raise ScenarioError(f"wrk says something unexpected: {said.decode(errors='replace').strip()}")
    seconds, p50_ms, p99_ms = map(float, summary.groups()[:3])
    answers = {status.decode(): int(count) for status, count in STATUS.findall(said)}
    return Load(answers, ids, seconds, stopped_at, p50_ms, p99_ms, cpu_s, int(summary[4]))
