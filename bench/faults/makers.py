"""How each row makes its next fault: which victim, which moment. Choices come from the row's own seeded generator."""

import random
import signal
from typing import NamedTuple

from bench.faults import wire
from bench.faults.away import Swallowed
from bench.faults.clocks import Clocks
from bench.faults.crowds import Client
from bench.faults.faults import (
    Asked,
    Crossed,
    Crowd,
    Fault,
    Held,
    MissedError,
    Ruled,
    ServerEnded,
    Signalled,
    Together,
    Trapped,
    owner_of_port,
)
from bench.faults.proxy import Rule, Sprung, Trap, Way
from bench.faults.site import ALL_WORKERS, STEWARD, Site

COPY_BYTES_MAX = 4096  # behind the beginning of a COPY: the rows of a few orders
SWALLOWED_SHARE = 0.2  # each is waited for until the backend is ended: 10 s
TABLES = ("orders", "order_lines", "stock_lease", "idempotency_key", "outbox", "batch", "buyer_taken")
COMMITTED = rb"C\x00\x00\x00\x0bCOMMIT\x00"
_REFUSE = """
create or replace function no_partition() returns trigger language plpgsql as
    $$ begin raise exception 'no partition of relation "%" found for row', tg_table_name
    using errcode = '23514'; end $$;
create trigger no_partition before insert on {} for each row execute function no_partition();
select 1
"""
_REFUSE_NO_MORE = "drop trigger if exists no_partition on {}"
_MIDDLE = "select lease_id from stock_lease where state = 'active' order by lease_id offset {} limit 1"
_LEASES = "select lease_id from stock_lease where state = 'active' and lease_id {} '{}' order by lease_id for update"


class Scene(NamedTuple):
    """What a row breaks: the site; choices; a client of its own beside the buyers."""

    site: Site
    pick: random.Random
    client: Client


def one_worker(scene: Scene, number: signal.Signals) -> Fault:
    """One of two that work: what dies again and again is started later and later, and would be away by itself."""
    scene.site.until(scene.site.has_all_workers, ALL_WORKERS)
    workers = scene.site.workers()
    return Signalled(scene.site, number, [scene.pick.choice(workers)] if workers else [])


def kill_in_commit(scene: Scene) -> Fault:
    """The bytes of COMMIT stand at the proxy, or its answer does; the worker that waits for it is killed."""

    def kill(sprung: Sprung) -> None:
        worker = owner_of_port(sprung.client_port, scene.site.workers())
        if worker is None:
            raise MissedError
        Signalled(scene.site, signal.SIGKILL, [worker]).inject()

    scene.site.until(scene.site.has_all_workers, ALL_WORKERS)
    before = Trap(wire.COMMIT.request, "hold")
    after = Trap(COMMITTED, "hold", "replies")
    return Trapped(scene.site, "worker-postgres", scene.pick.choice([before, after]), kill)


def terminate_in_copy(scene: Scene) -> Fault:
    """The backend of a batch whose rows are half there is ended."""

    def terminate(sprung: Sprung) -> None:
        scene.site.query(
            f"select pg_terminate_backend(pid) from pg_stat_activity where client_port = {sprung.server_port}"  # noqa: S608 - a number
        )
        scene.site.links.release("worker-postgres")

    trap = Trap(wire.COPY_DATA.request, "hold", after_bytes=scene.pick.randrange(COPY_BYTES_MAX))
    return Trapped(scene.site, "worker-postgres", trap, terminate)


def cut_in_copy(scene: Scene) -> Fault:
    trap = Trap(wire.COPY_DATA.request, "reset", after_bytes=scene.pick.randrange(COPY_BYTES_MAX))
    return Trapped(scene.site, "worker-postgres", trap)


def lose(scene: Scene, link: str, message: wire.Message) -> Fault:
    """The answer to the next such message is lost, and the connection with it."""
    return Trapped(scene.site, link, Trap(message.request, "lose", end=message.reply))


def hole(scene: Scene, link: str) -> Fault:
    """Nothing passes, one way or both; afterwards what was held arrives, or the connections are gone."""
    ways: list[tuple[Way, ...]] = [("requests", "replies"), ("replies",), ("requests",)]
    return Ruled(scene.site, [link], Rule(hold=scene.pick.choice(ways)), cut=scene.pick.random() < 0.5)


def hole_of_ledger(scene: Scene) -> Fault:
    """All links of the workers, or one connection of theirs in the middle of a COPY."""
    if scene.pick.random() < SWALLOWED_SHARE:
        return Swallowed(scene.site, scene.pick.randrange(COPY_BYTES_MAX))
    return hole(scene, "worker-postgres")


def storm(scene: Scene) -> Fault:
    """A table is locked against everybody, or strangers have every connection."""
    if scene.pick.random() < 0.3:
        return Crowd(scene.site)
    return Held(scene.site, f"lock table {scene.pick.choice(TABLES)} in access exclusive mode")


def missing_partition(scene: Scene) -> Fault:
    """Rows are refused in the words of PostgreSQL; a partition that is detached would hide the orders in it, too."""
    table = scene.pick.choice(["orders", "order_lines", "order_history", "batch"])
    return Asked(scene.site, _REFUSE.format(table), _REFUSE_NO_MORE.format(table))


def deadlock(scene: Scene) -> Fault:
    """A stranger locks the upper half of the leases, and then the lower one, in which a batch holds what it needs."""
    leases = int(scene.site.query("select count(*) from stock_lease where state = 'active'"))
    if not leases:
        raise MissedError
    middle = scene.site.query(_MIDDLE.format(leases // 2))
    upper, lower = _LEASES.format(">=", middle), _LEASES.format("<", middle)
    return Crossed(scene.site, upper, "select pg_sleep(0.3)", lower)


def kill_relay(scene: Scene) -> Fault:
    """Workers cannot publish, so the relay does; it dies when the stream has stored its events and before the ledger
    hears of it.
    """

    def kill(_: Sprung) -> None:
        scene.site.process(STEWARD).kill()

    trap = Trap(wire.EVENT.reply, "freeze", "replies", other="steward-postgres")
    away = Ruled(scene.site, ["worker-nats"], Rule(refuse=True))
    return Together(away, Trapped(scene.site, "steward-nats", trap, kill))


def late_events(scene: Scene) -> Fault:
    """Events are stored without their ack, and then the stream is away for longer than it knows their ids."""
    return Together(lose(scene, "worker-nats", wire.EVENT), ServerEnded(scene.site, "nats"))


def slow_or_hole(scene: Scene, link: str) -> Fault:
    if scene.pick.random() < 0.5:
        return Ruled(scene.site, [link], Rule(latency_s=2.0), cut=True)
    return hole(scene, link)


def step(scene: Scene) -> Fault:
    """The clock of PostgreSQL, of the gateway, or of the steward, or of several, by an hour or a second, either way."""
    assert scene.site.clocks is not None
    names = scene.pick.choice([("postgres",), ("serve",), ("steward",), ("postgres", "serve", "steward")])
    return Stepped(scene.site.clocks, names, scene.pick.choice([-3600, 3600, -2, 2]))


class Stepped(Fault):
    """Some clocks are off by so many seconds."""

    def __init__(self, clocks: Clocks, names: tuple[str, ...], seconds: int) -> None:
        self._clocks = clocks
        self._names = names
        self._seconds = seconds

    def inject(self) -> None:
        for name in self._names:
            self._clocks.step(name, self._seconds)

    def undo(self) -> None:
        for name in self._names:
            self._clocks.step(name, 0)
