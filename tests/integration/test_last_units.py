"""The last units: several workers sell a hundred units to more buyers than there are units for, and one of the workers
dies while it holds some of the last ones. All that can be sold is sold, and nobody hears `sold_out` too early.

The number of rounds is small in the suite; SEEDS=20 runs twenty of each.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.crowd import Crowd
from tests.worker_world import World, eventually, open_world

SEEDS = int(os.environ.get("SEEDS", "1"))
UNITS = 100
WORKERS = 4
TIMES: dict[str, Any] = {"owner__heartbeat_ms": 50, "owner__timeout_ms": 500, "stock__park_ms_max": 500}


@pytest.fixture
async def world(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url, redis_url) as world:
        yield world
        await eventually("the outbox is empty", world.outbox_is_empty)
        await world.assert_clean()


@pytest.mark.timeout(60 + 20 * SEEDS)
@pytest.mark.parametrize("shards", [1, 3, 16])
@pytest.mark.parametrize("sizes", [(1,), (7,), (1, 7)], ids=str)
async def test_last_units_with_a_worker_killed_are_all_sold_and_nobody_is_refused_too_early(
    world: World, shards: int, sizes: tuple[int, ...]
) -> None:
    shops = [await world.shop(**TIMES) for _ in range(WORKERS)]
    world.steward(**TIMES)
    for seed in range(SEEDS):
        choose = random.Random(seed)
        crowd = Crowd(world, shops, f"LAST-{seed}", UNITS, choose)
        await crowd.prepare(shards)
        quantities = [choose.choice(sizes) for _ in range(2 * UNITS)]
        await asyncio.gather(crowd.buy(quantities), kill_one(crowd, choose.randrange(UNITS // 2, UNITS - 10)))
        await crowd.assert_right(min(sizes))
        shops = [shop if not shop.stopped else await world.shop(**TIMES) for shop in shops]


async def kill_one(crowd: Crowd, sold_min: int) -> None:
    """Kill the worker with the most units in hand once so many are sold."""
    while sum(crowd.bought) < sold_min:
        await asyncio.sleep(0.0005)
    await max(crowd.shops, key=crowd.in_hand).kill()
