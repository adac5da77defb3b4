"""A Redis server that has become a replica, and slots that are on their way to another node: what cannot be had says
so, and works again by itself once that is over. Nothing is sent twice, and nobody else notices.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from deploy.local.servers import ValkeyServer
from persistence.errors import MirrorUnavailableError
from persistence.redis.mirror import Mirror, Pool, Shard
from persistence.redis.rates import PREFIX, Charge, RateStore
from tests.cut_proxy import open_proxy
from tests.mirror_world import LOOK_AGAIN_S, NOW_MS, PATIENT_S, WAIT_S, open_mirror, pool_of, until_pushed
from tests.redis_cluster import ClusterNode, RedisCluster

SKU = "85123A"
OTHERS = [f"sku-{number}" for number in range(40)]
METERS = [bytes([number]) * 16 for number in range(4)]
SECOND_US = 1_000_000


@pytest.fixture
async def mirror(redis_cluster_url: str) -> AsyncIterator[Mirror]:
    async with open_mirror(redis_cluster_url) as mirror:
        yield mirror


def slot_of(sku: str) -> int:
    return int(key_slot(f"fg:{{{sku.encode().hex()}}}".encode()))


class Moving:
    """A slot between two nodes."""

    def __init__(self, cluster: RedisCluster, slot: int) -> None:
        self._nodes = cluster.nodes
        self._slot = slot
        (self.source,) = (node for node in cluster.nodes if self._is_served_by(node))
        self.target = cluster.nodes[cluster.nodes.index(self.source) - 1]

    def begin(self) -> None:
        self.target.ask("CLUSTER", "SETSLOT", self._slot, "IMPORTING", _id_of(self.source))
        self.source.ask("CLUSTER", "SETSLOT", self._slot, "MIGRATING", _id_of(self.target))

    def end(self) -> None:
        """What was in it is lost. The target first: it takes the slot with a new epoch, which counts."""
        for key in _list(self.source.ask("CLUSTER", "GETKEYSINSLOT", self._slot, 1000)):
            self.source.ask("DEL", key)
        for node in (self.target, *(node for node in self._nodes if node is not self.target)):
            node.ask("CLUSTER", "SETSLOT", self._slot, "NODE", _id_of(self.target))

    def go_back(self) -> None:
        self.source, self.target = self.target, self.source
        self.begin()
        self.end()

    def _is_served_by(self, node: ClusterNode) -> bool:
        ranges = _list(node.ask("CLUSTER", "SLOTS"))
        return any(first <= self._slot <= last and main[2].decode() == _id_of(node) for first, last, main, *_ in ranges)


@contextmanager
def moving(cluster: RedisCluster, slot: int) -> Iterator[Moving]:
    """The slot is on its way when the block begins, and where it was when the block has ended."""
    move = Moving(cluster, slot)
    move.begin()
    try:
        yield move
    finally:
        move.end()
        move.go_back()


def _id_of(node: ClusterNode) -> str:
    name = node.ask("CLUSTER", "MYID")
    assert isinstance(name, bytes)
    return name.decode()


def _list(reply: object) -> list[Any]:
    assert isinstance(reply, list)
    return reply


@pytest.fixture
def successor(valkey_server: ValkeyServer, servers_folder: Path) -> Iterator[ValkeyServer]:
    """Another server, which the same secret opens."""
    server = ValkeyServer(servers_folder / "successor", secret=valkey_server.secret)
    server.start()
    server.wait_ready()
    yield server
    server.stop()
    server.remove()


async def test_server_that_has_become_a_replica_is_left_for_the_one_that_has_its_address_now(
    redis_url: str, successor: ValkeyServer
) -> None:
    """The old one keeps its connections, and refuses what is told over them."""
    async with open_proxy(redis_url) as proxy, open_mirror(proxy.url) as mirror, Redis.from_url(redis_url) as redis:
        await mirror.push([Shard(SKU, 0, 5, 1)])
        await redis.replicaof("127.0.0.1", str(successor.port))
        try:
            proxy._target = ("127.0.0.1", successor.port)
            with pytest.raises(MirrorUnavailableError):
                await mirror.push([Shard(SKU, 0, 3, 2)])
            await until_pushed(mirror, [Shard(SKU, 0, 2, 3)])
            assert await pool_of(mirror, SKU) == Pool(2, 3, None)
        finally:
            await redis.replicaof("NO", "ONE")


async def test_sku_whose_slot_is_on_its_way_is_unavailable_alone_until_it_has_arrived(
    mirror: Mirror, redis_cluster: RedisCluster
) -> None:
    others = [sku for sku in OTHERS if slot_of(sku) != slot_of(SKU)]
    shards = [Shard(sku, 0, 5, 1) for sku in others]
    await mirror.push(shards)
    with moving(redis_cluster, slot_of(SKU)) as move:
        with pytest.raises(MirrorUnavailableError):  # ASK: the key is not there yet, or not there any more.
            await mirror.push([Shard(SKU, 0, 5, 1), *shards])
        assert await mirror.read([SKU, *others], NOW_MS) == dict.fromkeys(others, Pool(5, 1, None))
        move.end()
        await until_pushed(mirror, [Shard(SKU, 0, 4, 2)])
        assert await pool_of(mirror, SKU) == Pool(4, 2, None)
    await until_pushed(mirror, [Shard(SKU, 0, 3, 3)])


async def test_charges_whose_keys_are_half_on_their_way_are_unavailable_until_they_have_arrived(
    redis_cluster_url: str, redis_cluster: RedisCluster
) -> None:
    charges = [Charge(key, SECOND_US, 0, 10 * SECOND_US) for key in METERS]
    store = RateStore(redis_cluster_url, PATIENT_S)
    assert None not in await store.charge(charges)
    with moving(redis_cluster, key_slot(PREFIX)) as move:
        move.source.ask("DEL", PREFIX.decode() + METERS[0].hex())
        with pytest.raises(MirrorUnavailableError):  # TRYAGAIN
            await store.charge(charges)
        move.end()
        assert await charged(store, charges) == [SECOND_US] * len(METERS)
    assert await charged(store, charges) == [SECOND_US] * len(METERS)
    await store.aclose()


async def charged(store: RateStore, charges: list[Charge]) -> list[int | None]:
    """What is told once somebody serves the keys again."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await store.charge(charges)
            except MirrorUnavailableError:
                await asyncio.sleep(LOOK_AGAIN_S)
