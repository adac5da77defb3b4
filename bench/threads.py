"""Where a process spends its time: by thread from /proc, which costs it nothing, and by library from samples of perf,
where that is installed and allowed. It reads, and never changes what it looks at.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
KERNEL = "kernel"
CPYTHON = "CPython"
# The beginning of a library's file -> what it is to us. A file that is not named here goes by its own name.
LIBRARIES = {
    "[kernel": KERNEL,
    "[unknown": "unknown",
    "libpython": CPYTHON,
    "python": CPYTHON,
    "_granian": "Granian (Rust)",
    "libc.so": "libc",
    "libc-": "libc",
    "ld-linux": "libc",
    "loop.": "uvloop",
    "protocol.": "asyncpg",
    "pgproto.": "asyncpg",
    "_core.": "msgspec",
    "_rust.abi3": "cryptography",
    "libcrypto": "libcrypto",
}
OURS = "core_ext"
# A line of `perf script -F tid,ip,dso`.
SAMPLE = re.compile(r"^\s*(\d+)\s+[0-9a-f]+ \((.*)\)$", re.MULTILINE)


class Place(NamedTuple):
    thread: int
    library: str


def read(pid: int) -> dict[int, float]:
    """Seconds of CPU so far by thread."""
    found = {}
    for path in (PROC / str(pid) / "task").iterdir():
        try:
            fields = (path / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # It has ended meanwhile.
            continue
        # utime and stime are the fields 14 and 15 of proc(5).
        found[int(path.name)] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return found


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> dict[int, float]:
    """Seconds by thread between two readings, of those that still run; the busiest first."""
    used = {thread: seconds - before.get(thread, 0.0) for thread, seconds in after.items()}
    return dict(sorted(used.items(), key=lambda one: -one[1]))


def samples(script: str) -> Counter[Place]:
    """How many samples fell where, from what `perf script -F tid,ip,dso` prints."""
    return Counter(Place(int(thread), library_of(file)) for thread, file in SAMPLE.findall(script))


def library_of(file: str) -> str:
    """What people call a library."""
    if "/lib-dynload/" in file:  # Extensions that come with CPython.
        return CPYTHON
    if f"/{OURS}/" in file:
        return OURS
    name = file.rpartition("/")[2]
    found = next((library for start, library in LIBRARIES.items() if name.startswith(start)), None)
    return found or name.partition(".")[0]


def role_of(thread: int, pid: int, taken: Counter[Place]) -> str:
    """What a thread of a gateway worker is for. Granian does not name its threads: one that never runs Python is its
    HTTP runtime.
    """
    if thread == pid:
        return "event loop"
    if not any(place.thread == thread for place in taken):
        return "another thread"
    return "Granian, beside the loop" if taken[Place(thread, CPYTHON)] else "Granian, HTTP"


def by_library(taken: Counter[Place], thread: int | None = None) -> dict[str, float]:
    """The share of all samples by library, of one thread or of all; the largest first."""
    found = Counter[str]()
    for place, count in taken.items():
        if thread in (None, place.thread):
            found[place.library] += count
    return {library: count / taken.total() for library, count in found.most_common()}
