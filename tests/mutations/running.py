"""Runs one row of the matrix on a system that lacks one guard, and says what the row has found of that.

Each has a system of its own, and none is left when it is over. A system that does not come up without the guard has
been broken otherwise: that is an error, and nobody's catch.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from bench.faults import checker
from bench.faults.checker import Checker
from bench.faults.record import RowResult
from bench.faults.rows import BY_NUMBER
from bench.faults.runner import Plan, Runner
from bench.faults.site import Site
from tests.mutations.guards import Fragment, Mutation
from tests.mutations.removals import VARIABLE

HOOK = Path(__file__).parent / "hook"
ROOT = Path(__file__).parents[2]
COUNTED = ("lost", "oversold", "stranded", "doubled", "hung")
SEEDS = (11, 12, 13)  # one after the other, until one is caught
# What is broken will not come right: nobody waits for it as long as the matrix does.
BRIEFLY = {"QUIET_S": 15.0, "LAST_UNIT_S": 3.0}
_TEXT = "select pg_get_functiondef(oid) from pg_proc where proname = '{}' order by pronargs desc limit 1"


class Mutated(Runner):
    """A runner whose system lacks something from the first moment on."""

    def __init__(self, mutation: Mutation, seed: int, folder: Path) -> None:
        row = BY_NUMBER[mutation.row]
        plan = Plan(seed, mutation.times, rows=(row.number,), injections=mutation.injections)
        plan.rows = (row._replace(rate=row.rate * mutation.rate),)
        super().__init__(plan, folder, lambda _: None)
        self._mutation = mutation
        self._mutated: Site | None = None

    def ensure_site(self, mode: str) -> tuple[Site, Checker]:
        site, checker = super().ensure_site(mode)
        if site is self._mutated:
            return site, checker
        self._mutated = site
        for fragment in self._mutation.fragments:
            _replace(site, fragment)
        for statement in self._mutation.statements:
            site.query(f"{statement}; select 1")
        return site, checker


def caught(mutation: Mutation) -> str | None:
    """What the row has found; None when it has found nothing. Raises ScenarioError when no system comes up."""
    with _removed(mutation):
        for seed in SEEDS:
            result = _run(mutation, seed)
            if result.status == "not_run":
                return None
            if result.status == "failed":
                return f"row {mutation.row}: {_found(result)}"
    return None


def _run(mutation: Mutation, seed: int) -> RowResult:
    folder = Path(tempfile.mkdtemp(prefix="floodgate-mutations-"))
    folder.chmod(0o711)  # Root's PostgreSQL has to pass.
    runner = Mutated(mutation, seed, folder)
    try:
        runner.ensure_site(BY_NUMBER[mutation.row].mode)
        (result,) = runner.run()
    finally:
        runner.drop_site()
        shutil.rmtree(folder, ignore_errors=True)
    return result


@contextmanager
def _removed(mutation: Mutation) -> Iterator[None]:
    path = os.pathsep.join((str(HOOK), str(ROOT), *filter(None, (os.environ.get("PYTHONPATH"),))))
    hook = {"PYTHONPATH": path, VARIABLE: mutation.removed} if mutation.removed else {}
    with ExitStack() as stack:
        stack.enter_context(patch.dict(os.environ, hook))
        for name, seconds in BRIEFLY.items():
            stack.enter_context(patch.object(checker, name, seconds))
        yield


def _replace(site: Site, fragment: Fragment) -> None:
    """Make the function anew, in its latest form, with this one difference."""
    text = site.query(_TEXT.format(fragment.function))
    assert text.count(fragment.before) == 1, f"{fragment.before!r} does not stand once in {fragment.function}"
    site.query(f"{text.replace(fragment.before, fragment.after)}; select 1")


def _found(result: RowResult) -> str:
    """In numbers if there are any, else in words."""
    numbers = [f"{name} {getattr(result, name)}" for name in COUNTED if getattr(result, name)]
    return ", ".join(numbers) or result.found[0]
