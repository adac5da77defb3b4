"""The mutation run takes away what it says, from where that stands now."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from bench.faults.rows import BY_NUMBER
from tests.mutations.guards import MUTATIONS, UNSEEN
from tests.mutations.removals import REMOVALS, VARIABLE, Removal
from tests.mutations.running import HOOK, ROOT
from tests.simulation.mutations import MUTATIONS as SIMULATED

ALL = [pytest.param(removal, id=f"{guard}: {removal.name}") for guard, each in REMOVALS.items() for removal in each]
SAID = "import json, persistence.postgres.control as c; print(json.dumps([c._SILENT, c._STRANDED, c.__name__]))"


def named(removal: Removal) -> object:
    found = importlib.import_module(removal.module)
    for name in removal.name.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("removal", ALL)
def test_removal_what_it_replaces_is_there_and_becomes_something_else(removal: Removal) -> None:
    stands = named(removal)
    replaced = removal.make(importlib.import_module(removal.module), stands)
    assert type(replaced) is type(stands) or not isinstance(stands, str)
    assert replaced != stands


def test_mutations_name_patches_and_rows_that_are_there() -> None:
    assert {mutation.removed for mutation in MUTATIONS.values()} - {""} == set(REMOVALS)
    assert all(mutation.row in BY_NUMBER for mutation in MUTATIONS.values())
    assert all(mutation.removed or mutation.fragments or mutation.statements for mutation in MUTATIONS.values())


def test_mutations_guards_that_no_row_can_miss_are_taken_from_the_simulation() -> None:
    assert not UNSEEN.keys() & MUTATIONS.keys()
    assert [guard for guard in UNSEEN if not any(name.startswith(f"{guard}: ") for name in SIMULATED)] == []


def texts(**variables: str) -> list[str]:
    """The two statements as a process has them that is started so."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(HOOK), str(ROOT)))} | variables
    done = subprocess.run([sys.executable, "-P", "-c", SAID], env=environment, capture_output=True, check=True)
    said: list[str] = json.loads(done.stdout)
    return said


def test_hook_takes_away_the_guard_that_it_is_told_and_no_other() -> None:
    whole, without, other = texts(), texts(**{VARIABLE: "journal pins"}), texts(**{VARIABLE: "CRC"})
    assert whole == other
    assert [("journal is null" in text) for text in whole] == [True, True, False]
    assert [("journal is null" in text) for text in without] == [False, False, False]
    assert whole[2] == without[2] == "persistence.postgres.control"
