"""Whether an order costs more when the ledger holds millions of them: pairs of runs, one against a full ledger and one
against a fresh schema, in turn.
"""

from msgspec.structs import replace

from bench import workload
from bench.closed_loop import place_orders
from bench.record import Cell, Run
from bench.report.words import number
from bench.scale import loading
from bench.scale.paired import Interval, interval
from bench.scale.record import Part, Place, Series, faults_of
from bench.scale.systems import CONNECTIONS, Systems
from bench.scenario import Bench

WARM_S = 2
DEARER_MAX = 1.10  # what the lower end of the interval must not exceed
FRESH = "fresh schema"
METHOD = f"""\
Two systems with one worker each. The full one is loaded once, by `POST /v1/orders/bulk`; the other one is made anew \
for every pair, so that its schema is fresh.
Each run of a pair comes after a load of {WARM_S} s on the same system that does not count; which of the two goes \
first changes from pair to pair. Both systems are up meanwhile, and the other one rests.
The ratio is that of the time of an order. Its interval is Student's, of 95 %, of the logarithms of the pairs' \
ratios; it passes when its lower end is at most {DEARER_MAX:.2f}.\
"""


def part(systems: Systems, orders: int, pairs: int, seconds: int) -> Part:
    """Raises ScenarioError when the disk does not hold so many orders."""
    loading.ensure_room(systems.folder, orders)
    with systems.fresh() as full:
        before = _prepare(full)
        loading.load(full.system(1), orders, full.say)
        grown = loading.disk_bytes(full.system(1)) - before
        made = [_pair(full, systems, at, orders, seconds) for at in range(1, pairs + 1)]
    return part_of(orders, made, {"disk_bytes_per_order": grown / orders})


def _prepare(bench: Bench) -> int:
    bench.system(1).ensure_goods([workload.goods(workload.SKU)])
    return loading.disk_bytes(bench.system(1))


def _pair(full: Bench, systems: Systems, at: int, orders: int, seconds: int) -> tuple[Run, Run]:
    """A run against the fresh schema, and one against the full ledger."""
    with systems.fresh() as empty:
        _prepare(empty)
        first, second = (empty, full) if at % 2 else (full, empty)
        runs = {id(bench): _measure(bench, seconds) for bench in (first, second)}
    pair = runs[id(empty)], runs[id(full)]
    full.say(f"orders, pair {at}: {number(pair[0].value)} orders/s fresh, {number(pair[1].value)} with {orders:,}")
    return pair


def _measure(bench: Bench, seconds: int) -> Run:
    cell = Cell("orders", 1, CONNECTIONS)
    place_orders(bench, cell, WARM_S, {"SKU": workload.SKU})
    return place_orders(bench, cell, seconds, {"SKU": workload.SKU})


def part_of(orders: int, pairs: list[tuple[Run, Run]], figures: dict[str, float]) -> Part:
    """What the pairs say."""
    places = [[Place(at, [pair[side]]) for at, pair in enumerate(pairs, 1)] for side in (0, 1)]
    series = [Series(FRESH, places[0]), Series(f"{orders:,} orders", places[1])]
    part = Part(
        title=f"Cost of an order with {orders:,} orders in the ledger",
        method=METHOD.splitlines(),
        axis="pair",
        unit="orders/s",
        series=series,
        figures=figures,
        faults=faults_of(series),
    )
    return part if part.faults else _with_findings(part, orders, pairs)


def _with_findings(part: Part, orders: int, pairs: list[tuple[Run, Run]]) -> Part:
    time = interval([empty.value / full.value for empty, full in pairs])
    cpu = interval([_cpu(full) / _cpu(empty) for empty, full in pairs])
    figures = {"time_ratio": time.mean, "time_ratio_low": time.low, "time_ratio_high": time.high, "cpu_ratio": cpu.mean}
    findings = [_said(orders, time), f"CPU time of all servers and the worker: {_shown(cpu)}."]
    return replace(part, figures=part.figures | figures, findings=findings)


def _said(orders: int, time: Interval) -> str:
    said = f"With {orders:,} orders there an order takes {_shown(time)} times its time in a fresh schema"
    return f"{said}: {verdict(time)}."


def verdict(time: Interval) -> str:
    """Whether it passes, and whether that says anything: what was measured too coarsely passes as well."""
    if time.low > DEARER_MAX:
        return "does not pass"
    if time.high > DEARER_MAX:
        return f"passes by the lower end of the interval, of which a part lies above {DEARER_MAX:.2f}"
    return f"passes, and so does the whole interval (at most {DEARER_MAX:.2f})"


def _shown(found: Interval) -> str:
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"


def _cpu(run: Run) -> float:
    return sum(spent for role, spent in run.cpu_us_per_order.items() if role != "generator")
