"""Runs worlds: one seed, or many. A world that raises has failed as well as one that has a violation."""

import gc
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from tests.simulation.faults import PLAIN, Theme
from tests.simulation.patches import NOW, patched
from tests.simulation.world import Coverage, World

COLLECT_EVERY = 5  # worlds; they are full of cycles, and looking for those all the time takes a fifth


class Failure(NamedTuple):
    seed: int
    what: str

    @property
    def command(self) -> str:
        """What replays it."""
        return f"python -m tests.simulation --seed {self.seed}"


class Tally(NamedTuple):
    """What came of some seeds. `seconds` are of CPU time."""

    worlds: int
    failures: list[Failure]
    coverage: Coverage
    answers: Counter[str]
    steps: int
    virtual_s: float
    seconds: float

    def plus(self, other: "Tally") -> "Tally":
        return Tally(
            self.worlds + other.worlds,
            self.failures + other.failures,
            self.coverage + other.coverage,
            self.answers + other.answers,
            self.steps + other.steps,
            self.virtual_s + other.virtual_s,
            self.seconds + other.seconds,
        )


def run_world(
    seed: int, coverage: Coverage, theme: Theme = PLAIN, *, trace: Callable[[str], None] | None = None
) -> World:
    """The world of a seed, after its end. The product has to be `patched`."""
    world = NOW.world = World(seed, coverage, theme, trace=trace)
    try:
        world.run()
    except Exception:  # noqa: BLE001 - whatever it is, the seed has found it
        world.violations.append(traceback.format_exc())
    return world


def run_worlds(seeds: Iterable[int], failures_max: int = 20, theme: Theme = PLAIN) -> Tally:
    """The worlds of these seeds, one after the other, until too many have failed."""
    coverage: Coverage = Counter()
    answers: Counter[str] = Counter()
    failures: list[Failure] = []
    worlds, steps, virtual_s, started = 0, 0, 0.0, time.process_time()
    gc.disable()
    gc.freeze()  # What is there before the first world need not be looked through again and again.
    try:
        with patched():
            for seed in seeds:
                world = run_world(seed, coverage, theme)
                worlds, steps, virtual_s = worlds + 1, steps + world.faults.steps, virtual_s + world.loop.now
                answers.update(world.answers)
                if world.violations:
                    failures.append(Failure(seed, world.violations[0]))
                    if len(failures) >= failures_max:
                        break
                if not worlds % COLLECT_EVERY:
                    gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
    return Tally(worlds, failures, coverage, answers, steps, virtual_s, time.process_time() - started)


def first_failure(seeds: Iterable[int], theme: Theme) -> Failure | None:
    """The first of these seeds that fails, with the product and the model as they are now."""
    found = run_worlds(seeds, 1, theme).failures
    return found[0] if found else None
