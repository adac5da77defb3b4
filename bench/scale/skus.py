"""Whether an order costs the same however many SKUs the crowd spreads over: from one to a hundred thousand."""

from msgspec.structs import replace

from bench.closed_loop import place_orders
from bench.record import Cell, Ratio, Run, ratio
from bench.report.words import number
from bench.scale import goods
from bench.scale.record import Part, Place, Series, faults_of
from bench.scale.systems import CONNECTIONS, Systems, in_rounds
from bench.scenario import Bench

SIZES = (1, 100, 10_000, 100_000)
PREFIX = "SCALE-"
SHARDS = 4  # of each SKU, as by default
WARM_S = 2
AT_FIRST, AFTERWARDS = "first order of most SKUs", "units in hand"
METHOD = f"""\
One system with one worker, and a catalogue of {SIZES[-1]:,} products with stock throughout. Orders of one line are \
spread evenly over the first of them, so many as the axis says.
`{AT_FIRST}`: over {SIZES[-1]:,} SKUs of which the worker has no units yet. An order that meets one fetches units from \
the ledger, which is the dearest that a SKU can be. These runs come first, since every SKU is new only once.
`{AFTERWARDS}`: after every SKU has been ordered once. Every size is measured once a round, forwards and backwards in \
turn, after one load over each that does not count.
The ratio is that of the runs of a round with units in hand, at {SIZES[-1]:,} SKUs and at one.\
"""


def part(systems: Systems, rounds: int, seconds: int) -> Part:
    """Orders per second and CPU per order, for each size."""
    skus = [f"{PREFIX}{number:04d}" for number in range(1, SIZES[-1] + 1)]
    with systems.fresh() as bench:
        bench.say(f"skus: loading {len(skus):,} products.")
        goods.load(bench.system(1), skus, SHARDS)
        _measure(bench, 1, WARM_S)
        first = [_measure(bench, len(skus), seconds) for _ in range(rounds)]
        goods.touch(bench.system(1), skus)
        places = _sweep(bench, rounds, seconds)
    return part_of(places, first)


def _sweep(bench: Bench, rounds: int, seconds: int) -> list[Place]:
    runs: dict[int, list[Run]] = {size: [] for size in SIZES}
    for size in SIZES:
        _measure(bench, size, WARM_S)
    for at, size in in_rounds(SIZES, rounds):
        run = _measure(bench, size, seconds)
        bench.say(f"skus, round {at}: {size:,} SKUs, {number(run.value)} orders/s")
        runs[size].append(run)
    return [Place(size, made) for size, made in runs.items()]


def part_of(places: list[Place], first: list[Run]) -> Part:
    """What the runs say."""
    series = [Series(AFTERWARDS, places), Series(AT_FIRST, [Place(places[-1].at, first)])]
    part = Part(
        title=f"Cost of an order from {places[0].at:,g} to {places[-1].at:,g} SKUs",
        method=METHOD.splitlines(),
        axis="SKUs that the orders are spread over",
        unit="orders/s",
        series=series,
        faults=faults_of(series),
    )
    return part if part.faults else _with_findings(part, places, series[1].places[0])


def _with_findings(part: Part, places: list[Place], first: Place) -> Part:
    """The smallest and the largest number of SKUs are held against each other, round by round."""
    pairs = list(zip(places[0].runs, places[-1].runs, strict=True))
    time = ratio([few.value / many.value for few, many in pairs])
    cpu = ratio([_worker(many) / _worker(few) for few, many in pairs])
    findings = [_said(places, time, cpu), _said_at_first(places, first)]
    return replace(part, findings=findings, figures={"time_ratio": time.median, "worker_cpu_ratio": cpu.median})


def _said(places: list[Place], time: Ratio, cpu: Ratio) -> str:
    return (
        f"Spread over {places[-1].at:,g} SKUs, with units in hand, an order takes {number(time.median)} times the time"
        f" of one SKU ({number(time.min)} to {number(time.max)}), and {number(cpu.median)} times the worker's CPU time"
        f" ({number(cpu.min)} to {number(cpu.max)})."
    )


def _said_at_first(places: list[Place], first: Place) -> str:
    share = first.median / places[-1].median
    return f"While most of these SKUs are ordered for the first time, {share:.0%} of the orders/s are taken."


def _worker(run: Run) -> float:
    return run.cpu_us_per_order["worker"]


def _measure(bench: Bench, size: int, seconds: int) -> Run:
    spread = {"ORDER_LINES": "1", "SKUS": str(size), "PREFIX": PREFIX}
    return place_orders(bench, Cell("skus", 1, CONNECTIONS), seconds, spread)
