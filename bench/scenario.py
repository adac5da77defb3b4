"""What a scenario of `floodgate bench` is: a name, what it counts, and a function that measures it once. The runner
does the rest, the same for every scenario: warm-up, rounds, medians, ratios, targets.

A scenario never decides what is published; it returns what it has seen, faults included.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from bench.failure import ScenarioError
from bench.record import Cell, Run
from bench.system import System, open_system

__all__ = ["Against", "Bench", "Goal", "Say", "Scenario", "ScenarioError"]

Say = Callable[[str], None]
Resource = TypeVar("Resource")


class Bench:
    """What scenarios are given. `options` are the flags of the command that belong to one scenario; `scratch` is a
    folder of this bench that is deleted at its end.
    """

    def __init__(self, scratch: Path, say: Say, options: Mapping[str, Any] | None = None) -> None:
        self.scratch = scratch
        self.say = say
        self.options = options or {}
        self._closing = ExitStack()
        self._system: System | None = None
        self._kept: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    @property
    def started(self) -> System | None:
        """The system, if a scenario has asked for it."""
        return self._system

    def system(self, workers: int | None = None) -> System:
        """The system under test, started at the first call, with as many gateway workers. Raises ScenarioError."""
        if self._system is None:
            self.say("Starting a system of its own.")
            self._system = self._closing.enter_context(open_system(self.scratch / "data", workers or 1))
        if workers is not None:
            self._system.ensure_workers(workers)
        return self._system

    def kept(self, name: str, open_it: Callable[[], AbstractContextManager[Resource]]) -> Resource:
        """What a scenario opens once and needs to the end, by a name of its own: a server, a prepared folder."""
        if name not in self._kept:
            self._kept[name] = self._closing.enter_context(open_it())
        found: Resource = self._kept[name]
        return found


class Against(NamedTuple):
    """A ratio to other scenarios of the same round: to the rate of doing them one after the other,
    1 / (1/a + 1/b ...). With `role` it is a ratio of the CPU time per order of that role instead.
    """

    name: str
    scenarios: tuple[str, ...]
    role: str | None = None

    def key(self, scenario: str, suffix: str) -> str:
        """`accept/echo@1`, `accept/echo:worker_cpu@1`."""
        return f"{scenario}/{self.name}{f':{self.role}_cpu' if self.role else ''}{suffix}"


class Goal(NamedTuple):
    """A target of the design: `of` is the key of a ratio, of a cell, or `CELL:FIGURE`."""

    of: str
    at_least: float | None = None
    at_most: float | None = None


class Scenario(NamedTuple):
    """`measure(bench, cell, seconds)` makes one run, for the warm-up as well; it leaves nothing running and may raise
    ScenarioError. `prepare(bench)` is called once, before the first run.
    """

    name: str
    unit: str  # orders/s, requests/s, us, ms
    about: str  # one sentence for people
    measure: Callable[[Bench, Cell, int], Run]
    prepare: Callable[[Bench], None] = lambda _: None
    per_workers: bool = False  # whether it is measured at every number of workers
    per_connections: bool = False  # and of connections
    against: tuple[Against, ...] = ()
    goals: tuple[Goal, ...] = ()
    by_default: bool = True  # whether it runs when no scenario is named
    warms_up: bool = True
