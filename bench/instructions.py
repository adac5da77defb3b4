"""How many instructions one order costs in the process, by callgrind: a count that no other load on the machine
changes, where microseconds do.

Of two runs, one without orders and one with ORDERS, only the difference counts: what it takes to start is in both.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from bench.failure import ScenarioError

ORDERS = 10_000
TIMEOUT_S = 600.0
TOP = 25
MISSING = "valgrind is not installed: `apt-get install valgrind` (Debian, Ubuntu), `dnf install valgrind` (Fedora)"
# Fifty orders first: what is made once, at the first order, is no cost of an order.
PROGRAM = """
import sys
from bench import workload
from bench.core_pass import CorePass
place = getattr(CorePass(workload.body()), sys.argv[1])
for _ in range(50 + int(sys.argv[2])):
    place()
"""
TOTAL = re.compile(r"^(?:summary|totals): (\d+)", re.MULTILINE)
# A line of callgrind_annotate: a count, its share, the function with its file, and the library in brackets.
FUNCTION = re.compile(r"^\s*([\d,]+) \([ \d.]+%\)  (.+:.+)$", re.MULTILINE)


class Counted(NamedTuple):
    """Instructions of one order, all and by function, the dearest first."""

    name: str
    instructions: float
    functions: dict[str, float]


def count(name: str, folder: Path) -> Counted:
    """Instructions of one call of this method of CorePass; what callgrind has written stays in `folder`. Raises
    ScenarioError.
    """
    if shutil.which("valgrind") is None:
        raise ScenarioError(MISSING)
    _ask(_program(name, 0))  # Whatever has to be compiled, or is wrong, is so before anything is counted.
    files = [_run(name, orders, folder) for orders in (0, ORDERS)]
    before, after = (int(TOTAL.findall(file.read_text())[-1]) for file in files)
    return Counted(name, (after - before) / ORDERS, difference(*map(_annotate, files)))


def difference(before: str, after: str) -> dict[str, float]:
    """Instructions of one order by function, from what callgrind_annotate prints of the two runs."""
    more = functions(after)
    more.subtract(functions(before))
    return {name: instructions / ORDERS for name, instructions in more.most_common(TOP) if instructions > 0}


def functions(text: str) -> Counter[str]:
    """Instructions by function. One that stands under several files, or calls itself, is one."""
    found = Counter[str]()
    libraries: dict[str, str] = {}
    for instructions, place in FUNCTION.findall(text):
        file_and_name, _, library = place.partition(" [")
        name = file_and_name.partition(":")[2].partition("'")[0]
        found[name] += int(instructions.replace(",", ""))
        if library:
            libraries[name] = library.rstrip("]").rpartition("/")[2]
    return Counter({f"{name} [{libraries.get(name, '?')}]": instructions for name, instructions in found.items()})


def _run(name: str, orders: int, folder: Path) -> Path:
    out = folder.absolute() / f"callgrind.{name}.{orders}.out"
    _ask(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *_program(name, orders)])
    return out


def _program(name: str, orders: int) -> list[str]:
    return [sys.executable, "-c", PROGRAM, name, str(orders)]


def _annotate(out: Path) -> str:
    return _ask(["callgrind_annotate", "--auto=no", "--threshold=99", str(out)])


def _ask(command: list[str]) -> str:
    done = subprocess.run(  # noqa: S603 - our own command, no shell
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"PYTHONHASHSEED": "0"},  # Otherwise two starts differ by what they happen to hash.
    )
    if done.returncode:
        raise ScenarioError(f"{command[0]} has failed: {done.stderr.strip()[-500:]}")
    return done.stdout
