"""A gateway as a process of its own (`floodgate serve`), beside a steward if wanted, on the servers of the tests."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import asyncpg

from deploy.local import process_table
from deploy.local.edge import is_ready, why_not_ready
from deploy.local.ports import pick_free
from gateway.domain.access import SCOPES, new_token, token_hash
from persistence.nats.stream import Stream, StreamSettings
from persistence.postgres import catalogue, clients, stock
from persistence.postgres.connect import open_pool

READY_S = 30.0
HASH_KEY = base64.b64encode(bytes(range(32))).decode()
MASTER_KEYS = "1:" + base64.b64encode(bytes(range(1, 33))).decode()


class Served:
    """One gateway on one database and one stream server. `start` and `stop` may be repeated; the data stay."""

    def __init__(self, postgres_url: str, nats_url: str, redis_url: str = "") -> None:
        self.postgres_url = postgres_url
        self.nats_url = nats_url
        self.redis_url = redis_url
        self.url = ""
        self.token = new_token()
        self._log = Path(tempfile.mkstemp(prefix="floodgate-serve-", suffix=".log")[1])
        self._process: subprocess.Popen[bytes] | None = None

    async def prepare(self, products: dict[str, int]) -> None:
        """A client with every scope, the stream, and products at 100 fen with their stock."""
        stream = Stream(self.nats_url, "test", 5.0)
        await stream.ensure_stream(StreamSettings(1, 604800, 600))
        await stream.close()
        pool = await open_pool(self.postgres_url, "test", 2, 10.0)
        try:
            rows = [
                catalogue.ProductRow(sku, f"Goods {sku}", 100, "CNY", stocked=True, active=True) for sku in products
            ]
            await catalogue.put(pool, rows)
            for sku, units in products.items():
                await stock.set_total(pool, sku, units, 4, "test", None, None)
            async with pool.acquire() as connection:
                await clients.add(connection, "buyers", list(SCOPES), ["*"], token_hash(self.token), None)
        finally:
            await pool.close()

    async def start(self, workers: int = 1) -> None:
        """Start the gateway, and wait until a worker takes orders."""
        port = pick_free()
        self.url = f"http://127.0.0.1:{port}"
        self._process = self.spawn("serve", "--port", str(port), "--workers", str(workers))
        deadline = asyncio.get_running_loop().time() + READY_S
        while not await asyncio.to_thread(is_ready, self.url):
            assert self._process.poll() is None, self._log.read_text()
            assert asyncio.get_running_loop().time() < deadline, why_not_ready(self.url) + self._log.read_text()
            await asyncio.sleep(0.05)

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """End the gateway with a signal; returns its exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return await asyncio.to_thread(self._process.wait, READY_S)

    def signal(self, number: int) -> None:
        """Tell the supervisor."""
        assert self._process is not None
        self._process.send_signal(number)

    def workers(self) -> set[int]:
        """The workers' processes."""
        assert self._process is not None
        return set(process_table.members(self._process.pid)) - {self._process.pid}

    async def close(self) -> None:
        if self._process is not None and self._process.poll() is None:
            await self.stop()
        self._log.unlink()

    def log(self) -> str:
        return self._log.read_text()

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.postgres_url)
        try:
            return list(await connection.fetch(query, *values))
        finally:
            await connection.close()

    def spawn(self, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
        """One of our commands with the settings of the tests, some of them changed; it writes to the same log."""
        environment = os.environ | {
            "FLOODGATE_POSTGRES__URL": self.postgres_url,
            "FLOODGATE_NATS__URL": self.nats_url,
            "FLOODGATE_REDIS__URL": self.redis_url,
            "FLOODGATE_SECRETS__MASTER_KEYS": MASTER_KEYS,
            "FLOODGATE_SECRETS__HASH_KEY": HASH_KEY,
            "FLOODGATE_NATS__ACK_TIMEOUT_MS": "1000",
            **changes,
        }
        command = [sys.executable, "-P", "-c", "from gateway.cli import main; main(prog_name='floodgate')", *arguments]
        with self._log.open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
