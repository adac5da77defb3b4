"""`python -m tests.mutations`: removes every guard once, from the simulation and from real systems, and says who has
noticed. Ends with 1 when somebody has not. With `GUARD…` only those whose name begins so.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.system import ENDS
from tests.mutations.guards import MUTATIONS, UNSEEN
from tests.mutations.running import caught
from tests.simulation.mutations import MUTATIONS as SIMULATED

ROOT = Path(__file__).parents[2]
SIMULATION = (sys.executable, "-m", "tests.simulation", "--mutations", "--json")
SIMULATION_S = 900.0

Found = dict[str, str | None]


def main() -> int:
    options = _parser().parse_args()
    for number in ENDS:  # `kill` ends it as Ctrl-C does: with nothing left.
        signal.signal(number, signal.default_int_handler)
    simulated = [guard for guard in SIMULATED if _is_wanted(guard, options.guards) and not options.rows_alone]
    with _simulation(simulated) as record:  # Beside the rows, which wait most of the time.
        found = [_in_row(guard) for guard in MUTATIONS if _is_wanted(guard, options.guards)]
    for guard, reason in UNSEEN.items():
        if _is_wanted(guard, options.guards):
            print(f"{guard}: no row can miss it: {reason}", flush=True)
    if simulated:
        found += _in_simulation(record, simulated)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return any(one["caught_by"] is None for one in found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("guards", nargs="*", metavar="GUARD", help="the beginning of a name (default: all)")
    parser.add_argument("--rows-alone", action="store_true", help="real systems only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write who has noticed what")
    return parser


def _is_wanted(guard: str, guards: Sequence[str]) -> bool:
    return not guards or any(guard.startswith(name) for name in guards)


def _in_row(guard: str) -> Found:
    started = time.monotonic()
    found: Found = {"guard": guard, "caught_by": caught(MUTATIONS[guard])}
    _say(found, f" ({time.monotonic() - started:.0f} s)")
    return found


@contextmanager
def _simulation(guards: Sequence[str]) -> Iterator[list[Found]]:
    """What the simulation has found, at the end of the block. A process of its own, since what a seed is depends on how
    texts are hashed.
    """
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "mutations.json"
        process = subprocess.Popen([*SIMULATION, record], cwd=ROOT, stdout=subprocess.DEVNULL) if guards else None
        try:
            yield found
            if process is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(SIMULATION_S)
                nobody: list[Found] = [{"guard": guard, "caught_by": None} for guard in guards]
                found += json.loads(record.read_bytes()) if record.exists() else nobody
        finally:
            if process is not None:
                process.kill()
                process.wait()


def _in_simulation(record: Sequence[Found], guards: Sequence[str]) -> list[Found]:
    found = [one for one in record if one["guard"] in guards]
    for one in found:
        _say(one)
    return found


def _say(found: Found, tail: str = "") -> None:
    print(f"{found['guard']}: {found['caught_by'] or 'NOT CAUGHT'}{tail}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
