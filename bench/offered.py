"""One load of the open-loop generator on the system under test, with its books and the CPU time of every process.

It promises that orders count only when they are acknowledged, in the ledger and in the stream, as those of wrk do.
"""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from bench import openloop, usage, workload
from bench.books import Books
from bench.closed_loop import rests
from bench.openloop import Target, Told
from bench.record import Run, Verified
from bench.system import System

Load = Callable[[Target], Awaitable[Told]]


class Offered(NamedTuple):
    """What a load was told, what the stores hold of it, and how much CPU time each role took until its last event."""

    told: Told
    verified: Verified
    cpu_s: dict[str, float]

    @property
    def rate(self) -> float:
        """Orders that were acknowledged while the load ran, a second."""
        return (self.told.in_time - self.verified.lost) / self.told.seconds


async def place(system: System, load: Load) -> Offered:
    """Let `load` place canonical orders of a customer of its own."""
    customer = workload.new_customer()
    target = Target.of(system.url, system.token, workload.body(customer_id=customer))
    books = await Books.open(system.postgres_url, system.nats_url)
    try:
        before, own_before = usage.read(system.pids), time.process_time()
        told = await load(target)
        # What this process does meanwhile counts too: in `lag` it takes the stream's events.
        own_s = time.process_time() - own_before + told.cpu_s
        await books.drain(customer, told.stopped_at, partial(rests, system))
        after = usage.read(system.pids)
        verified = await books.verify(customer, told.ids, told.unanswered)
    finally:
        await books.close()
    return Offered(told, verified, {"generator": own_s} | {role: after[role] - before[role] for role in before})


def run_of(offered: Offered, value: float, figures: dict[str, float], faults: list[str]) -> Run:
    """The run of a load. Its waits count from the orders' instants."""
    told = offered.told
    waits = {"late_share": told.late_share, "offered_per_s": told.offered / told.seconds}
    return Run(
        value=value,
        seconds=told.seconds,
        answers=dict(sorted(told.outcomes.items())),
        p50_ms=openloop.percentile(told.waits, 0.50) * 1000,
        p99_ms=openloop.percentile(told.waits, 0.99) * 1000,
        cpu_us_per_order=usage.spent(dict.fromkeys(offered.cpu_s, 0.0), offered.cpu_s, len(told.ids)),
        verified=offered.verified,
        figures=waits | figures,
        faults=faults,
        void=told.void,
    )
