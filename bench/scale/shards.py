"""How many shards one hot SKU needs: a sweep over shards and workers, and the smallest number as good as any."""

import msgspec

from bench import workload
from bench.closed_loop import place_orders
from bench.record import Cell, Run
from bench.report.words import counted, number
from bench.scale import goods
from bench.scale.record import Part, Place, Series, faults_of
from bench.scale.systems import CONNECTIONS, Systems, in_rounds
from bench.scenario import Bench

SHARDS = (1, 2, 4, 8, 16)
WORKERS = (1, 2, 3, 4)
AS_GOOD = 0.97  # of the best: below this a difference is one
WARM_S = 2
REFILLS = "floodgate_lease_refill_seconds_count"
METHOD = f"""\
One system, {WORKERS[0]} to {WORKERS[-1]} workers; for each number of shards a SKU of its own, which all orders of a \
run ask for.
Within one number of workers every number of shards is measured once a round, forwards and backwards in turn, after a \
load that does not count.
As good as the best is a number of shards whose median is at least {AS_GOOD:.0%} of the best one, or whose runs \
overlap with those of the best one: this machine cannot tell them apart.\
"""


def part(systems: Systems, rounds: int, seconds: int) -> Part:
    """Orders per second for each number of workers, by shards."""
    with systems.fresh() as bench:
        for shards in SHARDS:
            goods.load(bench.system(1), [_sku(shards)], shards)
        sweeps = {workers: _sweep(bench, workers, rounds, seconds) for workers in WORKERS}
    return part_of([Series(counted(workers, "worker"), places) for workers, places in sweeps.items()])


def _sweep(bench: Bench, workers: int, rounds: int, seconds: int) -> list[Place]:
    runs: dict[int, list[Run]] = {shards: [] for shards in SHARDS}
    _measure(bench, workers, SHARDS[-1], WARM_S)
    for at, shards in in_rounds(SHARDS, rounds):
        run = _measure(bench, workers, shards, seconds)
        bench.say(f"shards, {counted(workers, 'worker')}, round {at}: {shards} shards, {number(run.value)} orders/s")
        runs[shards].append(run)
    return [Place(shards, made) for shards, made in runs.items()]


def part_of(series: list[Series]) -> Part:
    """What the runs say: for each number of workers, how many shards are enough."""
    faults = faults_of(series)
    right = {one.name: enough(one.places) for one in series}
    found = [_said(one, right[one.name]) for one in series]
    return Part(
        title="Shards of one hot SKU",
        method=METHOD.splitlines(),
        axis="shards",
        unit="orders/s",
        series=series,
        figures={f"shards, {name}": place.at for name, place in right.items()},
        findings=[] if faults else found,
        faults=faults,
    )


def _said(series: Series, right: Place) -> str:
    best = max(place.median for place in series.places)
    beyond = f"{series.name}, nothing is gained beyond {counted(int(right.at), 'shard')}"
    return f"{beyond}: {number(right.median)} orders/s there, {number(best)} at best."


def enough(places: list[Place]) -> Place:
    """The first place that is as good as the best one."""
    best = max(places, key=lambda place: place.median)
    alike = (
        place for place in places if max(place.values) >= min(best.values) or place.median >= AS_GOOD * best.median
    )
    return next(alike)


def _measure(bench: Bench, workers: int, shards: int, seconds: int) -> Run:
    """A run, with the refills that the workers have asked the ledger for."""
    system = bench.system(workers)
    before = system.metrics().get(REFILLS, 0.0)
    run = place_orders(bench, Cell("shards", workers, CONNECTIONS), seconds, {"SKU": _sku(shards)})
    refills = system.metrics().get(REFILLS, 0.0) - before
    return msgspec.structs.replace(run, figures=run.figures | {"refills_per_s": refills / run.seconds})


def _sku(shards: int) -> str:
    return f"{workload.SKU}-{shards:02d}"
