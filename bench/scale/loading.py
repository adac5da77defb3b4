"""Fills the ledger of a system with orders, by way of `POST /v1/orders/bulk` as a merchant would: they have keys,
stock, personal data, history and events like all others.

It promises that as many orders as were asked for are in the ledger, or raises; it never starts what the disk cannot
hold.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import uvloop

from bench import workload
from bench.failure import ScenarioError
from bench.scenario import Say
from bench.system import System
from persistence.postgres.connect import connect

PATH = "/v1/orders/bulk"
STREAMS = 4
PIECE = 1_000  # orders of one write, which are one customer's
REQUEST = 50_000  # orders of one request at most
SAID_EVERY = 500_000
TIMEOUT_S = 600.0  # of one request
ACCEPTED = re.compile(rb'"status":201')
# On the disk for each order: rows and indexes in PostgreSQL, and its event in the stream. Measured on 2026-11-23 with
# 20,000 canonical orders: see `disk_bytes`, which every run reports anew.
ORDER_BYTES = 2_600
RESERVE_BYTES = 8 << 30  # the write-ahead log, which is kept to 4 GiB, and room for the machine
REST_TRIES = 20
BLOCK_BYTES = 512  # of st_blocks, whatever the file system's own are


def ensure_room(folder: Path, orders: int) -> None:
    """Raises ScenarioError that names the largest size that fits."""
    free = shutil.disk_usage(folder).free
    fitting = max(0, free - RESERVE_BYTES) // ORDER_BYTES
    if orders > fitting:
        raise ScenarioError(
            f"{orders:,} orders do not fit on the disk of {folder}: of {free / 1e9:.1f} GB that are free they leave too"
            f" little. {fitting:,} orders fit: ask for so many with --orders, or name a larger disk with --folder"
        )


def load(system: System, orders: int, say: Say) -> None:
    """Place so many orders, and wait until the system rests."""
    uvloop.run(_load(system, orders, say))
    stored = uvloop.run(_value(system.postgres_url, "select count(*) from orders"))
    if stored < orders:
        raise ScenarioError(f"{stored:,} orders are in the ledger, and {orders:,} were accepted")
    if not any(system.settle() for _ in range(REST_TRIES)):
        raise ScenarioError("the system does not come to rest after loading; something else may use the machine")


def disk_bytes(system: System) -> int:
    """What tables, indexes and streams take, without the write-ahead log."""
    stored = 0
    for file in system.folder.nats.rglob("*"):
        with suppress(FileNotFoundError):  # The stream's server goes on to the next file when one is full.
            stored += file.stat().st_blocks * BLOCK_BYTES
    return stored + uvloop.run(_value(system.postgres_url, "select pg_database_size(current_database())"))


async def _load(system: System, orders: int, say: Say) -> None:
    left = iter(range(0, orders, REQUEST))
    placed = Placed(orders, say)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    headers = {"Authorization": f"Bearer {system.token}", "Content-Type": "application/x-ndjson"}

    async def stream(client: aiohttp.ClientSession) -> None:
        for start in left:
            wanted = min(REQUEST, orders - start)
            async with client.post(PATH, data=_lines(start, wanted)) as answer:
                accepted = await _accepted(answer)
            if accepted != wanted:
                raise ScenarioError(f"{wanted - accepted:,} of {wanted:,} orders in bulk were not accepted")
            placed.add(wanted)

    async with (
        aiohttp.ClientSession(system.url, timeout=timeout, headers=headers) as client,
        asyncio.TaskGroup() as all_,
    ):
        for _ in range(STREAMS):
            all_.create_task(stream(client))


class Placed:
    """Says how far it has come."""

    def __init__(self, orders: int, say: Say) -> None:
        self._orders, self._say = orders, say
        self._placed = self._said = 0

    def add(self, count: int) -> None:
        self._placed += count
        if self._placed - self._said >= SAID_EVERY:
            self._said = self._placed
            self._say(f"orders: {self._placed:,} of {self._orders:,} are placed")


async def _lines(start: int, count: int) -> AsyncIterator[bytes]:
    """The lines of orders `start` to `start + count`, a piece at a time."""
    for first in range(start, start + count, PIECE):
        body = workload.body(customer_id=workload.new_customer())
        numbers = range(first, min(first + PIECE, start + count))
        yield b"".join(b'{"idempotency_key":"load-%d","order":%b}\n' % (number, body) for number in numbers)


async def _accepted(answer: aiohttp.ClientResponse) -> int:
    """Verdicts with 201."""
    if answer.status != 200:
        raise ScenarioError(f"{PATH}: {answer.status} {await answer.text()}")
    count, rest = 0, b""
    async for piece in answer.content.iter_any():
        whole, _, rest = (rest + piece).rpartition(b"\n")
        count += len(ACCEPTED.findall(whole))
    return count


async def _value(url: str, query: str) -> int:
    connection = await connect(url, "fg-bench", TIMEOUT_S)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
