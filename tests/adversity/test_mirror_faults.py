"""Redis killed, emptied, rolled back to an old copy, and silent, while two workers sell: nothing is oversold, nothing
stranded, and nobody hears `sold_out` while his units exist.

The number of faults is small in the suite; SEEDS=20 runs twenty of each.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.local.servers import ValkeyServer
from tests.crowd import Crowd
from tests.cut_proxy import CutProxy, Loss
from tests.worker_world import World, eventually, open_world

SEEDS = int(os.environ.get("SEEDS", "2"))
UNITS = 400
BUYERS = 350
TIMES: dict[str, Any] = {"owner__heartbeat_ms": 50, "stock__park_ms_max": 300}
ANYTHING = b"*"  # the first byte of every command

Fault = Callable[["Mirrored"], Coroutine[Any, Any, None]]


class Mirrored:
    """A Valkey of the test's own, and a proxy that can fall silent between it and the workers."""

    def __init__(self, server: ValkeyServer, proxy: CutProxy) -> None:
        self.server = server
        self.proxy = proxy

    def client(self) -> Redis:
        return Redis.from_url(self.server.url)

    async def kill(self) -> None:
        self.server.kill()
        await asyncio.sleep(0.2)
        self.server.start()
        self.server.wait_ready()

    async def empty(self) -> None:
        async with self.client() as client:
            await client.flushall()
            await client.script_flush()

    async def roll_back(self) -> None:
        """Put back, a moment later, what was there before, as a failover to a late replica does."""
        async with self.client() as client:
            before = {key: await client.dump(key) for key in await client.keys("fg:*")}
            await asyncio.sleep(0.2)
            for key, copy in before.items():
                if copy is not None:
                    await client.restore(key, 5000, copy, replace=True)

    async def fall_silent(self) -> None:
        self.proxy.arm(ANYTHING, Loss.SILENCE)
        await asyncio.sleep(0.5)
        self.proxy.disarm()


FAULTS: dict[str, Fault] = {
    "killed": Mirrored.kill,
    "emptied": Mirrored.empty,
    "rolled back": Mirrored.roll_back,
    "silent": Mirrored.fall_silent,
}


@pytest.fixture(scope="module")
def valkey(servers_folder: Path) -> Iterator[ValkeyServer]:
    """One of its own, since it is killed."""
    server = ValkeyServer(servers_folder / "faulty-valkey")
    server.start()
    server.wait_ready()
    yield server
    server.stop()
    server.remove()


@pytest.fixture
async def mirrored(valkey: ValkeyServer) -> AsyncIterator[Mirrored]:
    proxy = CutProxy(valkey.url)
    async with await proxy.open():
        yield Mirrored(valkey, proxy)
        await proxy.close()


@pytest.fixture
async def world(postgres_url: str, nats_url: str, mirrored: Mirrored) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url, mirrored.proxy.url) as world:
        yield world
        await eventually("the outbox is empty", world.outbox_is_empty)
        await world.assert_clean()


@pytest.mark.timeout(60 + 15 * SEEDS)
@pytest.mark.parametrize("name", FAULTS)
async def test_mirror_fault_under_load_oversells_and_strands_nothing_and_refuses_nobody_wrongly(
    world: World, mirrored: Mirrored, name: str
) -> None:
    shops = [await world.shop(**TIMES) for _ in range(2)]
    world.steward(**TIMES)
    for seed in range(SEEDS):
        choose = random.Random(seed)
        crowd = Crowd(world, shops, f"MIRROR-{seed}", UNITS, choose)
        await crowd.prepare(shards=choose.choice((1, 3, 16)))
        quantities = [choose.choice((1, 2)) for _ in range(BUYERS)]
        fault = asyncio.create_task(FAULTS[name](mirrored))
        await crowd.buy(quantities)
        await fault
        await crowd.assert_right(quantity_min=1)
