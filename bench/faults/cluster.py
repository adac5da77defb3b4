"""A Redis Cluster of the system under fault: three nodes without replicas. What a node has is away with it, and the
others go on; it keeps its part of the cluster over a restart.

Nodes tell clients the ports of their links, so that every byte goes through a proxy, and each other their own.
"""

import time
from collections.abc import Sequence
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from bench.failure import ScenarioError
from deploy.local.ports import pick_free
from deploy.local.servers import HOST, ValkeyServer

NODES = 3
SLOTS = 16384
NODE_TIMEOUT_MS = 1000
FORMED_S = 60.0
LOOK_AGAIN_S = 0.05


class ClusterNode(ValkeyServer):
    """`announced` is the port that clients are told; set before the start."""

    def __init__(self, directory: Path, *, secret: str = "", log_path: Path | None = None) -> None:
        super().__init__(directory, secret=secret, log_path=log_path)
        self.announced = self.port
        self.bus_port = pick_free()

    def prepare(self) -> None:
        super().prepare()
        lines = [
            "cluster-enabled yes",
            f"cluster-port {self.bus_port}",
            f"cluster-announce-port {self.announced}",
            f"cluster-node-timeout {NODE_TIMEOUT_MS}",
            "cluster-require-full-coverage no",
        ]
        with (self.directory / "valkey.conf").open("a") as configuration:
            configuration.write("\n".join(lines) + "\n")

    def ask(self, *command: str | bytes | int) -> object:
        """What the node itself says. Raises ScenarioError."""
        try:
            with Redis.from_url(self.url) as client:
                return client.execute_command(*command)
        except RedisError as error:
            raise ScenarioError(f"a node of the cluster: {error}") from error

    @property
    def name_in_cluster(self) -> str:
        name = self.ask("CLUSTER", "MYID")
        assert isinstance(name, bytes)
        return name.decode()

    def owns(self, slot: int) -> bool:
        """Whether it takes itself for the owner of the slot."""
        own = self.name_in_cluster
        return any(first <= slot <= last and name == own for first, last, name in self.owners())

    def owners(self) -> frozenset[tuple[int, int, str]]:
        """Slots, the last included, and the name of the node that serves them, as this one believes."""
        ranges = self.ask("CLUSTER", "SLOTS")
        assert isinstance(ranges, list)
        return frozenset((first, last, main[2].decode()) for first, last, main, *_ in ranges)

    def sees_all(self) -> bool:
        """Whether it knows every node, and all slots as served."""
        try:
            info = self.ask("CLUSTER", "INFO")
        except ScenarioError:
            return False
        assert isinstance(info, bytes)
        wanted = f"cluster_state:ok cluster_known_nodes:{NODES} cluster_slots_ok:{SLOTS}".encode().split()
        return set(wanted) <= set(info.split())


def form(nodes: Sequence[ClusterNode]) -> None:
    """Make a cluster of nodes that have just been started. Raises ScenarioError."""
    bounds = [SLOTS * number // NODES for number in range(NODES + 1)]
    for node, first, end in zip(nodes, bounds, bounds[1:], strict=False):
        node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        node.ask("CLUSTER", "MEET", HOST, nodes[0].port, nodes[0].bus_port)
    wait_whole(nodes)


def wait_whole(nodes: Sequence[ClusterNode]) -> None:
    """Until every node sees every other and all slots served, and they agree by whom. Raises ScenarioError."""
    deadline = time.monotonic() + FORMED_S
    while not (all(node.sees_all() for node in nodes) and len({node.owners() for node in nodes}) == 1):
        if time.monotonic() > deadline:
            raise ScenarioError(f"the cluster of Redis was not whole within {FORMED_S:.0f} s")
        time.sleep(LOOK_AGAIN_S)
