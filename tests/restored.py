"""A ledger that is made of a backup, which pg_dump takes while orders flow, beside the streams as they went on. It is
restored into a database of its own, which is dropped at the end.
"""

import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.local import programs
from deploy.local.servers_postgres import PostgresServer
from gateway.recovery import Report, recover
from persistence.postgres.connect import open_pool
from tests.worker_world import World, eventually

# Owners of a backup count as dead after so long without a word.
TIMEOUT_MS = 300
_ALIVE = "select count(*) from worker where state = 'alive' and seen_at > clock_timestamp() - interval '300 ms'"


class Backup:
    """Of a world's ledger, as of `take`."""

    def __init__(self, world: World, server: PostgresServer) -> None:
        self._world = world
        self._server = server
        self._name = world.postgres_url.rpartition("/")[2] + "_restored"
        self._dump = b""

    def take(self) -> None:
        self._dump = _run("pg_dump", "--format=custom", self._world.postgres_url)

    @asynccontextmanager
    async def restored(self) -> AsyncIterator[World]:
        """A world on the restored ledger, with the same streams and tokens, in which nothing runs yet."""
        self._server.query(f"CREATE DATABASE {self._name} TEMPLATE template0")
        url = self._server.url_of(self._name)
        _run("pg_restore", "--exit-on-error", "--dbname", url, given=self._dump)
        world = World(url, self._world.nats_url, "", await open_pool(url, "fg-test", 8, 10.0))
        world.token = self._world.token

        async def is_quiet() -> bool:
            return int(await world.value(_ALIVE)) == 0

        try:
            await eventually("the owners of the backup are silent", is_quiet)
            yield world
        finally:
            await world.close()
            self._server.query(f"DROP DATABASE {self._name} WITH (FORCE)")


async def recovered(world: World, *, dry_run: bool = False) -> Report:
    """What a recovery of this world's ledger reports."""
    settings = world.settings(owner__timeout_ms=TIMEOUT_MS)
    return await recover(settings, None, lambda _: None, dry_run=dry_run)


def _run(program: str, *arguments: str, given: bytes = b"") -> bytes:
    path = programs.postgres().root / programs.POSTGRES / "bin" / program
    done = subprocess.run([str(path), *arguments], input=given, env=os.environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
