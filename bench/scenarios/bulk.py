"""`bulk`: orders by `POST /v1/orders/bulk` over a few streams, and what that does to live orders.

A run has three parts: live orders at a steady, modest rate alone; the same beside orders in bulk; and orders in bulk
alone, which are what is counted. The waits of live orders count from the instants at which they were due.
"""

import asyncio
import time
from functools import partial
from typing import NamedTuple

import uvloop

from bench import bulk_load, openloop, usage, workload
from bench.books import Books, Drained
from bench.bulk_load import BulkLoad
from bench.closed_loop import BACKLOG_S_MAX, rests
from bench.openloop import Target, Told
from bench.record import Cell, Run, Verified
from bench.scenario import Against, Bench, Goal, Scenario
from bench.system import System

STREAMS = 4
LIVE_PER_S = 500
LIVE_CONNECTIONS = 64


class Loaded(NamedTuple):
    """What orders in bulk alone have led to."""

    load: BulkLoad
    drained: Drained
    verified: Verified
    cpu_s: dict[str, float]


def prepare(bench: Bench) -> None:
    bench.system().ensure_goods([workload.goods(workload.SKU)])


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    system = bench.system(cell.workers)
    system.settle()
    alone = uvloop.run(_live(system, seconds))
    beside = uvloop.run(_live_beside_bulk(system, seconds))
    system.settle()
    loaded = uvloop.run(_bulk(system, seconds))
    return _run(loaded, _live_figures(alone, beside))


async def _live(system: System, seconds: int) -> Told:
    target = Target.of(system.url, system.token, workload.body())
    return await openloop.offer(target, LIVE_PER_S, seconds, LIVE_CONNECTIONS)


async def _live_beside_bulk(system: System, seconds: int) -> Told:
    is_over = False
    body = workload.body()
    loading = asyncio.create_task(bulk_load.load(system.url, system.token, body, STREAMS, lambda _: is_over))
    try:
        return await _live(system, seconds)
    finally:
        is_over = True
        await loading


async def _bulk(system: System, seconds: int) -> Loaded:
    customer = workload.new_customer()
    body = workload.body(customer_id=customer)
    books = await Books.open(system.postgres_url, system.nats_url)
    try:
        before, over_at = usage.read(system.pids), time.monotonic() + seconds
        load = await bulk_load.load(system.url, system.token, body, STREAMS, lambda _: time.monotonic() >= over_at)
        drained = await books.drain(customer, load.stopped_at, partial(rests, system))
        after = usage.read(system.pids)
        verified = await books.verify(customer, load.ids, 0)
    finally:
        await books.close()
    cpu_s = {"generator": load.cpu_s} | {role: after[role] - before[role] for role in before}
    return Loaded(load, drained, verified, cpu_s)


def _live_figures(alone: Told, beside: Told) -> dict[str, float]:
    late = {"live_late_share": max(alone.late_share, beside.late_share)}
    if alone.void or beside.void:  # It would be the generator's slowness that is compared.
        return late
    alone_ms, beside_ms = (openloop.percentile(told.waits, 0.99) * 1000 for told in (alone, beside))
    return {
        "live_alone_p99_ms": alone_ms,
        "live_p99_ms": beside_ms,
        "live_p99_ratio": beside_ms / alone_ms if alone_ms else 0.0,
        "live_refused": float(beside.offered - beside.outcomes[openloop.ACCEPTED]),
        **late,
    }


def _run(loaded: Loaded, live: dict[str, float]) -> Run:
    load, books = loaded.load, loaded.verified
    drain_s = loaded.drained.at - load.stopped_at
    seconds = load.seconds + drain_s
    orders = max(0, books.acknowledged - books.lost - max(0, books.rows - books.events))
    backlog_s = loaded.drained.waiting * seconds / max(orders, 1)
    faults = [f"the events fell {backlog_s:.1f} s behind the orders"] if backlog_s > BACKLOG_S_MAX else []
    return Run(
        value=orders / seconds,
        seconds=seconds,
        answers=load.answers,
        cpu_us_per_order=usage.spent(dict.fromkeys(loaded.cpu_s, 0.0), loaded.cpu_s, orders),
        verified=books,
        figures={"drain_s": drain_s, "backlog_s": backlog_s, **live},
        faults=faults,
    )


SCENARIO = Scenario(
    "bulk",
    "orders/s",
    f"Orders in bulk over {STREAMS} streams; beside it the waits of {LIVE_PER_S} live orders a second",
    measure,
    prepare,
    per_workers=True,
    against=(Against("parts", ("copy", "stream")),),
    goals=(
        Goal("bulk@1", at_least=45_000),
        Goal("bulk/parts@1", at_least=0.60),
        Goal("bulk@1:live_p99_ratio", at_most=2.0),
    ),
)
