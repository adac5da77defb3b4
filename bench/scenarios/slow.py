"""`slow`: what 200 clients that never finish their POST do to the waits of good orders. Good orders come at a steady
rate, alone and beside them in turns, so that a machine that grows slower favours nobody.

Their connections are held open all the time: whoever is told 408 comes back at once. The value is the ratio of the two
p99, of all turns together; waits count from the instants at which the orders were due.
"""

import uvloop
from msgspec.structs import replace

from bench import openloop, workload
from bench.offered import Offered, place, run_of
from bench.openloop import Target, Told
from bench.record import Cell, Run
from bench.scenario import Bench, Goal, Scenario
from bench.slow_posts import SlowPosts
from bench.system import System

SLOW = 200
LIVE_PER_S = 1000
LIVE_CONNECTIONS = 64
TURNS = 2
TURN_SECONDS_MIN = 7.0  # longer than `http.body_timeout_ms`, so that all of them are told 408 and come back
TIMED_OUT = "408"


def prepare(bench: Bench) -> None:
    bench.system().ensure_goods([workload.goods(workload.SKU)])


def measure(bench: Bench, _cell: Cell, seconds: int) -> Run:
    system = bench.system(1)
    system.settle()
    slow = SlowPosts(system.url, system.token, SLOW)
    alone, beside = uvloop.run(_measure(system, slow, max(seconds / TURNS, TURN_SECONDS_MIN)))
    alone_ms, beside_ms = (_p99_ms(turns) for turns in (alone, beside))
    figures = {
        "alone_p99_ms": alone_ms,
        "beside_p99_ms": beside_ms,
        "timed_out": float(slow.told[TIMED_OUT]),
        "refused": float(sum(one.told.offered - one.told.outcomes[openloop.ACCEPTED] for one in beside)),
    }
    others = {status: count for status, count in slow.told.items() if status != TIMED_OUT}
    faults = [f"slow POSTs were answered with {others}"] if others else []
    *earlier, last = alone + beside
    faults += [fault for one in earlier for fault in one.verified.faults()]
    run = run_of(last, beside_ms / alone_ms if alone_ms else 0.0, figures, faults)
    return replace(run, void=next((one.told.void for one in (*alone, *beside) if one.told.void), ""))


async def _measure(system: System, slow: SlowPosts, seconds: float) -> tuple[list[Offered], list[Offered]]:
    async def live(target: Target) -> Told:
        return await openloop.offer(target, LIVE_PER_S, seconds, LIVE_CONNECTIONS)

    alone: list[Offered] = []
    beside: list[Offered] = []
    for _ in range(TURNS):
        alone.append(await place(system, live))
        async with slow.pressing():
            beside.append(await place(system, live))
    return alone, beside


def _p99_ms(turns: list[Offered]) -> float:
    return openloop.percentile([wait for one in turns for wait in one.told.waits], 0.99) * 1000


SCENARIO = Scenario(
    "slow",
    "x",
    f"How many times longer {LIVE_PER_S} good orders a second wait (p99) beside {SLOW} POSTs that never end",
    measure,
    prepare,
    goals=(Goal("slow", at_most=2.0),),
    warms_up=False,
)
