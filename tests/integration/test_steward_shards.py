"""Shards by rule: stewards spread stock anew while orders flow, and leave alone what was given by command."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gateway.live import Live
from gateway.settings import Settings
from gateway.steward.shards import RESHARDED_MAX, SWEEP_EVERY_S, Shards
from persistence.postgres import live_settings, stock
from persistence.postgres.session import Session
from tests.worker_world import SKU, World, eventually, open_world, order_id_of

SKUS = 2 * RESHARDED_MAX + 50


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        yield world
        await world.assert_clean()


class Job:
    """The steward's job, and the time that it sees."""

    def __init__(self, url: str) -> None:
        self.live = Live(Settings())
        self.session = Session(url, "fg-test-shards")
        self.at_s = 1000.0
        self.shards = Shards(self.session, self.live, lambda: self.at_s)

    async def run_pass(self) -> None:
        await self.session.run(self.live.load)
        await self.shards.run_pass()


@pytest.fixture
async def job(postgres_url: str) -> AsyncIterator[Job]:
    job = Job(postgres_url)
    yield job
    await job.session.close()


async def rules(world: World, *rules: tuple[str, int], **changes: object) -> None:
    document = {"stock": {"rule": [{"sku": sku, "shards": shards} for sku, shards in rules]} | changes}
    async with world.pool.acquire() as connection:
        assert await live_settings.apply(connection, json.dumps(document), "test", None)


async def add(world: World, *skus: str, shards: int = 4) -> None:
    await asyncio.gather(*(stock.set_total(world.pool, sku, 100, shards, "test", None, None) for sku in skus))


async def with_shards(world: World, shards: int) -> int:
    return int(await world.value("select count(*) from stock_sku where shards = $1", shards))


async def test_pass_gives_each_sku_the_shards_of_its_rule_or_the_default(world: World, job: Job) -> None:
    await add(world, "A-1", "B-1", "sale\x1fA-1", "C-1")
    await rules(world, ("A-*", 9), ("B-*", 2), shards=3)
    await job.run_pass()
    rows = await world.pool.fetch("select sku, shards from stock_sku")
    assert {row["sku"]: row["shards"] for row in rows} == {"A-1": 9, "B-1": 2, "sale\x1fA-1": 9, "C-1": 3}
    assert await world.value("select sum(free) from stock_shard where sku = 'A-1'") == 100


async def test_pass_leaves_shards_that_were_given_by_command(world: World, job: Job) -> None:
    await add(world, "A-1", "A-2", "A-3")
    await stock.fix_shards(world.pool, "A-1")
    await stock.reshard(world.pool, "A-2", 6)
    await rules(world, ("A-*", 9))
    await job.run_pass()
    rows = await world.pool.fetch("select sku, shards from stock_sku order by sku")
    assert [row["shards"] for row in rows] == [4, 6, 9]


async def test_reshard_by_rule_of_what_was_fixed_meanwhile_changes_nothing(world: World, job: Job) -> None:
    await add(world, "A-1", "A-2")
    await stock.fix_shards(world.pool, "A-1")
    assert not await stock.reshard_by_rule(job.session, "A-1", 9)
    assert not await stock.reshard_by_rule(job.session, "A-2", 4)
    assert not await stock.reshard_by_rule(job.session, "A-3", 9)
    assert await with_shards(world, 9) == 0


async def test_passes_do_a_bounded_piece_each_until_all_is_done(world: World, job: Job) -> None:
    await add(world, *(f"A-{number}" for number in range(SKUS)))
    await rules(world, ("A-*", 2))
    done = []
    for _ in range(4):
        await job.run_pass()
        done.append(await with_shards(world, 2))
    assert done == [RESHARDED_MAX, 2 * RESHARDED_MAX, SKUS, SKUS]


async def test_pass_of_a_version_that_was_swept_waits_its_minute(world: World, job: Job) -> None:
    await rules(world, ("A-*", 9))
    await job.run_pass()
    await add(world, "A-1")
    await job.run_pass()
    assert await with_shards(world, 9) == 0
    job.at_s += SWEEP_EVERY_S
    await job.run_pass()
    assert await with_shards(world, 9) == 1


async def test_pass_of_a_new_version_comes_at_once(world: World, job: Job) -> None:
    await add(world, "A-1")
    await rules(world, ("A-*", 9))
    await job.run_pass()
    await rules(world, ("A-*", 8))
    await job.run_pass()
    assert await with_shards(world, 8) == 1


async def test_pass_before_any_version_changes_nothing(world: World, job: Job) -> None:
    await add(world, "A-1", shards=7)
    await job.run_pass()
    assert await with_shards(world, 7) == 1


async def test_pass_while_the_newest_version_cannot_be_applied_changes_nothing(world: World, job: Job) -> None:
    await rules(world, ("A-*", 9))
    await job.run_pass()
    await rules(world, ("A-*", 9), colour="blue")
    await add(world, "A-1")
    job.at_s += SWEEP_EVERY_S
    await job.run_pass()
    assert job.live.fault
    assert await with_shards(world, 4) == 1


async def test_stewards_reshard_under_orders_and_every_unit_is_sold(world: World) -> None:
    await world.product(units=60)
    shops = [await world.shop(), await world.shop()]
    for _ in range(2):
        world.steward()

    async def buy(number: int) -> None:
        if number % 10 == 5:
            await rules(world, (SKU, number))
        order_id_of(await shops[number % 2].buy(f"k-{number}"))

    for start in range(0, 60, 6):
        await asyncio.gather(*(buy(number) for number in range(start, start + 6)))

    async def is_resharded() -> bool:
        return await with_shards(world, 55) == 1

    await eventually("the stewards follow the last rule", is_resharded)
    assert await world.count("orders") == 60
    assert await world.value("select sum(free) from stock_shard where sku = $1", SKU) == 0
