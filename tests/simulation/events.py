"""What befalls a world whatever it does just then: a server is away for a while, a network is cut, a process crashes,
is stopped or leaves, a clock steps, a setting changes.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.faults import EVENTS
from tests.simulation.worker import Worker

if TYPE_CHECKING:
    from tests.simulation.world import World

Happening = Callable[["World", Worker, float], None]


def _postgres_down(world: "World", _: Worker, span_s: float) -> None:
    world.postgres.crash(span_s)
    if world.draw() < 0.5:  # What is bad becomes worse.
        worse = world.random.choice(("crash", "stop"))
        world.later(span_s * world.draw(), lambda: world.happen(worse))


def _postgres_slow(world: "World", _: Worker, span_s: float) -> None:
    world.postgres.slow = world.random.choice((20.0, 100.0))
    world.later(span_s, lambda: setattr(world.postgres, "slow", 1.0))


def _cut(world: "World", worker: Worker, span_s: float) -> None:
    process = world.random.choice([worker.process, worker.process, world.stewards[0].process])
    process.cut_until_s = world.loop.now + span_s
    world.later(span_s, lambda: setattr(process, "cut_until_s", 0.0))


def _redis_down(world: "World", _: Worker, span_s: float) -> None:
    world.redis.remember()
    world.redis.is_up = False

    def come_back() -> None:
        world.redis.is_up = True
        world.redis.go_back()  # A failover to who has not heard the latest.

    world.later(span_s, come_back)


def _nats_down(world: "World", _: Worker, span_s: float) -> None:
    world.nats.is_up = False
    world.later(span_s, lambda: setattr(world.nats, "is_up", True))


def _power(world: "World", _: Worker, __: float) -> None:
    """The host with its workers is gone at once."""
    for worker in world.workers:
        world.crash(worker.process)


def _crash(world: "World", worker: Worker, _: float) -> None:
    world.crash(worker.process)


def _stop(world: "World", worker: Worker, _: float) -> None:
    world.stop(worker.process)


def _leave(world: "World", worker: Worker, span_s: float) -> None:
    worker.leave()
    world.later(span_s + 2.0, lambda: world.crash(worker.process))


def _step(world: "World", worker: Worker, _: float) -> None:
    worker.process.wall_step_s = world.random.choice((-3600.0, -2.0, 2.0, 3600.0))


def _step_ledger(world: "World", _: Worker, __: float) -> None:
    world.books.step(world.random.choice((-3.0, -1.0, 1.0, 3.0)))


def _mode(_: "World", worker: Worker, __: float) -> None:
    """Somebody changes the setting whether there is a journal; this worker hears of it now."""
    live = worker.live
    live.journal_mode = "reject" if live.journal_mode == "journal" else "journal"


HAPPENINGS: dict[str, Happening] = {
    "postgres_down": _postgres_down,
    "postgres_slow": _postgres_slow,
    "cut": _cut,
    "redis_down": _redis_down,
    "nats_down": _nats_down,
    "crash": _crash,
    "power": _power,
    "stop": _stop,
    "leave": _leave,
    "step": _step,
    "step_ledger": _step_ledger,
    "mode": _mode,
}
assert HAPPENINGS.keys() == set(EVENTS)
# An outage of the ledger is what most of the road is built for.
OFTEN = (*HAPPENINGS, "postgres_down", "postgres_down", "cut")
