"""`python -m tests.simulation`: many worlds (`--seeds`, `--from`, `--jobs`), one with its trace (`--seed`), or the
guards, each removed once (`--mutations`). Ends with 1 when something was found that must not be.
"""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import reduce

from tests.simulation.faults import matrix, missing
from tests.simulation.mutations import MUTATIONS, caught
from tests.simulation.patches import patched
from tests.simulation.running import Tally, run_world, run_worlds

PIECE = 500  # seeds that a process is given at once
NOTHING = Tally(0, [], Counter(), Counter(), 0, 0.0, 0.0)


def main() -> int:
    options = _parser().parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # Else a set of texts has another order in every run.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if options.mutations:
        return _remove_guards()
    return _replay(options.seed) if options.seed is not None else _run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many worlds (default: 1000)")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first one (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="replay one world, and print its trace")
    parser.add_argument("--mutations", action="store_true", help="remove each guard once: some seed has to fail")
    return parser


def _replay(seed: int) -> int:
    with patched():
        world = run_world(seed, Counter(), trace=print)
    print(f"\nseed {seed}: {world.faults.steps} steps, {world.faults.met} faults, {world.loop.now:.1f} virtual seconds")
    for violation in world.violations:
        print(f"FAILED: {violation}")
    return bool(world.violations)


def _run(options: argparse.Namespace) -> int:
    end, started = options.first + options.seeds, time.monotonic()
    pieces = [range(at, min(at + PIECE, end)) for at in range(options.first, end, PIECE)]
    tallies, shown = [], started
    with ProcessPoolExecutor(options.jobs) as pool:
        for done in as_completed([pool.submit(run_worlds, piece) for piece in pieces]):
            tallies.append(done.result())
            for failure in tallies[-1].failures:
                print(f"seed {failure.seed} FAILED: {failure.what.strip()}\n    {failure.command}", flush=True)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"{sum(tally.worlds for tally in tallies):,} of {options.seeds:,} worlds", flush=True)
    return _report(reduce(Tally.plus, tallies, NOTHING), time.monotonic() - started)


def _report(tally: Tally, seconds: float) -> int:
    print("\nWhat met which step, how often:")
    print("\n".join(matrix(tally.coverage)))
    if never := missing(tally.coverage):
        print(f"Never met: {', '.join(never)}")
    print(f"Answers: {', '.join(f'{word} {count:,}' for word, count in sorted(tally.answers.items()))}")
    print(
        f"{tally.worlds:,} worlds, {tally.steps:,} steps, {sum(tally.coverage.values()):,} faults,"
        f" {tally.virtual_s:,.0f} virtual seconds in {seconds:,.0f} s"
        f" ({1000 * tally.seconds / max(tally.worlds, 1):.1f} ms of CPU time each): {len(tally.failures)} failed"
    )
    return bool(tally.failures)


def _remove_guards() -> int:
    uncaught = 0
    for guard in MUTATIONS:
        failure = caught(guard)
        uncaught += failure is None
        print(
            f"{guard}: "
            + ("NOT CAUGHT" if failure is None else f"seed {failure.seed}, {failure.what.splitlines()[-1]}")
        )
    return bool(uncaught)


if __name__ == "__main__":
    sys.exit(main())
