"""A Redis Cluster of three Valkey nodes out of the wheel: started once per session when first asked for, empty for each
test. A test that kills a node starts it again.

No replicas: what a node has is away with it, and the others go on (`cluster-require-full-coverage no`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.faults.cluster import NODES, SLOTS, ClusterNode, form, wait_whole
from deploy.local.process import stop_together

__all__ = ["NODES", "SLOTS", "ClusterNode", "RedisCluster"]


class RedisCluster:
    """`url` leads to the first node."""

    def __init__(self, directory: Path) -> None:
        self.nodes: list[ClusterNode] = []
        for number in range(NODES):
            secret = self.nodes[0].secret if self.nodes else ""
            self.nodes.append(ClusterNode(directory / f"node-{number}", secret=secret))

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()
        form(self.nodes)

    def wait_formed(self) -> None:
        """Until every node sees every other and all slots served."""
        wait_whole(self.nodes)

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
