"""The rows of the matrix: what is broken, how, and for how long. Numbers and names are those of the list of faults that
the promise was written against; those of payment callbacks (34, 35) come with them.
"""

import signal
from collections.abc import Callable
from typing import NamedTuple

from bench.faults import away, makers, slots, wire
from bench.faults.crowds import Forgotten, Slow, Vanished, hostile, stampede
from bench.faults.faults import Asked, Dismissed, Done, Fault, Killed, Replaced, ServerEnded, Traced
from bench.faults.makers import Scene
from bench.faults.power import PowerLost
from bench.faults.site import GATEWAY
from persistence.journal.file import DAMAGED, QUARANTINE

COMMITTERS = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'fg-commit:%'"
SWARM = (1, 7, 9, 11, 12, 14, 24, 26, 27, 29, 31)  # what row 40 draws from
SLOW_DISK = ("-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:delay_exit=200000")
SLOWNESS = ("bodies", "headers", "flood")


class Row(NamedTuple):
    """`make` gives the next fault; it is undone after `hold`: seconds, or the name of one of the site's times. The next
    one comes `gap_s` after orders flow again. `needs`: journal, strace. `mode` is that of the journal, where there is
    one. `rate` times as many orders are offered as in other rows. With `within_s` orders go on
    although the fault lasts: never are all silent for longer. `tries` of each injection: a moment that does not come is
    waited for again. `aside`: endings of the files that the fault may leave beside the journals.
    """

    number: int
    name: str
    how: str
    make: Callable[[Scene], Fault]
    hold: float | str = 0.0
    gap_s: tuple[float, float] = (0.3, 1.2)
    needs: tuple[str, ...] = ()
    mode: str = "journal"
    rate: float = 1.0
    within_s: float = 0.0
    tries: int = 4
    aside: tuple[str, ...] = ()


def swarm(scene: Scene) -> Fault:
    """A fault of any row of SWARM."""
    return BY_NUMBER[scene.pick.choice(SWARM)].make(scene)


ROWS = (
    Row(1, "worker kill -9 under load", "SIGKILL", lambda s: makers.one_worker(s, signal.SIGKILL)),
    Row(2, "kill -9 between COMMIT sent and ack", "a proxy holds COMMIT or its answer; SIGKILL", makers.kill_in_commit),
    Row(
        3,
        "kill -9 just before or after the journal's sync",
        "the ledger refuses; strace injects SIGKILL at the first to third sync",
        lambda s: away.KilledInSync(s.site, s.pick),
        needs=("journal", "strace"),
    ),
    Row(
        4,
        "worker stopped, leases recovered, goes on",
        "SIGSTOP, SIGCONT",
        lambda s: makers.one_worker(s, signal.SIGSTOP),
        "stop",
        mode="reject",
    ),
    Row(5, "all workers and their supervisor kill -9", "SIGKILL of the group", lambda s: Killed(s.site, GATEWAY)),
    Row(6, "SIGTERM in load", "SIGTERM", lambda s: Dismissed(s.site)),
    Row(7, "two live workers with one number", "SIGHUP", lambda s: Replaced(s.site)),
    Row(
        8,
        "PostgreSQL killed, and away",
        "SIGKILL or SIGQUIT of the postmaster",
        lambda s: ServerEnded(s.site, "postgres", s.pick.choice([signal.SIGKILL, signal.SIGQUIT])),
        "outage",
        needs=("journal",),
        within_s=1.0,
    ),
    Row(
        9,
        "PostgreSQL backend terminated in COPY",
        "a proxy holds COPY; pg_terminate_backend",
        lambda s: makers.terminate_in_copy(s) if s.pick.random() < 0.7 else Asked(s.site, COMMITTERS),
    ),
    Row(10, "reset during COPY", "a proxy cuts after N bytes", makers.cut_in_copy),
    Row(
        11,
        "reset after COMMIT",
        "a proxy drops the reply, and resets",
        lambda s: makers.lose(s, "worker-postgres", wire.COMMIT),
    ),
    Row(
        12,
        "PostgreSQL in a black hole, either way or both",
        "a proxy swallows all, or one connection in the middle of COPY",
        makers.hole_of_ledger,
        "hole",
    ),
    Row(
        13,
        "slow disk of PostgreSQL",
        "strace delays each sync by 200 ms",
        lambda s: Traced(s.site, s.site.backends(), *SLOW_DISK),
        "hole",
        needs=("strace",),
    ),
    Row(14, "lock storm; connections exhausted", "ACCESS EXCLUSIVE; every connection taken", makers.storm, "hole"),
    Row(15, "missing partition", "rows are refused as without one", makers.missing_partition, 1.0),
    Row(
        16,
        "poison rows in batches",
        "a proxy writes NUL into rows behind validation",
        lambda s: away.Poisoned(s.client),
        aside=(QUARANTINE,),
    ),
    Row(17, "deadlock between batches", "leases locked in the wrong order", makers.deadlock, rate=4.0, tries=16),
    Row(
        18,
        "journal's disk fails",
        "the ledger refuses; strace injects EIO into each sync",
        lambda s: away.FailedSync(s.site, s.pick),
        2.0,
        needs=("journal", "strace"),
    ),
    Row(
        19,
        "journal's disk is full",
        "the ledger refuses; the journals lie on a tmpfs of 2 MiB that is filled",
        lambda s: away.Filled(s.site),
        2.0,
        needs=("journal", "root"),
        mode="small",
    ),
    Row(
        20,
        "torn journals",
        "all workers die; half of the next record, or noise, behind what was synced",
        lambda s: away.Torn(s.site, s.pick),
        needs=("journal",),
    ),
    Row(
        21,
        "power loss",
        "the ledger refuses; everything dies; journals keep what strace saw synced, the servers what the kernel has",
        lambda s: PowerLost(s.site, s.pick),
        needs=("journal", "strace"),
        aside=(DAMAGED,),  # Of what was being written, a later piece may have come to the disk, and an earlier one not.
    ),
    Row(
        22,
        "journal replayed twice, by two workers",
        "all workers die; each journal is copied",
        lambda s: away.Twice(s.site),
        needs=("journal",),
    ),
    Row(
        23,
        "leases recovered before the journal is replayed",
        "all workers die; the ledger is back long before them",
        lambda s: away.Pinned(s.site),
        "stop",
        needs=("journal",),
    ),
    Row(
        24,
        "Redis kill -9, empty restart",
        "SIGKILL",
        lambda s: ServerEnded(s.site, "valkey"),
        1.0,
    ),
    Row(
        25,
        "Redis fails over without its last writes",
        "what it was told for 0.7 s is taken back, and everybody thrown out",
        lambda s: Forgotten(s.site),
    ),
    Row(
        26,
        "Redis reply lost",
        "a proxy drops the reply, and resets",
        lambda s: makers.lose(s, "worker-redis", wire.REDIS_COMMAND),
    ),
    Row(
        27,
        "Redis slow by 2 s, or in a black hole",
        "a proxy delays, or swallows",
        lambda s: makers.slow_or_hole(s, "worker-redis"),
        "hole",
    ),
    Row(
        28,
        "Redis Cluster: slots move, nodes die",
        "three nodes: MOVED and ASK, SIGKILL; commands have one key each, and so never hear TRYAGAIN",
        slots.disturb,
        1.0,
        mode="cluster",
    ),
    Row(29, "NATS kill -9", "SIGKILL", lambda s: ServerEnded(s.site, "nats"), 1.0),
    Row(
        30,
        "NATS away for longer than it knows ids",
        "an ack is lost, SIGKILL, and a start after the window",
        makers.late_events,
        "outage",
    ),
    Row(
        31,
        "NATS ack lost after the event was stored",
        "a proxy drops the ack, and resets",
        lambda s: makers.lose(s, "worker-nats", wire.EVENT),
    ),
    Row(
        32,
        "relay kill -9 between ack and mark",
        "workers cannot publish; a proxy freezes the ledger at the ack; SIGKILL",
        makers.kill_relay,
    ),
    Row(
        33,
        "clock steps of an hour, either way",
        "a library before theirs moves the wall clock of single processes",
        makers.step,
        1.5,
        needs=("cc",),
        mode="clock",
    ),
    Row(
        36,
        "one key 50 times at once; one key with another body",
        "clients",
        lambda s: Done(lambda: s.client.work(stampede)),
    ),
    Row(
        37, "clients reset in the middle of a request", "500 connections with SO_LINGER 0", lambda s: Vanished(s.client)
    ),
    Row(
        38,
        "slow bodies, slow headers, floods of connections",
        "200 or 600 connections",
        lambda s: Slow(s.client, s.pick.choice(SLOWNESS)),
    ),
    Row(
        39,
        "hostile bodies: nesting, bad UTF-8, numbers, NUL",
        "500 bodies",
        lambda s: Done(lambda: s.client.work(hostile)),
    ),
    Row(
        40,
        "overload, and a swarm of the other rows' faults",
        "5 times the orders; any of the rows " + ", ".join(map(str, SWARM)),
        swarm,
        0.5,
        rate=5.0,
    ),
)
BY_NUMBER = {row.number: row for row in ROWS}
