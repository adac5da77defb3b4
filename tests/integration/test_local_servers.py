"""The servers out of the wheels: they start, ask for their secret, survive a kill, and leave nothing behind."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import nats
import pytest
from nats.js.api import StreamConfig
from redis.asyncio import Redis

from deploy.local import process_table
from deploy.local.failure import StackError
from deploy.local.process import Process
from deploy.local.servers import NatsServer, Server, ValkeyServer
from deploy.local.servers_postgres import PostgresServer

DURABLE = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "data_checksums": "on",
    "log_error_verbosity": "terse",
    "TimeZone": "UTC",
}
PARENT = """
import sys, time
from pathlib import Path
from deploy.local.process import Process
child = Process("child", ["sleep", "300"], Path(sys.argv[1]))
child.start()
print(child.pid, flush=True)
time.sleep(300)
"""


def running_pids() -> set[int]:
    return {entry.pid for entry in process_table.entries()}


@pytest.fixture(params=[PostgresServer, ValkeyServer, NatsServer], ids=lambda kind: kind.kind)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server of its own in a folder that needs quoting, and that only its owner can enter."""
    folder = tmp_path / 'it\'s a "folder" 数据'
    folder.mkdir(mode=0o700)
    made: Server = request.param(folder / request.param.kind)
    made.start()
    made.wait_ready()
    yield made
    made.stop()
    made.remove()


def test_server_killed_starts_again(server: Server) -> None:
    server.kill()
    assert not server.is_ready()
    server.start()
    server.wait_ready()


def test_server_refuses_a_wrong_secret(server: Server) -> None:
    stranger = type(server)(server.directory, port=server.port, secret="wrong")
    assert not stranger.is_ready()


def test_server_stopped_leaves_no_process(server: Server) -> None:
    server.stop()
    assert server.leftovers() == []


def test_server_of_a_lost_owner_is_ended_by_the_next(server: Server) -> None:
    heir = type(server)(server.directory, secret=server.secret)
    heir.start()
    heir.wait_ready()
    assert not server.running
    heir.stop()


def test_server_that_cannot_start_says_why(server: Server, tmp_path: Path) -> None:
    rival = type(server)(tmp_path / "rival", port=server.port)
    rival.start()
    with pytest.raises(StackError, match=r"ended before it was ready .*rival\.log says:\n.+|was not ready"):
        rival.wait_ready(5.0)
    rival.stop()
    rival.remove()


async def test_postgres_is_set_up_to_keep_what_it_acknowledges(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres", light=True)
    server.start()
    server.wait_ready()
    connection = await asyncpg.connect(server.url)
    found = {name: await connection.fetchval("SELECT current_setting($1)", name) for name in DURABLE}
    encoding = await connection.fetchval("SHOW server_encoding")
    await connection.close()
    server.stop()
    server.remove()
    assert found == DURABLE
    assert encoding == "UTF8"


def test_postgres_never_runs_as_root(postgres_server: PostgresServer) -> None:
    owner = Path(f"/proc/{postgres_server.pid}").stat().st_uid
    assert owner != 0
    assert stat.S_IMODE(postgres_server.working_directory.stat().st_mode) == 0o700


def test_postgres_stale_pid_file_naming_a_living_process_does_not_stop_it(tmp_path: Path) -> None:
    server = PostgresServer(tmp_path / "postgres", light=True, durable=False)
    server.start()
    server.wait_ready()
    server.kill()
    pid_file = server.working_directory / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    server.start()
    server.wait_ready()
    server.stop()
    server.remove()


async def test_postgres_url_gives_each_test_an_empty_migrated_database(postgres_url: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM orders") == 0
    await connection.close()


async def test_redis_url_reaches_the_server(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        await client.set("a", "b")
        assert await client.get("a") == b"b"


@pytest.mark.parametrize("turn", [1, 2])
async def test_nats_url_gives_each_test_a_server_without_streams(nats_url: str, turn: int) -> None:
    client = await nats.connect(nats_url)
    streams = client.jetstream()
    assert await streams.streams_info() == []
    await streams.add_stream(StreamConfig(name=f"S{turn}", subjects=["s"]))
    await client.close()


def test_process_of_a_killed_parent_is_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "child.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert child in running_pids()
        parent.kill()
    while child in running_pids():
        time.sleep(0.01)


def test_process_stop_ends_workers_that_lost_their_leader(tmp_path: Path) -> None:
    process = Process("leader", ["sh", "-c", "sleep 300 & exec sleep 300"], tmp_path / "leader.log")
    process.start()
    while len(process.leftovers()) < 2:
        assert process.running
    process.send(process.stop_signal)
    process.stop()
    assert process.leftovers() == []
