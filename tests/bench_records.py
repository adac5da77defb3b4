"""Records of benchmarks that were never run: made-up figures for the tests of the report, nothing to publish."""

from bench.record import Cell, Environment, Record, Result, Run, Target, Verified, ratio, result
from bench.scale.record import Part, Place, ScaleRecord, Series

SYNTHETIC = "synthetic, for tests"
HEADLINE = {"orders_per_second": 13000.0, "workers": 1, "connections": 256, "accept/echo@1": 0.29}
CPU = {"generator": 9.5, "worker": 41.0, "postgres": 16.25, "nats": 13.0, "redis": 0.4, "steward": 0.2}


def environment() -> Environment:
    return Environment(
        date="2001-01-01",
        machine={"processor": "Imaginary <CPU>", "cores": 2, "memory_gib": 8, "kernel": "0.0", "load_before": 7.5},
        versions={"floodgate": "0", "postgres": "18"},
        core="compiled",
        durability={"fsync": "on", "sync_interval": "always"},
        note=SYNTHETIC,
    )


def books(rows: int, lost: int = 0) -> Verified:
    return Verified(acknowledged=rows, rows=rows - lost, events=rows - lost, lost=lost)


def run(value: float, at: int = 1, verified: Verified | None = None, faults: list[str] | None = None) -> Run:
    return Run(
        value=value,
        seconds=5.0,
        answers={"201": int(value * 5)},
        p50_ms=9.5,
        p99_ms=21.25,
        cpu_us_per_order=CPU,
        verified=verified,
        faults=faults or [],
        round=at,
    )


def cell(name: str, values: list[float], unit: str = "orders/s", workers: int | None = 1, lost: int = 0) -> Result:
    runs = [run(value, at, books(1000, lost)) for at, value in enumerate(values, 1)]
    return result(Cell(name, workers, 256 if workers else None), unit, f"What {name} is.", runs)


def record(*, lost: int = 0) -> Record:
    """Cells of every sort, a target that is met and one that is not, and one that could not be looked at."""
    scenarios = {
        "echo@1": cell("echo", [43211.0, 45000.0, 46000.0], "requests/s"),
        "accept@1": cell("accept", [12345.0, 13000.0, 14321.0], lost=lost),
        "naive": cell("naive", [1900.0, 2001.0, 2100.0], workers=None),
        "soldout@1": cell("soldout", [51000.0, 52001.0, 53000.0], "refusals/s"),
    }
    return Record(
        environment=environment(),
        method=["Everything runs on one machine, & the generator too."],
        scenarios=scenarios,
        ratios={"accept/echo@1": ratio([0.28, 0.29, 0.31]), "soldout/echo@1": ratio([1.15, 1.16, 1.18])},
        targets=[
            Target(of="accept/echo@1", at_least=0.5, measured=0.29, met=False),
            Target(of="soldout/echo@1", at_least=1.0, measured=1.16, met=True),
        ],
        faults=["a run of accept@1: 3 acknowledged orders are not in the ledger"] if lost else [],
        headline=None if lost else HEADLINE,
        missed={"bulk@1": "wrk is not installed"},
    )


def scale(*, faults: list[str] | None = None) -> ScaleRecord:
    places = [Place(at, [run(value), run(value * 1.02)]) for at, value in ((1, 12000.0), (100_000, 9000.0))]
    part = Part(
        title="Cost from 1 to 100,000 SKUs",
        method=["How it was done."],
        axis="SKUs",
        unit="orders/s",
        series=[Series("1 worker", places)],
        figures={"ratio": 0.75},
        findings=[] if faults else ["It is dearer by a third."],
        faults=faults or [],
    )
    return ScaleRecord(environment=environment(), method=["Rules."], scale={"skus": part}, missed={"orders": "no disk"})
