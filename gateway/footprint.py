"""What a process takes of its host: memory and open files, and since when. Read from /proc now and then by a loop, and
never when it is asked for: an answer costs nothing, and is up to LOOK_EVERY_S old.
"""

import asyncio
import os
from pathlib import Path

LOOK_EVERY_S = 5.0
PROCESS = Path("/proc/self")
START_TICKS = 19  # the place of the start in /proc/self/stat, counted from after the name; see proc(5)


class Footprint:
    """Of this process."""

    def __init__(self) -> None:
        self.started_s = _started_s()
        self.resident_bytes = 0
        self.open_files = 0
        self.look()

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self.look()

    def look(self) -> None:
        pages = int((PROCESS / "statm").read_text().split()[1])
        self.resident_bytes = pages * os.sysconf("SC_PAGE_SIZE")
        self.open_files = sum(1 for _ in (PROCESS / "fd").iterdir())


def _started_s() -> float:
    """Seconds since 1970, by the kernel's clock."""
    ticks = int((PROCESS / "stat").read_text().rpartition(")")[2].split()[START_TICKS])
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return float(booted.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")
