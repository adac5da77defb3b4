"""`naive`, the reference: what people write today (bench/baselines/naive), under the same load with the same bytes, on
the same PostgreSQL and Valkey.

Its orders stand in a database of their own. After each run its processes have ended and its rows are looked at: an
acknowledged order without a row forbids the headline, here as everywhere.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import asyncpg
import uvloop
from redis import Redis

from bench import usage, workload, wrk
from bench.baselines.naive import peer
from bench.closed_loop import run_of
from bench.failure import ScenarioError
from bench.record import CONNECTIONS, Cell, Run
from bench.scenario import Bench, Scenario
from bench.stored import at_database
from bench.system import System
from deploy.local.failure import StackError
from persistence.postgres.connect import connect

DATABASE = "bench_naive"
STOCK = f"stock:{workload.SKU}"
READY_TIMEOUT_S = 30.0
PRIMER_S = 2
PRIMERS_MAX = 5
LOOK_AGAIN_S = 0.05


def prepare(bench: Bench) -> None:
    """Install it, and make its database. Raises ScenarioError when it cannot be installed."""
    bench.say("Installing the naive peer, unless it is there.")
    try:
        peer.environment()
    except StackError as error:
        raise ScenarioError(str(error)) from error
    uvloop.run(_make_database(bench.system().postgres_url))


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    """One run of the peer, from an empty table."""
    system, connections = bench.system(), cell.connections or CONNECTIONS
    url = at_database(system.postgres_url, DATABASE)
    system.settle()
    with Redis.from_url(system.redis_url) as redis:
        redis.set(STOCK, workload.UNITS)
        try:
            with _peer(bench, url, system.redis_url) as one:
                _prime(bench, system, one, connections)
                customer = workload.new_customer()
                load, cpu_s = _load(bench, system, one, connections, seconds, customer)
            # Its processes have ended, and with them what was under way.
            rows = uvloop.run(_take_rows(url, customer))
        finally:
            redis.delete(STOCK)
    return _run(load, cpu_s, rows, connections)


def _prime(bench: Bench, system: System, one: peer.Peer, connections: int) -> None:
    """Load it until it takes orders: its processes are new, and make connections and prepare statements with the first
    requests. Raises ScenarioError when it never does.
    """
    answers: dict[str, int] = {}
    for _ in range(PRIMERS_MAX):
        answers = _load(bench, system, one, connections, PRIMER_S, workload.new_customer())[0].answers
        if answers.get("201"):
            return
    raise ScenarioError(f"the naive peer takes no orders: {answers}; its log ends with:\n{one.tail()}")


@contextmanager
def _peer(bench: Bench, postgres_url: str, redis_url: str) -> Iterator[peer.Peer]:
    one = peer.Peer(peer.environment(), postgres_url, redis_url, bench.scratch / "naive.log")
    one.start()
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not one.is_ready():
            if one.poll() is not None or time.monotonic() > deadline:
                raise ScenarioError(f"the naive peer does not start; its log ends with:\n{one.tail()}")
            time.sleep(LOOK_AGAIN_S)
        yield one
    finally:
        one.stop()


def _load(
    bench: Bench, system: System, one: peer.Peer, connections: int, seconds: int, customer: str
) -> tuple[wrk.Load, dict[str, float]]:
    """The load, and the seconds of CPU that each role has spent on it."""
    assert one.pid
    roles = {"worker": one.pid, "postgres": system.pids["postgres"], "redis": system.pids["redis"]}
    after: dict[str, float] = {}

    async def stopped(_: float) -> None:
        after.update(usage.read(roles))

    variables = {"TOKEN": system.token, "CUSTOMER": customer}  # It ignores the token, but the bytes are the same.
    before = usage.read(roles)
    load = uvloop.run(wrk.load(one.url, connections, seconds, variables, bench.scratch / "naive.ids", stopped))
    return load, {role: after[role] - before[role] for role in roles}


def _run(load: wrk.Load, cpu_s: dict[str, float], rows: set[UUID], connections: int) -> Run:
    acknowledged = load.answers.get("201", 0)
    if not acknowledged:
        raise ScenarioError(f"the naive peer has taken no order: {load.answers}, {load.unanswered} without an answer")
    told = set(map(UUID, load.ids))
    orphans = len(rows - told)
    faults = []
    if len(told) != acknowledged or told - rows:
        faults.append(f"{acknowledged - len(told & rows)} acknowledged orders are not in the naive peer's table")
    if orphans > connections:
        faults.append(f"the naive peer has {orphans} orders without an answer, and {connections} connections")
    figures = {"rows": float(len(rows)), "orphans": float(orphans)}
    return run_of(load, acknowledged, load.seconds, cpu_s, figures, faults)


async def _make_database(url: str) -> None:
    admin = await connect(url, "fg-bench")
    try:
        await admin.execute(f"create database {DATABASE}")
    finally:
        await admin.close()
    tables = await connect(at_database(url, DATABASE), "fg-bench")
    try:
        await tables.execute(peer.SCHEMA.read_text())
        await tables.execute("insert into products values ($1, $2, $3)", workload.SKU, "Flash", workload.PRICE)
    finally:
        await tables.close()


async def _take_rows(url: str, customer: str) -> set[UUID]:
    """The ids of this customer's orders in its table, which is emptied."""
    tables = await connect(url, "fg-bench")
    try:
        found: list[asyncpg.Record] = await tables.fetch("select id from orders where customer_id = $1", customer)
        await tables.execute("truncate orders")
    finally:
        await tables.close()
    return {UUID(bytes=row["id"].bytes) for row in found}


SCENARIO = Scenario(
    name="naive",
    unit="orders/s",
    about="FastAPI and uvicorn, 2 workers, Redis Lua and one INSERT per order; no keys, no events, no encryption",
    measure=measure,
    prepare=prepare,
    per_connections=True,
)
