"""Puts processes on cores of their own, so that a generator and what it loads do not take time from each other.

It promises that every thread of the processes and of all that descend from them is pinned, and that all may run
everywhere again afterwards. Whoever is started meanwhile stands where its parent stands.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import usage
from bench.failure import ScenarioError


@contextmanager
def apart(pids: Collection[int]) -> Iterator[None]:
    """The processes with these roots on one core, the calling one by itself on another. Raises ScenarioError when there
    is one core.
    """
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        raise ScenarioError("the generator and the system need a core each, and there is one")
    theirs, ours = sorted(cores)[:2]
    trees = [one for pid in pids for one in _tree(pid)]
    _pin(trees, {theirs})
    _pin([os.getpid()], {ours})
    try:
        yield
    finally:
        _pin(trees, cores)
        _pin([one for pid in pids for one in _tree(pid)], cores)  # Who has been started meanwhile, too.
        _pin([os.getpid()], cores)


def _pin(pids: Iterable[int], cores: set[int]) -> None:
    """Let every thread of these run on these cores alone. Who has ended meanwhile is left out."""
    for thread in (thread for pid in pids for thread in _threads(pid)):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        found += usage.children_of(one)
    return found


def _threads(pid: int) -> list[int]:
    try:
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    except FileNotFoundError:
        return []
