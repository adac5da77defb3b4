"""A steward: the product's own jobs for the dead, the relay and the sweep of the mirror, each in its own loop."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core_ext import documents
from gateway.steward import RELAY_EVERY_S, SWEEP_EVERY_S, Steward
from gateway.steward.relay import Relay
from gateway.tasks import Tasks
from persistence.nats.stream import Event
from persistence.postgres.session import Session
from tests.simulation.loop import Process
from tests.simulation.mirror import SimulatedMirror
from tests.simulation.parts import COMMAND_S, OWNER_S
from tests.simulation.stream import SimulatedStream

if TYPE_CHECKING:
    from tests.simulation.world import World


class PlainRelay(Relay):
    """Events are found and sent as ever; what stands in them is no part of the simulation."""

    async def _events(self, connection: Any, pending: Any) -> list[Event]:
        order_ids = [order_id for batch in pending for order_id, _ in batch.changes]
        await connection.fetch("select orders", order_ids)
        return [
            Event("orders.created.app.00", documents.event_id(order_id, version), b"{}")
            for batch in pending
            for order_id, version in batch.changes
        ]


class Numbers:
    """What a steward counts, without a page to show it on."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()

    @contextmanager
    def job(self, _: str) -> Iterator[None]:
        yield


class PlainSteward(Steward):
    """Of the real one, what is under test."""

    def __init__(self, world: "World") -> None:
        self._sessions = {name: Session("", f"fg-steward-{name}", COMMAND_S) for name in ("relay", "bury", "sweep")}
        stream = SimulatedStream(world.nats, "relay_publish")
        self._relay = PlainRelay(self._sessions["relay"], stream, "/floodgate/simulated", 0.5)
        self._mirror = SimulatedMirror(world.redis)
        self._owner_timeout_s = OWNER_S
        self._unbroken_since = None
        self.metrics: Any = Numbers()

    def start(self, tasks: Tasks) -> None:
        for name, job, every_s in (
            ("relay", self._relay.drain, RELAY_EVERY_S),
            ("bury", self._bury, OWNER_S / 4),
            ("sweep", self._sweep, SWEEP_EVERY_S),
        ):
            tasks.loop(name, lambda name=name, job=job, every_s=every_s: self._every(name, job, every_s))  # type: ignore[misc]


class StewardProcess:
    """One process, until it crashes."""

    def __init__(self, world: "World", name: str) -> None:
        self.process = Process(name)
        self.tasks = Tasks()
        self.process.context.run(PlainSteward(world).start, self.tasks)
