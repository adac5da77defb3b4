"""The sweep: whatever was lost on the way to the mirror, it soon says again what the ledger says."""

from collections.abc import AsyncIterator

import pytest

from gateway.steward.sweep import Sweep
from persistence.errors import MirrorUnavailableError
from persistence.postgres import stock
from persistence.redis.mirror import Mirror, Shard
from tests.ledger_world import World, open_world


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world


@pytest.fixture
async def mirror(redis_url: str) -> AsyncIterator[Mirror]:
    mirror = Mirror(redis_url)
    yield mirror
    await mirror.close()


async def free(mirror: Mirror, *skus: str) -> dict[str, int]:
    return {sku: pool.free for sku, pool in (await mirror.read(skus, 0)).items()}


async def test_sweep_tells_the_mirror_all_shards_of_every_sku_on_watch(
    world: World, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.steward.sweep.PIECE_SKUS", 2)
    for number in range(5):
        await world.stock(f"SKU-{number}", 10 + number, shards=3)
    await Sweep(world.control, mirror).run_pass()
    assert await free(mirror, *(f"SKU-{number}" for number in range(5))) == {
        f"SKU-{number}": 10 + number for number in range(5)
    }


async def test_sweep_after_a_lost_push_says_what_the_ledger_says(world: World, mirror: Mirror) -> None:
    await world.stock("TEA", 10, shards=2)
    sweep = Sweep(world.control, mirror)
    await sweep.run_pass()
    await world.take(await world.owner(), "TEA", 4)
    await sweep.run_pass()
    assert await free(mirror, "TEA") == {"TEA": 6}


async def test_sweep_of_an_old_reading_does_not_undo_a_later_push(world: World, mirror: Mirror) -> None:
    await world.stock("TEA", 10, shards=1)
    old = await world.control.run(lambda connection: stock.shards(connection, ["TEA"]))
    await world.take(await world.owner(), "TEA", 4)
    sweep = Sweep(world.control, mirror)
    await sweep.run_pass()
    await mirror.push([Shard(*shard) for shard in old])
    assert await free(mirror, "TEA") == {"TEA": 6}


async def test_sweep_without_a_mirror_says_so(world: World) -> None:
    mirror = Mirror("redis://127.0.0.1:1/0")
    await world.stock("TEA", 10)
    with pytest.raises(MirrorUnavailableError):
        await Sweep(world.control, mirror).run_pass()
    await mirror.close()
