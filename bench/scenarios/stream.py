"""`stream`, the ceiling of the events: the events of orders as atomic batches of BATCH, over one connection, each
acknowledged when it is on the disk (`sync_interval: always`). No ledger, no outbox.

The stream has the settings of the orders' own, and subjects of its own on the same server, so that nobody reads them.
Events are made in slices, while the clock stands still: it counts what the server and its client need. A run that has
not stored every event forbids the headline.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator

import uvloop
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from bench import usage
from bench.record import Cell, Run
from bench.scenario import Bench, Scenario
from bench.stored import BATCH, Events
from gateway.settings import Nats
from gateway.stream_watch import stream_settings
from persistence.nats.stream import NAME, Event, Stream, config_of

STREAM = "BENCH"
SUBJECT = "bench"
SLICE = 20  # batches that are made at a time: some 20 MB
UNDER_WAY = 2  # batches: one is encoded while the server writes another, or the client would be the ceiling
ACK_TIMEOUT_S = 20.0


def measure(bench: Bench, _: Cell, seconds: int) -> Run:
    """One run into an empty stream, which is deleted afterwards."""
    system = bench.system()
    system.settle()
    return uvloop.run(_measure(system.nats_url, {"nats": system.pids["nats"]}, seconds))


async def _measure(url: str, roles: dict[str, int], seconds: int) -> Run:
    stream = Stream(url, "fg-bench", ACK_TIMEOUT_S)
    try:
        jetstream = (await stream.ensure_open()).jetstream(timeout=ACK_TIMEOUT_S)
        await _delete(jetstream)
        config = config_of(NAME, stream_settings(Nats()))
        await jetstream.add_stream(config.evolve(name=STREAM, subjects=[f"{SUBJECT}.>"]))
        try:
            return await _publish(stream, jetstream, roles, seconds)
        finally:
            await _delete(jetstream)
    finally:
        await stream.close()


async def _publish(stream: Stream, jetstream: JetStreamContext, roles: dict[str, int], seconds: int) -> Run:
    events, batches, elapsed, cpu_s = Events(_now_ms(), SUBJECT), 0, 0.0, 0.0
    before = usage.read(roles)
    while elapsed < seconds:
        waiting = iter([events.batch(_now_ms()) for _ in range(SLICE)])
        started, cpu_started = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(UNDER_WAY):
                group.create_task(_send(stream, waiting))
        elapsed += time.monotonic() - started
        cpu_s += time.process_time() - cpu_started
        batches += SLICE
    sent = batches * BATCH
    spent = usage.spent(before, usage.read(roles), sent)
    stored = (await jetstream.stream_info(STREAM)).state.messages
    return Run(
        value=sent / elapsed,
        seconds=elapsed,
        cpu_us_per_order={"generator": cpu_s / sent * 1e6, **spent},
        figures={"orders": float(sent), "batch_ms": elapsed / batches * 1000},
        faults=[] if stored == sent else [f"{sent} events were sent, and the stream has {stored}"],
    )


async def _send(stream: Stream, waiting: Iterator[list[Event]]) -> None:
    for batch in waiting:
        await stream.publish(batch, STREAM)


async def _delete(jetstream: JetStreamContext) -> None:
    with contextlib.suppress(NotFoundError):
        await jetstream.delete_stream(STREAM)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


SCENARIO = Scenario(
    name="stream",
    unit="orders/s",
    about="the same events as atomic batches of 1,000, nothing else: the ceiling of the stream",
    measure=measure,
)
