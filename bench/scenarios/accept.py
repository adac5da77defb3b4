"""`accept`: durable orders of one line with their events, on one hot SKU. This is what the headline is about."""

from bench import workload, wrk
from bench.closed_loop import place_orders
from bench.record import Cell, Run
from bench.scenario import Against, Bench, Goal, Scenario


def prepare(bench: Bench) -> None:
    wrk.program()
    bench.system().ensure_goods([workload.goods(workload.SKU)])


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    return place_orders(bench, cell, seconds, {"SKU": workload.SKU})


SCENARIO = Scenario(
    "accept",
    "orders/s",
    "Durable one-line orders with their events, on one hot SKU",
    measure,
    prepare,
    per_workers=True,
    per_connections=True,
    against=(
        Against("echo", ("echo",)),
        Against("echo", ("echo",), role="worker"),
        Against("parts", ("echo", "copy", "stream")),
        Against("naive", ("naive",)),
    ),
    goals=(
        Goal("accept/echo@1", at_least=0.50),
        Goal("accept/echo@1x64", at_least=0.33),
        Goal("accept/echo:worker_cpu@1", at_most=1.5),
        Goal("accept/naive", at_least=5.0),
    ),
)
