"""The servers of the tests: PostgreSQL, Valkey and NATS out of the wheels, one of each per session, on free ports,
started when first asked for.

A test gets an empty one: a database cloned from a migrated template, a flushed mirror, a stream server without
streams. The end of the servers' logs is shown with a failing test. A test that kills a server starts it again.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import nats
import pytest
from redis.asyncio import Redis

from deploy.local.servers import NatsServer, Server, ValkeyServer
from deploy.local.servers_postgres import PostgresServer
from persistence.postgres.migrate import upgrade

TEMPLATE = "migrated"
TAIL_LINES = 30

AnyServer = TypeVar("AnyServer", bound=Server)

_running: list[Server] = []
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """A folder that the account of PostgreSQL can enter, which root's temporary folder of pytest is not."""
    folder = Path(tempfile.mkdtemp(prefix="floodgate-tests-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server(servers_folder: Path) -> Iterator[PostgresServer]:
    """Durable: the ledger refuses to work on a server that is not."""
    server = PostgresServer(servers_folder / "postgres", light=True)
    yield from _while_running(server)


@pytest.fixture(scope="session")
def valkey_server(servers_folder: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(servers_folder / "valkey")
    yield from _while_running(server)


@pytest.fixture(scope="session")
def nats_server(servers_folder: Path) -> Iterator[NatsServer]:
    server = NatsServer(servers_folder / "nats")
    yield from _while_running(server)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the schema; nobody connects to it, so it can always be cloned."""
    postgres_server.query(f"CREATE DATABASE {TEMPLATE}")
    asyncio.run(upgrade(postgres_server.url_of(TEMPLATE)))
    postgres_server.query(f"ALTER DATABASE {TEMPLATE} ALLOW_CONNECTIONS false")
    return TEMPLATE


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database without a schema."""
    yield from _database(postgres_server, "template0")


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, migrated_template: str) -> Iterator[str]:
    """A database of its own with the schema, empty."""
    yield from _database(postgres_server, migrated_template)


@pytest.fixture
async def redis_url(valkey_server: ValkeyServer) -> AsyncIterator[str]:
    yield valkey_server.url
    async with Redis.from_url(valkey_server.url) as client:
        await client.flushall()


@pytest.fixture
async def nats_url(nats_server: NatsServer) -> AsyncIterator[str]:
    yield nats_server.url
    client = await nats.connect(nats_server.url)
    stream_context = client.jetstream()
    for stream in await stream_context.streams_info():
        assert stream.config.name
        await stream_context.delete_stream(stream.config.name)
    await client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        asked = getattr(item, "fixturenames", ())
        for server in _running:
            if f"{server.kind}_server" in asked:
                report.sections.append((f"end of the log of {server.kind}", server.tail(TAIL_LINES)))
    return report


def _while_running(server: AnyServer) -> Iterator[AnyServer]:
    server.start()
    try:
        server.wait_ready()
        _running.append(server)
        yield server
    finally:
        server.stop()
        server.remove()


def _database(server: PostgresServer, template: str) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    server.query(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield server.url_of(name)
    server.query(f"DROP DATABASE {name} WITH (FORCE)")
