"""One run of a closed loop: wrk keeps its connections busy with orders, and the clock stops when the event of the last
one is in the stream.

It promises that every scenario of wrk is measured by the same hand, the ceiling too; only orders that are acknowledged,
in the ledger and in the stream are counted.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import aiohttp
import uvloop

from bench import usage, workload, wrk
from bench.books import Books, Drained
from bench.record import Cell, Run, Verified
from bench.scenario import Bench
from bench.system import System, parse_metrics

WATCH_PAUSE_S = 0.25
WATCH_TIMEOUT_S = 5.0
BACKLOG_S_MAX = 1.0
BACKLOG = "floodgate_events_backlog"
IN_FLIGHT = "floodgate_orders_in_flight"
CREATED, CONFLICT = "201", "409"
IDS = "ids"


class Placed(NamedTuple):
    """What one load has led to; `backlog` is the most events that waited for the stream, `cpu_s` is by role."""

    load: wrk.Load
    drained: Drained
    backlog: float
    verified: Verified
    cpu_s: dict[str, float]

    @property
    def orders(self) -> int:
        """Those that count."""
        books = self.verified
        return max(0, books.acknowledged - books.lost - max(0, books.rows - books.events))

    @property
    def drain_s(self) -> float:
        """From the end of the load to the event of the last order."""
        return self.drained.at - self.load.stopped_at


def place_orders(bench: Bench, cell: Cell, seconds: int, variables: Mapping[str, str]) -> Run:
    """A run that counts orders."""
    placed, rests = _placed(bench, cell, seconds, variables)
    clock_s = placed.load.seconds + placed.drain_s
    backlog_s = placed.backlog * clock_s / max(placed.orders, 1)
    faults = [f"the events fell {backlog_s:.1f} s behind the orders"] if backlog_s > BACKLOG_S_MAX else []
    figures = {"drain_s": placed.drain_s, "backlog_orders": placed.backlog, "backlog_s": backlog_s}
    return run_of(placed.load, placed.orders, clock_s, placed.cpu_s, figures | rests, faults, placed.verified)


def refuse_orders(bench: Bench, cell: Cell, seconds: int, variables: Mapping[str, str]) -> Run:
    """A run that counts refusals; an order is a fault."""
    placed, rests = _placed(bench, cell, seconds, variables)
    refused = placed.load.answers.get(CONFLICT, 0)
    faults = [f"{placed.verified.rows} orders of what is sold out"] if placed.verified.rows else []
    return run_of(placed.load, refused, placed.load.seconds, placed.cpu_s, rests, faults, placed.verified)


def run_of(
    load: wrk.Load,
    count: int,
    seconds: float,
    cpu_s: Mapping[str, float],
    figures: Mapping[str, float],
    faults: list[str],
    verified: Verified | None = None,
) -> Run:
    """The run of `count` orders that took so long, with the CPU of each role shared among them."""
    cpu = {wrk.GENERATOR: load.cpu_s, **cpu_s}
    return Run(
        value=count / seconds,
        seconds=seconds,
        answers=load.answers,
        p50_ms=load.p50_ms,
        p99_ms=load.p99_ms,
        cpu_us_per_order=usage.spent(dict.fromkeys(cpu, 0.0), cpu, count),
        verified=verified,
        figures={"unanswered": load.unanswered, **figures},
        faults=faults,
    )


def _placed(bench: Bench, cell: Cell, seconds: int, variables: Mapping[str, str]) -> tuple[Placed, dict[str, float]]:
    """A load on a system that rested before; the figure says so when it did not."""
    system = bench.system(cell.workers)
    rests = {} if system.settle() else {"unrest": 1.0}
    return uvloop.run(_place(bench, system, cell, seconds, variables)), rests


async def _place(bench: Bench, system: System, cell: Cell, seconds: int, variables: Mapping[str, str]) -> Placed:
    assert cell.connections
    customer, waited, ended = workload.new_customer(), [0.0], list[tuple[Drained, dict[str, float]]]()
    books = await Books.open(system.postgres_url, system.nats_url)
    try:
        before = usage.read(system.pids)
        watching = asyncio.create_task(_watch(system, waited))

        async def stopped(at: float) -> None:
            await _end(watching)
            ended.append((await books.drain(customer, at, partial(rests, system)), usage.read(system.pids)))

        variables = {"TOKEN": system.token, "CUSTOMER": customer, **variables}
        try:
            load = await wrk.load(system.url, cell.connections, seconds, variables, bench.scratch / IDS, stopped)
        finally:
            await _end(watching)
        ((drained, after),) = ended
        verified = await books.verify(customer, load.ids, cell.connections)
    finally:
        await books.close()
    assert len(load.ids) == load.answers.get(CREATED, 0), "the script keeps the id of every order"
    cpu_s = {role: after[role] - before[role] for role in before}
    return Placed(load, drained, max(*waited, float(drained.waiting)), verified, cpu_s)


async def _watch(system: System, waited: list[float]) -> None:
    """Note now and then how many events wait for the stream. A worker under load answers late; so it is asked again."""
    timeout = aiohttp.ClientTimeout(total=WATCH_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {system.token}"}
    async with aiohttp.ClientSession(system.url, timeout=timeout, headers=headers) as client:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with client.get("/metrics") as answer:
                    waited.append(parse_metrics(await answer.text())[BACKLOG])
            await asyncio.sleep(WATCH_PAUSE_S)


async def rests(system: System) -> bool:
    """Whether no worker has an order under way."""
    return system.metrics().get(IN_FLIGHT) == 0


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
