"""A NATS that is asked through the interface of `persistence.nats.stream.Stream`: it stores events, knows the ids of a
while, refuses a whole atomic batch for one that it knows, loses acks and is away.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from persistence.errors import StreamUnavailableError
from persistence.nats.stream import NAME, Event, Stream
from tests.simulation.guards import GUARDS

if TYPE_CHECKING:
    from tests.simulation.world import World

ACK_TIMEOUT_S = 0.5
DUPLICATE_WINDOW_S = 3.0


class Nats:
    """The server. `stored` counts how often each event id lies in the stream; `windows` when it was last seen."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.is_up = True
        self.stored: Counter[str] = Counter()
        self.refused_batches = 0
        self._seen_at_s: dict[str, float] = {}

    def knows(self, event_id: str) -> bool:
        """By the id that the event is sent with."""
        return GUARDS.event_id and self._has_seen(event_id)

    def _has_seen(self, event_id: str) -> bool:
        return self.world.loop.now - self._seen_at_s.get(event_id, -1e9) < DUPLICATE_WINDOW_S

    def store(self, events: Sequence[Event]) -> None:
        for event in events:
            if self._has_seen(event.id):
                self.world.fail(f"I5: the event {event.id} is stored twice within the window of duplicates")
            self._seen_at_s[event.id] = self.world.loop.now
            self.stored[event.id] += 1
            self.world.told(event.id)


class SimulatedStream(Stream):
    """A process's client. None of the real one's connections is made."""

    def __init__(self, nats: Nats, step: str) -> None:
        self._nats = nats
        self._step = step

    @property
    def connected(self) -> bool:
        return self._nats.is_up

    async def close(self) -> None:
        pass

    async def publish(self, events: Sequence[Event], stream: str = NAME) -> int:
        assert stream == NAME
        assert events
        world, nats = self._nats.world, self._nats
        await asyncio.sleep(0.0003 + 0.002 * world.draw())
        fault = world.faults.draw(self._step)
        if fault == "crash_before":
            await world.crash_here()
        elif fault == "stop_before":
            await world.stop_here()
        elif fault == "lost_before" or not nats.is_up:
            await asyncio.sleep(ACK_TIMEOUT_S if world.draw() < 0.5 else 0.0)
            raise StreamUnavailableError("NATS cannot be reached")
        known = [event for event in events if nats.knows(event.id)]
        nats.refused_batches += bool(known) and len(events) > 1
        new = [event for event in events if not nats.knows(event.id)]
        if fault == "lost_half":
            new = new[: len(new) // 2]
        nats.store(new)
        if fault == "crash_after":
            await world.crash_here()
        elif fault is not None and fault.startswith("lost"):
            await asyncio.sleep(ACK_TIMEOUT_S)
            raise StreamUnavailableError("the stream did not acknowledge in time")
        await asyncio.sleep(0.0002)
        return len(known)
