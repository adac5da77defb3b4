"""`core` and `core_full`: what one order costs in the process, without servers and without I/O, in microseconds of CPU.

A run is the median of repetitions of ORDERS orders each. The first is warmed up like every scenario; the collector of
garbage is on, as in a gateway.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial

from bench import workload
from bench.core_pass import CorePass
from bench.record import Cell, Run
from bench.scenario import Bench, Goal, Scenario

ORDERS = 50_000  # of a repetition
REPETITIONS_MIN = 5
LIBCRYPTO = "libcrypto"


def measure(_bench: Bench, cell: Cell, seconds: int) -> Run:
    """Repetitions for so many seconds, and no fewer than REPETITIONS_MIN."""
    core_pass = CorePass(workload.body())
    place = core_pass.core if cell.scenario == CORE.name else core_pass.core_full
    found: list[float] = []
    started = time.monotonic()
    while len(found) < REPETITIONS_MIN or time.monotonic() - started < seconds:
        found.append(repetition_us(place))
    return Run(
        value=statistics.median(found),
        seconds=time.monotonic() - started,
        cpu_us_per_order={"generator": statistics.median(found)},
        figures={
            "fastest_us": min(found),
            "slowest_us": max(found),
            "repetitions": float(len(found)),
            "sealed_by_libcrypto": float(core_pass.sealing == LIBCRYPTO),
        },
    )


def repetition_us(place: Callable[[], object], orders: int = ORDERS) -> float:
    """Microseconds of CPU of one order, of so many placed in a row."""
    started_ns = time.process_time_ns()
    for _ in range(orders):
        place()
    return (time.process_time_ns() - started_ns) / orders / 1000


_scenario = partial(Scenario, unit="us", measure=measure)
CORE = _scenario(
    name="core",
    about="a decoded one-line order: priced, its units reserved, its rows encoded",
    goals=(Goal("core", at_most=1.0),),
)
FULL = _scenario(
    name="core_full",
    about="from the bytes of a request to everything that is stored, sent and answered, encryption included, no I/O",
    goals=(Goal("core_full", at_most=5.0),),
)
