"""Memory of processes, from /proc. What has ended has none."""

import os
import resource
from collections.abc import Iterable
from pathlib import Path

MIB = 1 << 20
PAGE_BYTES = resource.getpagesize()


def resident_bytes(pids: Iterable[int]) -> int:
    """Of these processes together."""
    return sum(_pages(pid, 1) for pid in pids) * PAGE_BYTES


def limit_growth(more_bytes: int) -> None:
    """Let this process have so much more address space than it has now: an allocation beyond it is a MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_pages(os.getpid(), 0) * PAGE_BYTES + more_bytes, hard))


def _pages(pid: int, field: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[field])
    except (OSError, IndexError):
        return 0
