"""A steward: the product's own jobs for the dead, the relay, the sweep of the mirror and the expiry of unpaid orders,
each in its own loop.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from core_ext import documents
from gateway.steward import EXPIRE_EVERY_S, RELAY_EVERY_S, SWEEP_EVERY_S, Steward
from gateway.steward.expiry import Expiry
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
        return await _plain_events(connection, [change for batch in pending for change in batch.changes])


class PlainExpiry(Expiry):
    """The same of what tells of orders that have expired."""

    async def _events(self, connection: Any, some: Any) -> list[Event]:
        return await _plain_events(connection, [change for one in some for change in one.expired.orders])


async def _plain_events(connection: Any, changes: Sequence[tuple[bytes, int]]) -> list[Event]:
    await connection.fetch("select orders", [order_id for order_id, _ in changes])
    return [Event("orders.changed.app.00", documents.event_id(*change), b"{}") for change in changes]


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
        names = ("relay", "bury", "sweep", "expiry", "expired_events")
        self._sessions = {name: Session("", f"fg-steward-{name}", COMMAND_S) for name in names}
        stream = SimulatedStream(world.nats, "relay_publish")
        self._relay = PlainRelay(self._sessions["relay"], stream, "/floodgate/simulated", 0.5)
        self._mirror = SimulatedMirror(world.redis)
        self._expiry = PlainExpiry(
            self._sessions["expiry"],
            self._sessions["expired_events"],
            SimulatedStream(world.nats, "expire_publish"),
            self._mirror,
            "/floodgate/simulated",
            "boot",
        )
        self._expires = world.expires
        self._owner_timeout_s = OWNER_S
        self._unbroken_since = None
        self.metrics: Any = Numbers()

    def start(self, tasks: Tasks) -> None:
        jobs = [
            ("relay", self._relay.drain, RELAY_EVERY_S),
            ("bury", self._bury, OWNER_S / 4),
            ("sweep", self._sweep, SWEEP_EVERY_S),
        ]
        if self._expires:  # Elsewhere nothing is due for longer than the world stands.
            jobs.append(("expiry", self._expiry.run_pass, 2 * EXPIRE_EVERY_S))
            tasks.loop("expired_events", self._expiry.tell)
        for name, job, every_s in jobs:
            tasks.loop(name, lambda name=name, job=job, every_s=every_s: self._every(name, job, every_s))  # type: ignore[misc]


class StewardProcess:
    """One process, until it crashes."""

    def __init__(self, world: "World", name: str) -> None:
        self.process = Process(name)
        self.tasks = Tasks()
        self.process.context.run(PlainSteward(world).start, self.tasks)
