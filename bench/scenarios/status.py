"""`status`: buyers who look at the orders they have just placed; and clients who ask for orders that do not exist,
which must come to the ledger no more than once a second each.
"""

import secrets
from http import HTTPStatus
from pathlib import Path

import uvloop

from bench import openloop, usage, workload, wrk
from bench.closed_loop import IDS, run_of
from bench.offered import place
from bench.record import Cell, Run
from bench.scenario import Against, Bench, Goal, Scenario, ScenarioError
from bench.system import System
from core_ext import ids

SHOW = wrk.SCRIPTS / "show.lua"
ASKED = "floodgate_order_reads_asked_total"
FOUND, NOT_FOUND = str(int(HTTPStatus.OK)), str(int(HTTPStatus.NOT_FOUND))
ORDERS_MAX = 10_000  # that are looked at
PLACING_SECONDS, PLACING_CONNECTIONS = 2, 64
UNKNOWN = 100  # ids that nobody has
UNKNOWN_SECONDS = 1


def prepare(bench: Bench) -> None:
    wrk.program()
    bench.system().ensure_goods([workload.goods(workload.SKU)])


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    system = bench.system(cell.workers)
    recent, unknown = _files(bench.scratch, uvloop.run(_place(system)))
    system.settle()
    load, cpu_s = uvloop.run(_show(bench, system, cell, seconds, recent))
    asked, unknown_load = _show_unknown(bench, system, cell, unknown)
    # Each worker asks by itself, and a load of one second may touch two.
    asked_max = UNKNOWN * system.workers * (unknown_load.seconds + 1)
    faults = [f"{asked:.0f} look-ups of {UNKNOWN} unknown ids"] if asked > asked_max else []
    figures = {
        "unknown_per_s": unknown_load.answers.get(NOT_FOUND, 0) / unknown_load.seconds,
        "unknown_asked_per_s": asked / UNKNOWN / system.workers / unknown_load.seconds,
    }
    return run_of(load, load.answers.get(FOUND, 0), load.seconds, cpu_s, figures, faults)


async def _place(system: System) -> list[str]:
    """Orders of a moment ago."""
    placed = await place(system, lambda to: openloop.saturate(to, PLACING_SECONDS, PLACING_CONNECTIONS))
    if not placed.told.ids:
        raise ScenarioError(f"no order was accepted: {dict(placed.told.outcomes)}")
    return placed.told.ids[-ORDERS_MAX:]


def _files(folder: Path, recent: list[str]) -> tuple[Path, Path]:
    """The ids to look at, and as many of orders that nobody has placed."""
    ms = ids.time_of(bytes.fromhex(recent[-1].replace("-", "")))
    nobodys = [ids.format_id(ids.new_id(ms)) for _ in range(UNKNOWN)]
    files = folder / f"recent-{secrets.token_hex(4)}", folder / f"unknown-{secrets.token_hex(4)}"
    for file, lines in zip(files, (recent, nobodys), strict=True):
        file.write_text("\n".join(lines) + "\n")
    return files


async def _show(
    bench: Bench, system: System, cell: Cell, seconds: int, shown: Path
) -> tuple[wrk.Load, dict[str, float]]:
    assert cell.connections
    before, after = usage.read(system.pids), dict[str, float]()

    async def stopped(_: float) -> None:
        after.update(usage.read(system.pids))

    variables = {"TOKEN": system.token, "SHOWN": str(shown)}
    load = await wrk.load(system.url, cell.connections, seconds, variables, bench.scratch / IDS, stopped, SHOW)
    return load, {role: after[role] - before[role] for role in before}


def _show_unknown(bench: Bench, system: System, cell: Cell, shown: Path) -> tuple[float, wrk.Load]:
    """How many look-ups the ledger got of what it does not have."""
    system.settle()  # Workers publish what they count a moment later.
    before = system.metrics()[ASKED]
    load, _ = uvloop.run(_show(bench, system, cell, UNKNOWN_SECONDS, shown))
    system.settle()
    return system.metrics()[ASKED] - before, load


SCENARIO = Scenario(
    "status",
    "answers/s",
    "GET of one's own recent orders, as they stand",
    measure,
    prepare,
    per_workers=True,
    per_connections=True,
    against=(Against("echo", ("echo",)),),
    goals=(Goal("status/echo@1", at_least=0.50),),
)
