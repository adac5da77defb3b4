"""`soldout`: the refusals of what is sold out, each under a key of its own, which is checked like any other. They are
refusals, and never counted as orders.
"""

from bench import workload, wrk
from bench.closed_loop import refuse_orders
from bench.record import Cell, Run
from bench.scenario import Against, Bench, Goal, Scenario


def prepare(bench: Bench) -> None:
    wrk.program()
    bench.system().ensure_goods([workload.goods(workload.SOLD_OUT_SKU, units=0)])


def measure(bench: Bench, cell: Cell, seconds: int) -> Run:
    return refuse_orders(bench, cell, seconds, {"SKU": workload.SOLD_OUT_SKU})


SCENARIO = Scenario(
    "soldout",
    "refusals/s",
    "Refusals of a SKU that is sold out",
    measure,
    prepare,
    per_workers=True,
    per_connections=True,
    against=(Against("echo", ("echo",)),),
    goals=(Goal("soldout/echo", at_least=1.0),),
)
