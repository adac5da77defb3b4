"""`lag`: how long after its order was decided an event is with a consumer of the stream, at half of the load that the
gateway can take.

The event's own time is when its order was decided, before the commit; so what is measured is an upper bound of the
time from the commit. Both clocks are of this machine. The consumer gets what the stream has stored, as a team's does.
"""

import datetime as dt
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvloop
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bench import openloop, workload
from bench.books import CREATED
from bench.offered import Offered, place, run_of
from bench.openloop import Target, Told, percentile
from bench.record import Cell, Run
from bench.scenario import Bench, Goal, Scenario
from bench.system import System
from persistence.nats.client import connect
from persistence.nats.stream import NAME

SHARE = 0.5  # of the peak
PEAK_SECONDS = 2
CONNECTIONS = 256
ID = re.compile(rb'"subject":"([0-9a-f-]{36})"')
TIME = re.compile(rb'"time":"([^"]+)"')


class Arrival(NamedTuple):
    """An event with its consumer; `at` of the wall clock, `moment` of the monotonic one."""

    at: float
    moment: float
    payload: bytes

    @property
    def order_id(self) -> str:
        found = ID.search(self.payload)
        assert found, self.payload
        return found[1].decode()

    @property
    def lag_s(self) -> float:
        """Since its order was decided."""
        found = TIME.search(self.payload)
        assert found, self.payload
        return self.at - dt.datetime.fromisoformat(found[1].decode()).timestamp()


def prepare(bench: Bench) -> None:
    bench.system().ensure_goods([workload.goods(workload.SKU)])


def measure(bench: Bench, _cell: Cell, seconds: int) -> Run:
    system = bench.system(1)
    system.settle()
    peak, offered, arrivals = uvloop.run(_measure(system, seconds))
    lags = [arrival.lag_s for arrival in arrivals]
    answered = dict(zip(offered.told.ids, offered.told.answered_at, strict=True))
    behind = [one.moment - answered[one.order_id] for one in arrivals if one.order_id in answered]
    missing = len(answered) - len(behind)
    figures = {
        "peak_per_s": peak,
        "lag_p50_ms": percentile(lags, 0.50) * 1000,
        "lag_max_ms": max(lags, default=0.0) * 1000,
        "behind_the_answer_p99_ms": percentile(behind, 0.99) * 1000,
    }
    faults = [f"{missing} events did not come to the consumer"] if missing else []
    return run_of(offered, percentile(lags, 0.99) * 1000, figures, faults)


async def _measure(system: System, seconds: int) -> tuple[float, Offered, list[Arrival]]:
    async def at_peak(target: Target) -> Told:
        return await openloop.saturate(target, PEAK_SECONDS, CONNECTIONS)

    async def at_half(target: Target) -> Told:
        return await openloop.offer(target, SHARE * peak, seconds, CONNECTIONS)

    peak = (await place(system, at_peak)).rate
    async with consuming(system.nats_url) as arrivals:
        offered = await place(system, at_half)  # It ends when every event is in the stream.
    return peak, offered, arrivals


@asynccontextmanager
async def consuming(nats_url: str) -> AsyncIterator[list[Arrival]]:
    """What comes to a consumer of new orders meanwhile."""
    arrivals: list[Arrival] = []

    async def arrived(message: Msg) -> None:
        arrivals.append(Arrival(time.time(), time.monotonic(), message.data))

    connection = await connect(nats_url, "fg-bench-lag")
    try:
        stream = connection.jetstream()
        config = ConsumerConfig(deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.NONE)
        subscribed = await stream.subscribe(CREATED, stream=NAME, config=config, cb=arrived, manual_ack=True)
        yield arrivals
        await connection.flush()
        await subscribed.unsubscribe()
    finally:
        await connection.close()


SCENARIO = Scenario(
    "lag",
    "ms",
    "From an order's decision to its event with a consumer, p99, at half of the peak",
    measure,
    prepare,
    goals=(Goal("lag", at_most=20.0),),
    warms_up=False,
)
