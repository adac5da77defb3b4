"""A Redis Cluster of three Valkey nodes out of the wheel: started once per session when first asked for, empty for each
test. A test that kills a node starts it again.

No replicas: what a node has is away with it, and the others go on (`cluster-require-full-coverage no`).
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from deploy.local.ports import pick_free
from deploy.local.process import stop_together
from deploy.local.servers import HOST, ValkeyServer

NODES = 3
SLOTS = 16384
NODE_TIMEOUT_MS = 2000
FORMED_TIMEOUT_S = 60.0
LOOK_AGAIN_S = 0.05


class ClusterNode(ValkeyServer):
    """Keeps its part of the cluster over a restart: nodes.conf stays in its folder, and its ports are its own."""

    def __init__(self, directory: Path, *, secret: str = "") -> None:
        super().__init__(directory, secret=secret)
        self.bus_port = pick_free()

    def prepare(self) -> None:
        super().prepare()
        lines = [
            "cluster-enabled yes",
            f"cluster-port {self.bus_port}",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-require-full-coverage no",
        ]
        with (self.directory / "valkey.conf").open("a") as configuration:
            configuration.write("\n".join(lines) + "\n")

    def ask(self, *command: str | int) -> object:
        with Redis.from_url(self.url) as client:
            return client.execute_command(*command)

    def sees_all(self) -> bool:
        """Whether it knows every node, and all slots as served."""
        try:
            info = self.ask("CLUSTER", "INFO")
        except RedisError:
            return False
        assert isinstance(info, bytes)
        wanted = f"cluster_state:ok cluster_known_nodes:{NODES} cluster_slots_ok:{SLOTS}".encode().split()
        return set(wanted) <= set(info.split())


class RedisCluster:
    """`url` leads to the first node."""

    def __init__(self, directory: Path) -> None:
        first = ClusterNode(directory / "node-0")
        others = [ClusterNode(directory / f"node-{number}", secret=first.secret) for number in range(1, NODES)]
        self.nodes = [first, *others]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()
        bounds = [SLOTS * number // NODES for number in range(NODES + 1)]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node.ask("CLUSTER", "MEET", HOST, self.nodes[0].port, self.nodes[0].bus_port)
        self.wait_formed()

    def wait_formed(self) -> None:
        """Until every node sees every other and all slots served."""
        deadline = time.monotonic() + FORMED_TIMEOUT_S
        while not all(node.sees_all() for node in self.nodes):
            assert time.monotonic() < deadline, "the cluster did not form in time"
            time.sleep(LOOK_AGAIN_S)

    def stop(self) -> None:
        stop_together(self.nodes)
        for node in self.nodes:
            node.remove()


@pytest.fixture(scope="session")
def redis_cluster_servers(servers_folder: Path) -> Iterator[RedisCluster]:
    cluster = RedisCluster(servers_folder / "redis-cluster")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def redis_cluster(redis_cluster_servers: RedisCluster) -> Iterator[RedisCluster]:
    """All nodes up before and after the test, and empty."""
    yield redis_cluster_servers
    redis_cluster_servers.wait_formed()
    for node in redis_cluster_servers.nodes:
        node.ask("FLUSHALL")


@pytest.fixture
def redis_cluster_url(redis_cluster: RedisCluster) -> str:
    return redis_cluster.url
