"""The soak: hours of steady load, and one process that dies every minute. What counts is how many buyers noticed.

A request counts when it is the first for its order; it is right when it was answered within a second with what its
order has become. Retries are not counted.
"""

import random
import signal
import time
from collections.abc import Iterable
from functools import partial

from bench.faults import makers
from bench.faults.buyers import is_known
from bench.faults.crowds import Client
from bench.faults.faults import Fault, Killed, ServerEnded
from bench.faults.history import Entry
from bench.faults.load import Loading, ensure_scarce_goods
from bench.faults.makers import Scene
from bench.faults.record import Soak
from bench.faults.runner import Plan, Runner, await_recovery, entries_of, inject
from bench.faults.site import PROJECTOR, STEWARD, has_journal

EVERY_S = 60.0
RIGHT_S = 1.0
RUN = "soak"
DEAD_S = 0.5


def soak(runner: Runner, plan: Plan, seconds: int, every_s: float = EVERY_S) -> Soak:
    """Raises ScenarioError when orders do not come back after a fault."""
    site, checker = runner.ensure_site("journal")
    ensure_scarce_goods(site, RUN)
    pick = random.Random(plan.seed)  # noqa: S311 - faults are seeded
    loading = Loading(site, RUN, plan.seed, plan.rate, site.folder.logs)
    scene = Scene(site, pick, Client(site, RUN, plan.seed + 1, loading.beside))
    faults, ends_at = 0, time.monotonic() + seconds
    try:
        while (left_s := ends_at - time.monotonic()) > 0:
            time.sleep(min(every_s, left_s))
            if ends_at > time.monotonic():
                await_recovery(loading, inject(_fault(scene), partial(time.sleep, DEAD_S)))
                faults += 1
        loading.stop()
    except BaseException:
        loading.kill()
        raise
    entries = entries_of(loading)
    requests, right = first_requests(entries)
    return Soak(seconds, faults, requests, right / max(requests, 1), checker.check(RUN, entries))


def first_requests(entries: Iterable[Entry]) -> tuple[int, int]:
    """How many orders were asked for, and how many of those requests got their right answer in time."""
    announced: dict[str, float] = {}
    right = 0
    for entry in entries:
        if entry.kind != "order" or entry.attempt != 1:
            continue
        if entry.what == "invoke":
            announced[entry.key] = entry.at
        elif is_known(entry) and entry.at - announced[entry.key] <= RIGHT_S:
            right += 1
    return len(announced), right


def _fault(scene: Scene) -> Fault:
    """One process dies, or hears that it should."""
    site = scene.site
    kinds = ["worker", "valkey", "nats", "steward", "projector", "stopped"] + ["postgres"] * has_journal()
    kind = scene.pick.choice(kinds)
    if kind == "worker":
        return makers.one_worker(scene, signal.SIGKILL)
    if kind == "stopped":
        return makers.one_worker(scene, signal.SIGTERM)
    if kind in (STEWARD, PROJECTOR):
        return Killed(site, kind)
    return ServerEnded(site, kind)
