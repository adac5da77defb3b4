"""`catalogue`: orders of several lines, drawn evenly from many SKUs."""

from bench import workload, wrk
from bench.closed_loop import place_orders
from bench.record import Cell, Run
from bench.scenario import Against, Bench, Goal, Scenario

VARIABLES = {
    "ORDER_LINES": str(workload.CATALOGUE_LINES),
    "SKUS": str(workload.CATALOGUE_SKUS),
    "PREFIX": workload.CATALOGUE_PREFIX,
}


def prepare(bench: Bench) -> None:
    wrk.program()
    bench.say(f"Making {workload.CATALOGUE_SKUS:,} products.")
    bench.system().ensure_goods(workload.catalogue())


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    return place_orders(bench, cell, seconds, VARIABLES)


SCENARIO = Scenario(
    "catalogue",
    "orders/s",
    f"Orders of {workload.CATALOGUE_LINES} lines over {workload.CATALOGUE_SKUS:,} SKUs",
    measure,
    prepare,
    per_workers=True,
    per_connections=True,
    against=(Against("echo", ("echo",)), Against("echo", ("echo",), role="worker")),
    goals=(Goal("catalogue/echo", at_least=0.33),),
)
