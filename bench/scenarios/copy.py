"""`copy`, the ceiling of the ledger: binary COPY of the rows of orders from memory, over one connection, BATCH orders a
transaction. No keys, no stock, no outbox, no function.

The rows go into tables like the ledger's, of its schema, in a database of their own on the same server: what they cost
there they cost in the ledger. A run that has not stored every row forbids the headline.
"""

import time

import asyncpg
import uvloop

from bench import usage
from bench.record import Cell, Run
from bench.scenario import Bench, Scenario
from bench.stored import BATCH, Batch, at_database
from persistence.postgres.connect import connect, ensure_durable
from persistence.postgres.ledger import COLUMNS
from persistence.postgres.migrate import upgrade

DATABASE = "bench_copy"
TABLES = ("orders", "order_lines", "order_history", "order_key")


def prepare(bench: Bench) -> None:
    """Make the database; it ends with the system."""
    uvloop.run(_make_database(bench.system().postgres_url))


def measure(bench: Bench, _: Cell, seconds: int) -> Run:
    """One run into empty tables."""
    system = bench.system()
    system.settle()
    return uvloop.run(
        _measure(at_database(system.postgres_url, DATABASE), {"postgres": system.pids["postgres"]}, seconds)
    )


async def _make_database(url: str) -> None:
    admin = await connect(url, "fg-bench")
    try:
        await admin.execute(f"create database {DATABASE}")
    finally:
        await admin.close()
    await upgrade(at_database(url, DATABASE))


async def _measure(url: str, roles: dict[str, int], seconds: int) -> Run:
    ledger = await connect(url, "fg-bench")
    try:
        await ensure_durable(ledger)
        return await _copy(ledger, roles, seconds)
    finally:
        # A run leaves gigabytes, and the next one starts like the first.
        await ledger.execute(f"truncate {', '.join(TABLES)}")
        await ledger.close()


async def _copy(ledger: asyncpg.Connection, roles: dict[str, int], seconds: int) -> Run:
    ms, batches = _now_ms(), 0
    batch = Batch(ms)
    before, started, cpu_s = usage.read(roles), time.monotonic(), time.process_time()
    while time.monotonic() - started < seconds:
        ms = max(ms + 1, _now_ms())  # The time of an id is what tells a batch from the one before.
        batch.renew(ms)
        await commit(ledger, batch)
        batches += 1
    elapsed, cpu_s = time.monotonic() - started, time.process_time() - cpu_s
    orders = batches * BATCH
    spent = usage.spent(before, usage.read(roles), orders)
    faults = [
        f"{orders} orders were copied, and {table} has {rows} rows"
        for table in TABLES
        if (rows := await ledger.fetchval(f"select count(*) from {table}")) != orders  # noqa: S608 - a constant
    ]
    return Run(
        value=orders / elapsed,
        seconds=elapsed,
        cpu_us_per_order={"generator": cpu_s / orders * 1e6, **spent},
        figures={"orders": float(orders), "batch_ms": elapsed / batches * 1000},
        faults=faults,
    )


async def commit(ledger: asyncpg.Connection, batch: Batch) -> None:
    """One transaction of the four tables, and nothing else."""
    await ledger.execute("begin isolation level read committed")
    for table, streams in batch.streams.items():
        for stream in streams:
            source = memoryview(stream.payload)
            await ledger.copy_to_table(table, source=source, columns=COLUMNS[table], format="binary")
    assert await ledger.execute("commit") == "COMMIT"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


SCENARIO = Scenario(
    name="copy",
    unit="orders/s",
    about="binary COPY of the same rows from memory, nothing else: the ceiling of the ledger",
    measure=measure,
    prepare=prepare,
)
