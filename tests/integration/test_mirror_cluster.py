"""The mirror on a Redis Cluster: SKUs spread over the nodes, nodes that fail, slots that move, and the bell."""

import asyncio

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from persistence.errors import MirrorUnavailableError
from persistence.redis.mirror import Mirror, Pool, Ring, Shard
from tests.mirror_world import (
    NOW_MS,
    eventually,
    killed,
    listening,
    open_mirror,
    pool_of,
    silent,
    until_heard,
    until_pushed,
)
from tests.redis_cluster import NODES, SLOTS, ClusterNode, RedisCluster

SKUS = [f"sku-{number}" for number in range(60)]
SHARDS = [Shard(sku, 0, 5, 1) for sku in SKUS]
ALL = dict.fromkeys(SKUS, Pool(5, 1, None))
BRIEF_S = 0.25  # a time-out for a node that will not answer


@pytest.fixture
async def mirror(redis_cluster_url):
    async with open_mirror(redis_cluster_url) as mirror:
        yield mirror


def key_of(sku: str) -> str:
    return f"fg:{{{sku.encode().hex()}}}"


def skus_of(number: int) -> set[str]:
    """The SKUs whose slots the node with this number serves."""
    return {sku for sku in SKUS if key_slot(key_of(sku).encode()) * NODES // SLOTS == number}


async def until_read(mirror: Mirror, skus: set[str]) -> None:
    """Read until exactly these SKUs are there; their shards are told again meanwhile, since they age."""
    async with asyncio.timeout(30):
        while True:
            try:
                await mirror.push(SHARDS)
            except MirrorUnavailableError:
                pass
            else:
                assert skus == set(SKUS)
            try:
                if await mirror.read(SKUS, NOW_MS) == {sku: ALL[sku] for sku in skus}:
                    return
            except MirrorUnavailableError:
                pass
            await asyncio.sleep(0.02)


async def test_push_reaches_skus_on_every_node(mirror: Mirror, redis_cluster: RedisCluster):
    await mirror.push(SHARDS)
    assert await mirror.read(SKUS, NOW_MS) == ALL
    assert mirror.connected
    for number, node in enumerate(redis_cluster.nodes):
        keys = node.ask("KEYS", "*")
        assert isinstance(keys, list)
        assert keys
        assert {key.decode() for key in keys} == {key_of(sku) for sku in skus_of(number)}


async def test_push_is_kept_by_version_and_read_with_what_is_available(mirror: Mirror):
    await asyncio.gather(*(mirror.push([Shard(sku, 0, v, v) for sku in SKUS]) for v in range(1, 20)))
    await mirror.push_available(dict.fromkeys(SKUS, 30), NOW_MS)
    assert await mirror.read(SKUS, NOW_MS) == dict.fromkeys(SKUS, Pool(19, 19, 30))


async def test_any_node_is_an_address_of_the_cluster(redis_cluster: RedisCluster):
    for node in redis_cluster.nodes:
        async with open_mirror(node.url) as mirror:
            await mirror.push(SHARDS)
            assert await mirror.read(SKUS, NOW_MS) == ALL


@pytest.mark.parametrize("number", range(NODES))
async def test_node_that_is_killed_takes_its_own_skus_and_no_others(redis_cluster: RedisCluster, number: int):
    async with open_mirror(redis_cluster.url, 2.0) as mirror:
        await mirror.push(SHARDS)
        with killed(redis_cluster.nodes[number]):
            await until_read(mirror, set(SKUS) - skus_of(number))
            with pytest.raises(MirrorUnavailableError):
                await mirror.read(list(skus_of(number)), NOW_MS)
            assert not mirror.connected
        await until_read(mirror, set(SKUS))
        assert mirror.connected


async def test_node_that_hangs_takes_its_own_skus_and_no_others(redis_cluster: RedisCluster):
    async with open_mirror(redis_cluster.url, BRIEF_S) as mirror:
        await until_pushed(mirror, SHARDS)
        with silent(redis_cluster.nodes[0]):
            await until_read(mirror, set(SKUS) - skus_of(0))
        await until_read(mirror, set(SKUS))


async def test_slot_that_moves_is_followed(mirror: Mirror, redis_cluster: RedisCluster):
    sku = min(skus_of(0))
    slot = key_slot(key_of(sku).encode())
    await mirror.push([Shard(sku, 0, 5, 1)])
    home, other = redis_cluster.nodes[0], redis_cluster.nodes[1]
    _move(redis_cluster, slot, other, key_of(sku))
    try:
        await until_pushed(mirror, [Shard(sku, 0, 4, 2)])
        assert await pool_of(mirror, sku) == Pool(4, 2, None)
    finally:
        _move(redis_cluster, slot, home, key_of(sku))


def _move(cluster: RedisCluster, slot: int, target: ClusterNode, key: str) -> None:
    """Give a slot to another node, without what is in it, as valkey-cli does. A node that has said it imports the slot
    takes it with a new epoch; otherwise what the old owner last told the others can take it back.
    """
    source = next(node for node in cluster.nodes if _owns(node, slot))
    source.ask("DEL", key)
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _id_of(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _id_of(target))
    for node in (target, *(node for node in cluster.nodes if node is not target)):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", _id_of(target))


def _id_of(node: ClusterNode) -> str:
    name = node.ask("CLUSTER", "MYID")
    assert isinstance(name, bytes)
    return name.decode()


def _owns(node: ClusterNode, slot: int) -> bool:
    shards = node.ask("CLUSTER", "SLOTS")
    assert isinstance(shards, list)
    return any(first <= slot <= last and main[2].decode() == _id_of(node) for first, last, main, *_ in shards)


async def test_flush_of_the_scripts_is_not_noticed(mirror: Mirror, redis_cluster: RedisCluster):
    await mirror.push(SHARDS)
    for node in redis_cluster.nodes:
        node.ask("SCRIPT", "FLUSH")
    await mirror.push([Shard(sku, 0, 4, 2) for sku in SKUS])
    assert await mirror.read(SKUS, NOW_MS) == dict.fromkeys(SKUS, Pool(4, 2, None))


async def test_ring_is_heard_whichever_node_publishes(mirror: Mirror, redis_cluster: RedisCluster):
    async with listening(mirror) as heard:
        for number, node in enumerate(redis_cluster.nodes):
            async with Redis.from_url(node.url) as redis:
                await redis.publish("fg:bell", f'["wanted","{number}"]')
        await eventually("all three are heard", lambda: {ring.sku for ring in heard} == {"0", "1", "2"})


async def test_ring_and_listen_go_on_when_the_node_they_use_is_killed(redis_cluster: RedisCluster):
    url = redis_cluster.url
    async with open_mirror(url) as caller, open_mirror(url) as mirror, listening(mirror) as heard:
        await until_heard(caller, heard, Ring("wanted", "before"))
        with killed(redis_cluster.nodes[0]):
            await until_heard(caller, heard, Ring("wanted", "during"))
        await until_heard(caller, heard, Ring("wanted", "after"))


async def test_listen_leaves_a_node_that_hangs(redis_cluster: RedisCluster):
    url = redis_cluster.url
    async with open_mirror(url, BRIEF_S) as caller, open_mirror(url, BRIEF_S) as mirror, listening(mirror) as heard:
        await until_heard(caller, heard, Ring("wanted", "before"))
        with silent(redis_cluster.nodes[0]):
            await until_heard(caller, heard, Ring("wanted", "during"))
