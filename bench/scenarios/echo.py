"""`echo`: the ceiling. The bare server decodes the same orders and answers 201 with as many bytes as the gateway, which
rests beside it. The better of its two interfaces counts, ASGI or RSGI.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop
from msgspec.structs import replace

from bench import usage, workload, wrk
from bench.closed_loop import CREATED, IDS, run_of
from bench.record import Cell, Run
from bench.scenario import Bench, Scenario
from bench.system import System
from deploy.local.ports import LISTENING, pick_free
from deploy.local.process import Process

INTERFACES = ("asgi", "rsgi")
TCP = Path("/proc/net/tcp")


class Echo(NamedTuple):
    """A running ceiling."""

    url: str
    pid: int


def prepare(_: Bench) -> None:
    wrk.program()


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    """A run over each interface; the better one, with both rates."""
    workers, system = cell.workers or 1, bench.system(cell.workers)
    answer_bytes = bench.kept("answer_bytes", lambda: nullcontext(system.answer_bytes()))
    system.settle()
    runs = {}
    for interface in INTERFACES:
        module = f"bench.baselines.echo_{interface}"
        echo = bench.kept(f"{module}@{workers}", partial(_serving, system, module, workers, answer_bytes))
        runs[interface] = uvloop.run(_measure(bench, cell, echo, seconds))
    best = max(runs.values(), key=lambda run: run.value)
    return replace(best, figures=best.figures | {name: run.value for name, run in runs.items()})


@contextmanager
def _serving(system: System, module: str, workers: int, answer_bytes: int) -> Iterator[Echo]:
    port = pick_free()
    log_path = system.folder.log(module.rpartition(".")[2])
    command = [sys.executable, "-P", "-m", module, str(port), str(workers), str(answer_bytes)]
    process = Process(module, command, log_path)
    process.start()
    try:
        system.until(lambda: _listeners(port) == workers, f"{module} to listen, see {log_path}")
        assert process.pid is not None
        yield Echo(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.stop()


async def _measure(bench: Bench, cell: Cell, echo: Echo, seconds: int) -> Run:
    assert cell.connections
    roles = {"worker": echo.pid}
    before, after = usage.read(roles), dict[str, float]()

    async def stopped(_: float) -> None:
        after.update(usage.read(roles))

    variables = {"TOKEN": bench.system().token, "CUSTOMER": workload.new_customer()}
    load = await wrk.load(echo.url, cell.connections, seconds, variables, bench.scratch / IDS, stopped)
    cpu_s = {role: after[role] - before[role] for role in before}
    return run_of(load, load.answers.get(CREATED, 0), load.seconds, cpu_s, {}, [])


def _listeners(port: int) -> int:
    """How many processes listen on this port: each worker of the ceiling has a socket of its own."""
    rows = (line.split() for line in TCP.read_text().splitlines()[1:])
    return sum(row[3] == LISTENING and row[1].endswith(f":{port:04X}") for row in rows)


SCENARIO = Scenario(
    "echo",
    "answers/s",
    "The bare server: decodes the same orders, knows nothing of them, and answers with as many bytes",
    measure,
    prepare,
    per_workers=True,
    per_connections=True,
)
