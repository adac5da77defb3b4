"""The simulation, for as long as a test may take; and that it can fail. `make simulate` runs it for longer."""

import itertools
import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from tests.simulation.mutations import MUTATIONS, caught
from tests.simulation.patches import patched
from tests.simulation.running import run_world, run_worlds

SPAN_S = 15.0
DIGEST = """
from collections import Counter
from tests.simulation.patches import patched
from tests.simulation.running import run_world
with patched():
    worlds = [run_world(seed, Counter()) for seed in range(20)]
print([(world.loop.turns, world.faults.steps, world.loop.now, world.draw()) for world in worlds])
"""


def test_worlds_keep_every_promise() -> None:
    end_s = time.process_time() + SPAN_S
    tally = run_worlds(itertools.takewhile(lambda _: time.process_time() < end_s, itertools.count()))
    assert [(failure.command, failure.what) for failure in tally.failures] == []
    assert {"accepted", "sold_out", "receipt", "limit_reached", "stock_returning"} <= tally.answers.keys()


def test_world_of_a_seed_is_the_same_whatever_the_order_of_texts_in_sets_is() -> None:
    digests = {_digest(hash_seed) for hash_seed in ("1", "2")}
    assert len(digests) == 1


def test_worlds_have_steps_and_faults() -> None:
    with patched():
        worlds = [run_world(seed, Counter()) for seed in range(50)]
    assert min(world.faults.steps for world in worlds) >= 200
    assert min(world.faults.met for world in worlds) >= 1


@pytest.mark.parametrize("guard", MUTATIONS)
def test_guard_that_is_removed_is_missed(guard: str) -> None:
    assert caught(guard) is not None


def _digest(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
