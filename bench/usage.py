"""CPU time by role, from /proc: a role is a process with its threads, its children, and those of them that have ended.

It promises that the time of a backend that comes and goes between two readings is not lost, as long as its parent has
waited for it; it never reads a process of somebody else's.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    parent: int
    ticks: int  # of its own and of the children that it has waited for


def read(roles: Mapping[str, int]) -> dict[str, float]:
    """Seconds of CPU so far by role, each named by the first of its processes. One that has ended counts as nothing."""
    stats = _stats()
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        children.setdefault(stat.parent, []).append(pid)
    return {
        role: sum(stats[one].ticks for one in tree(pid, children) if one in stats) / TICKS_PER_S
        for role, pid in roles.items()
    }


def spent(before: Mapping[str, float], after: Mapping[str, float], count: int) -> dict[str, float]:
    """Microseconds of CPU by role for each of `count`; nothing when there is nothing to share it."""
    if count <= 0:
        return {}
    return {role: max(after[role] - before[role], 0.0) / count * 1e6 for role in before.keys() & after.keys()}


def tree(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def children_of(pid: int) -> list[int]:
    """The processes that this one has started and that run."""
    return [child for child, stat in _stats().items() if stat.parent == pid]


def _stats() -> dict[int, _Stat]:
    pids = [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]
    return {pid: stat for pid in pids if (stat := _stat(pid)) is not None}


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The program's name stands in parentheses and may hold anything; then come the state and the parent. utime, stime,
    # cutime and cstime are the fields 14 to 17 of proc(5), that is 11 to 14 from here.
    fields = text.rpartition(")")[2].split()
    return _Stat(int(fields[1]), sum(map(int, fields[11:15])))
