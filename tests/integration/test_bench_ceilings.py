"""The ceilings of the stores and the naive peer against real servers: they count what is stored and nothing else."""

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
import uvloop
from redis import Redis

from bench import workload
from bench.baselines.naive import peer
from bench.record import Cell
from bench.scenario import Bench
from bench.scenarios import copy, naive, stream
from bench.stored import BATCH, Batch, at_database
from deploy.local.failure import StackError
from deploy.local.servers_postgres import PostgresServer
from persistence.nats.stream import Event, Stream
from persistence.postgres.connect import connect
from tests.tools import needs_wrk

SECONDS = 1
CONNECTIONS = 8


@pytest.fixture
def bench(postgres_server: PostgresServer, nats_url: str, redis_url: str, tmp_path: Path) -> Iterator[Bench]:
    """A bench whose system has the servers and no gateway."""
    roles = ("postgres", "nats", "redis")
    system = SimpleNamespace(
        postgres_url=postgres_server.url,
        nats_url=nats_url,
        redis_url=redis_url,
        token="fg_of-no-use",
        pids=dict.fromkeys(roles, os.getpid()),
        settle=lambda: True,
    )
    made: Any = SimpleNamespace(system=lambda _=None: system, scratch=tmp_path, say=lambda _: None)
    yield made
    for database in (copy.DATABASE, naive.DATABASE):
        postgres_server.query(f"drop database if exists {database} with (force)")


def rows(bench: Bench, table: str) -> int:
    async def ask() -> int:
        connection = await connect(at_database(bench.system().postgres_url, copy.DATABASE), "fg-test")
        try:
            return int(await connection.fetchval(f"select count(*) from {table}"))
        finally:
            await connection.close()

    return uvloop.run(ask())


def test_copy_stores_every_order_and_leaves_none(bench: Bench) -> None:
    copy.SCENARIO.prepare(bench)
    run = copy.SCENARIO.measure(bench, Cell("copy"), SECONDS)
    assert run.faults == []
    assert run.figures["orders"] % BATCH == 0
    assert run.value == pytest.approx(run.figures["orders"] / run.seconds)
    assert set(run.cpu_us_per_order) == {"generator", "postgres"}
    assert {table: rows(bench, table) for table in copy.TABLES} == dict.fromkeys(copy.TABLES, 0)


def test_copy_runs_again(bench: Bench) -> None:
    copy.SCENARIO.prepare(bench)
    faults = [copy.SCENARIO.measure(bench, Cell("copy"), SECONDS).faults for _ in range(2)]
    assert faults == [[], []]


def test_copy_that_loses_a_table_forbids_the_headline(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = copy.commit

    async def careless(ledger: asyncpg.Connection, batch: Batch) -> None:
        batch.streams.pop("order_key", None)
        await commit(ledger, batch)

    monkeypatch.setattr(copy, "commit", careless)
    copy.SCENARIO.prepare(bench)
    (fault,) = copy.SCENARIO.measure(bench, Cell("copy"), SECONDS).faults
    assert "order_key has 0 rows" in fault


@pytest.fixture
async def streams(nats_url: str) -> AsyncIterator[list[str]]:
    """The streams that are left when the test is over, at its end."""
    found: list[str] = []
    yield found
    client = await Stream(nats_url, "fg-test", 5.0).ensure_open()
    found += [str(info.config.name) for info in await client.jetstream().streams_info()]
    await client.close()
    assert stream.STREAM not in found


def test_stream_stores_every_event_and_leaves_no_stream(bench: Bench, streams: list[str]) -> None:
    run = stream.SCENARIO.measure(bench, Cell("stream"), SECONDS)
    assert run.faults == []
    assert run.figures["orders"] % (BATCH * stream.SLICE) == 0
    assert run.value == pytest.approx(run.figures["orders"] / run.seconds)
    assert set(run.cpu_us_per_order) == {"generator", "nats"}


def test_stream_that_loses_events_forbids_the_headline(
    bench: Bench, streams: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Stream.publish

    async def careless(self: Stream, events: Sequence[Event], name: str) -> int:
        return await publish(self, events[1:], name)

    monkeypatch.setattr(Stream, "publish", careless)
    (fault,) = stream.SCENARIO.measure(bench, Cell("stream"), SECONDS).faults
    assert "events were sent, and the stream has" in fault


@pytest.fixture
def installed() -> None:
    try:
        peer.environment()
    except StackError as error:
        pytest.skip(str(error))


@needs_wrk
def test_naive_has_a_row_for_every_order_that_it_has_acknowledged(bench: Bench, installed: None) -> None:
    naive.SCENARIO.prepare(bench)
    run = naive.SCENARIO.measure(bench, Cell("naive", connections=CONNECTIONS), SECONDS)
    assert run.faults == []
    assert run.answers.keys() == {"201"}
    assert run.figures["rows"] == run.answers["201"] + run.figures["orphans"]
    assert run.figures["orphans"] <= CONNECTIONS
    assert set(run.cpu_us_per_order) == {"generator", "worker", "postgres", "redis"}
    with Redis.from_url(bench.system().redis_url) as redis:
        assert redis.get(naive.STOCK) is None
    assert not [line for line in (bench.scratch / "naive.log").read_text().splitlines() if "Traceback" in line]


@needs_wrk
def test_naive_sells_no_more_than_there_is(bench: Bench, installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_rows(url: str, _customer: str) -> int:
        connection = await connect(url, "fg-test")
        try:
            return int(await connection.fetchval("select count(*) from orders"))
        finally:
            await connection.close()

    monkeypatch.setattr(workload, "UNITS", 5)
    monkeypatch.setattr(naive, "_take_rows", all_rows)
    monkeypatch.setattr(naive, "_run", lambda load, _cpu, found, _connections: (load, found))
    naive.SCENARIO.prepare(bench)
    found: Any = naive.SCENARIO.measure(bench, Cell("naive", connections=CONNECTIONS), SECONDS)
    assert found[0].answers["409"] > 0
    assert found[1] == 5
