"""`overload`: three times as many orders as the gateway can take, offered at instants that do not depend on it. What it
still sells is held against its peak, which the same generator measures the same way just before: one gateway worker
and all servers on one core, the generator on another.
"""

import uvloop

from bench import openloop, workload
from bench.offered import Offered, place, run_of
from bench.openloop import Target, Told
from bench.pinning import apart
from bench.record import Cell, Run
from bench.scenario import Bench, Goal, Scenario
from bench.system import System

SECONDS = "overload_seconds"  # the option of the command
TIMES = 3.0  # the peak
PEAK_SECONDS = 5
PEAK_CONNECTIONS = 256
CONNECTIONS, CONNECTIONS_MAX = 1024, 4096
WARM_UP_SECONDS = 1


def prepare(bench: Bench) -> None:
    bench.system().ensure_goods([workload.goods(workload.SKU)])


def measure(bench: Bench, _cell: Cell, seconds: int) -> Run:
    seconds = int(bench.options.get(SECONDS, seconds))
    system = bench.system(1)
    system.settle()
    with apart(system.pids.values()):
        peak, offered = uvloop.run(_measure(system, seconds))
    bench.say(f"overload: peak {peak:.0f} orders/s, {TIMES * peak:.0f} offered for {seconds} s")
    accepted_p99_ms = openloop.percentile(offered.told.waits, 0.99) * 1000
    figures = {"peak_per_s": peak, "goodput_share": offered.rate / peak, "accepted_p99_ms": accepted_p99_ms}
    return run_of(offered, offered.rate, figures, [])


async def _measure(system: System, seconds: int) -> tuple[float, Offered]:
    await place(system, lambda target: _peak(target, WARM_UP_SECONDS))
    peak = (await place(system, lambda target: _peak(target, PEAK_SECONDS))).rate
    offered = await place(system, lambda target: _crowd(target, TIMES * peak, seconds))
    return peak, offered


async def _crowd(target: Target, rate: float, seconds: int) -> Told:
    return await openloop.offer(target, rate, seconds, CONNECTIONS, CONNECTIONS_MAX)


async def _peak(target: Target, seconds: int) -> Told:
    return await openloop.saturate(target, seconds, PEAK_CONNECTIONS)


SCENARIO = Scenario(
    "overload",
    "orders/s",
    "Three times the peak, offered in an open loop; the system on one core, the generator on another",
    measure,
    prepare,
    goals=(Goal("overload:goodput_share", at_least=0.90), Goal("overload:accepted_p99_ms", at_most=100.0)),
    warms_up=False,
)
