"""Faults of a Redis Cluster: slots go from one node to another while they are used, and nodes die, but not both at
once: without replicas the nodes may then never agree again. Whoever asks meanwhile is told MOVED or ASK, or nothing.
"""

import random
from typing import NamedTuple

from redis.crc import key_slot

from bench.faults import mix
from bench.faults.cluster import ClusterNode, wait_whole
from bench.faults.faults import Fault, ServerEnded
from bench.faults.makers import Scene
from bench.faults.site import Site
from deploy.local.servers import HOST

SKUS = 4  # whose slots one fault moves
MIGRATE_MS = 1000


class Move(NamedTuple):
    """A slot on its way, with the key that stands in it."""

    slot: int
    key: bytes
    source: ClusterNode
    target: ClusterNode


def disturb(scene: Scene) -> Fault:
    """Slots move, or a node dies. Either begins with nodes that agree."""
    site, pick = scene.site, scene.pick
    wait_whole(site.nodes)
    return Resharded(site, pick) if pick.random() < 0.6 else ServerEnded(site, pick.choice(site.nodes).name)


class Resharded(Fault):
    """The slots of some SKUs are between two nodes, and then with another one, for good."""

    def __init__(self, site: Site, pick: random.Random) -> None:
        self._site = site
        self._pick = pick
        self._moves: list[Move] = []

    def inject(self) -> None:
        nodes = self._site.nodes
        for sku in self._pick.sample((mix.PLENTY, mix.LIMITED, *mix.MANY), SKUS):
            key = b"fg:{%b}" % sku.encode().hex().encode()
            slot = key_slot(key)
            source = next(node for node in nodes if node.owns(slot))
            target = self._pick.choice([node for node in nodes if node is not source])
            self._moves.append(Move(slot, key, source, target))
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name_in_cluster)
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name_in_cluster)

    def undo(self) -> None:
        for move in self._moves:
            self._finish(move)
        wait_whole(self._site.nodes)

    def _finish(self, move: Move) -> None:
        """Its key goes over while others ask for it, then the slot. A node that imports it takes it with a new epoch,
        and what the former owner says counts no more.
        """
        migrate = ("MIGRATE", HOST, move.target.port, move.key, 0, MIGRATE_MS, "REPLACE", "AUTH", move.target.secret)
        move.source.ask(*migrate)
        owner = move.target.name_in_cluster
        for node in (move.target, move.source, *(one for one in self._site.nodes if one not in move[2:])):
            node.ask("CLUSTER", "SETSLOT", move.slot, "NODE", owner)
