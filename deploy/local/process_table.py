"""What runs on this machine, read from /proc: how the processes of an earlier, killed supervisor are found and
ended.

A process is recognised by what it is (program and working folder, or an environment variable of ours), never by its
number alone: numbers are given again. Zombies do not count as running. What may not be read belongs to somebody else
and is left alone.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
DELETED = " (deleted)"  # What the kernel adds to the path of a file that was replaced.
LOOK_AGAIN_S = 0.05


class Entry(NamedTuple):
    pid: int
    group: int


def entries() -> list[Entry]:
    """Every running process but this one."""
    own = os.getpid()
    pids = (int(path.name) for path in PROC.iterdir() if path.name.isdigit())
    return [entry for pid in pids if pid != own and (entry := _entry(pid))]


def is_running(pid: int) -> bool:
    return _entry(pid) is not None


def members(group: int) -> list[int]:
    return [entry.pid for entry in entries() if entry.group == group]


def with_variable(name: str, value: str) -> list[int]:
    """The processes that were started with this environment variable."""
    wanted = f"{name}={value}".encode()
    return [entry.pid for entry in entries() if wanted in _environment(entry.pid)]


def running_in(directory: Path, program: str) -> list[int]:
    """The processes of a program whose working folder is this one."""
    wanted = os.path.realpath(directory)
    return [
        entry.pid
        for entry in entries()
        if _link(entry.pid, "cwd") == wanted and Path(_link(entry.pid, "exe")).name == program
    ]


def describe(pid: int) -> str:
    """`pid 123, nginx`"""
    try:
        return f"pid {pid}, {(PROC / str(pid) / 'comm').read_text().strip()}"
    except OSError:
        return f"pid {pid}"


def open_files(pid: int) -> set[str]:
    """What the process has open, as /proc names it; empty when it may not be seen."""
    names: set[str] = set()
    with suppress(OSError):
        for descriptor in (PROC / str(pid) / "fd").iterdir():
            names.add(_link(pid, f"fd/{descriptor.name}"))
    return names


def end(find: Callable[[], Iterable[int]], polite: signal.Signals, timeout_s: float) -> bool:
    """Signal what `find` finds until it finds nothing; after the time-out by SIGKILL. True if there was anything."""
    found = list(find())
    if not found:
        return False
    _signal(found, polite)
    deadline = time.monotonic() + timeout_s
    while found := list(find()):
        if time.monotonic() > deadline:
            _signal(found, signal.SIGKILL)
        time.sleep(LOOK_AGAIN_S)
    return True


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _entry(pid: int) -> Entry | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The program's name stands in parentheses and may hold anything; then follow the state, the parent, the group.
    state, _, group, *_ = text.rpartition(")")[2].split()
    return None if state in "ZX" else Entry(pid, int(group))


def _environment(pid: int) -> list[bytes]:
    try:
        return (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _link(pid: int, name: str) -> str:
    try:
        return str((PROC / str(pid) / name).readlink()).removesuffix(DELETED)
    except OSError:
        return ""
