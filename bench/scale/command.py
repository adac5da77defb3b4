"""Runs the parts of `floodgate bench scale`, one after the other, and gives their record. A part that cannot run is
named with its reason; the others go on.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from bench.environment import faults
from bench.failure import ScenarioError
from bench.scale import growth, memory, shards, skus
from bench.scale.record import Part, ScaleRecord
from bench.scale.systems import Systems
from bench.scenario import Say
from deploy.local.failure import StackError
from persistence.errors import Unavailable

PARTS = ("skus", "shards", "orders", "memory")
ORDERS = 200_000
PAIRS = 10
ROUNDS = 3
SECONDS = 3
METHOD = """\
Generator, gateway and servers share one machine, and take each other's CPU time.
The rules are those of `floodgate bench`: durable, with events, keys and encrypted personal data; only orders that are \
in PostgreSQL with their event in the stream count; the clock of a run stops when the last event has come there.\
"""


class Options(NamedTuple):
    """`folder` is where the data lie; the machine's folder for temporary files when None."""

    parts: Sequence[str] = PARTS
    orders: int = ORDERS
    pairs: int = PAIRS
    rounds: int = ROUNDS
    seconds: int = SECONDS
    folder: Path | None = None


def run(options: Options, say: Say, command: str = "") -> ScaleRecord:
    """Every part that was asked for."""
    systems, found, missed = Systems(say, options.folder, command), dict[str, Part](), dict[str, str]()
    for name in options.parts:
        try:
            found[name] = _measured(name, systems, options)
        except (ScenarioError, StackError, Unavailable) as error:
            missed[name] = str(error)
    where = systems.where()
    parts = {name: without_findings(part, faults(where)) for name, part in found.items()}
    return ScaleRecord(environment=where, method=METHOD.splitlines(), scale=parts, missed=missed)


def without_findings(part: Part, faults: list[str]) -> Part:
    """The part, which has found nothing when something made the system faster than it may be."""
    return replace(part, findings=[], faults=part.faults + faults) if faults else part


def _measured(name: str, systems: Systems, options: Options) -> Part:
    measures: dict[str, Callable[[], Part]] = {
        "skus": lambda: skus.part(systems, options.rounds, options.seconds),
        "shards": lambda: shards.part(systems, options.rounds, options.seconds),
        "orders": lambda: growth.part(systems, options.orders, options.pairs, options.seconds),
        "memory": lambda: memory.part(systems, options.rounds),
    }
    return measures[name]()
