"""The simulation, for as long as a test may take; and that it can fail. `make simulate` runs it for longer."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest

from persistence.journal.format import HEADER_BYTES
from tests.simulation import __main__ as program
from tests.simulation.disk import File
from tests.simulation.faults import CELLS
from tests.simulation.mutations import MUTATIONS, caught
from tests.simulation.patches import patched
from tests.simulation.running import Failure, Tally, run_world, run_worlds

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


@pytest.mark.parametrize(("met", "ended_with"), [(99, 1), (100, 0)])
def test_run_of_many_worlds_in_which_a_fault_seldom_met_a_step_fails(met: int, ended_with: int) -> None:
    coverage = Counter(dict.fromkeys(CELLS, 100)) | Counter({CELLS[0]: 101})
    coverage[CELLS[-1]] = met
    assert program._report(Tally(100_000, [], coverage, Counter(), 0, 0.0, 0.0), 1.0) == ended_with


def test_guards_that_nothing_misses_are_told_and_end_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program, "MUTATIONS", ["one", "other"])
    monkeypatch.setattr(program, "caught", lambda guard: Failure(7, "I1: sold twice") if guard == "one" else None)
    assert program._remove_guards(tmp_path / "guards.json") == 1
    assert json.loads((tmp_path / "guards.json").read_text()) == [
        {"guard": "one", "caught_by": "simulation, seed 7: I1: sold twice"},
        {"guard": "other", "caught_by": None},
    ]


def test_what_was_synced_survives_the_loss_of_power() -> None:
    for seed in range(200):
        file = File(Mock(), Path("a.journal"), bytes(HEADER_BYTES))
        file.content += b"synced"
        file.sync()
        file.content += b"written and not synced"
        file.lose(Random(seed))
        assert file.content.startswith(bytes(HEADER_BYTES) + b"synced")


def _digest(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    command = [sys.executable, "-c", DIGEST]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
