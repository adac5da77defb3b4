"""`python -m tests.simulation`: many worlds (`--seeds`, `--from`, `--jobs`), one with its trace (`--seed`), or the
guards, each removed once (`--mutations`). Ends with 1 when something was found that must not be, or when so many worlds
have left a part of the road untouched.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import reduce
from pathlib import Path

from bench.environment import brief
from tests.simulation.faults import matrix, rarest
from tests.simulation.mutations import MUTATIONS, caught
from tests.simulation.patches import patched
from tests.simulation.running import Tally, run_world, run_worlds

PIECE = 500  # seeds that a process is given at once
NOTHING = Tally(0, [], Counter(), Counter(), 0, 0.0, 0.0)
RARE_SHOWN = 10
# Each fault has to meet each step once in so many worlds, over at least so many: in fewer that says nothing.
WORLDS_PER_MEETING = 1000
WORLDS_TOLD_MIN = 100_000


def main() -> int:
    options = _parser().parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # Else a set of texts has another order in every run.
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    if options.mutations:
        return _remove_guards(options.json)
    return _replay(options.seed) if options.seed is not None else _run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many worlds (default: 1000)")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first one (default: 0)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--seed", type=int, metavar="SEED", help="replay one world, and print its trace")
    parser.add_argument("--mutations", action="store_true", help="remove each guard once: some seed has to fail")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what came of the worlds, or of the guards")
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
    tally, wall_s = reduce(Tally.plus, tallies, NOTHING), time.monotonic() - started
    if options.json is not None:
        options.json.write_text(json.dumps(_figures(tally, wall_s), indent=1) + "\n")
    return _report(tally, wall_s)


def _figures(tally: Tally, wall_s: float) -> dict[str, object]:
    return {
        "environment": brief(),
        "worlds": tally.worlds,
        "steps": tally.steps,
        "faults": tally.coverage.total(),
        "virtual_s": round(tally.virtual_s),
        "wall_s": round(wall_s),
        "cpu_s": round(tally.seconds),
        "failures": [
            {"seed": failure.seed, "what": failure.what.strip(), "command": failure.command}
            for failure in tally.failures
        ],
        "answers": dict(sorted(tally.answers.items())),
        "coverage": [{"what": what, "where": where, "met": count} for count, what, where in rarest(tally.coverage)],
    }


def _report(tally: Tally, wall_s: float) -> int:
    print("\nWhat met which step, how often:")
    print("\n".join(matrix(tally.coverage)))
    table = rarest(tally.coverage)
    print("Rarest:", ", ".join(f"{what} at {where} {count:,}" for count, what, where in table[:RARE_SHOWN]))
    print(f"Answers: {', '.join(f'{word} {count:,}' for word, count in sorted(tally.answers.items()))}")
    print(
        f"{tally.worlds:,} worlds, {tally.steps:,} steps, {tally.coverage.total():,} faults,"
        f" {tally.virtual_s:,.0f} virtual seconds in {wall_s:,.0f} s"
        f" ({1000 * tally.seconds / max(tally.worlds, 1):.1f} ms of CPU time each): {len(tally.failures)} failed"
    )
    is_thin = tally.worlds >= WORLDS_TOLD_MIN and table[0][0] < tally.worlds // WORLDS_PER_MEETING
    if is_thin:
        print(f"FAILED: {table[0][1]} has met {table[0][2]} less than once in {WORLDS_PER_MEETING:,} worlds")
    return bool(tally.failures) or is_thin


def _remove_guards(file: Path | None) -> int:
    found: list[dict[str, str | None]] = []
    for guard in MUTATIONS:
        failure = caught(guard)
        what = None if failure is None else f"simulation, seed {failure.seed}: {failure.what.splitlines()[-1]}"
        found.append({"guard": guard, "caught_by": what})
        print(f"{guard}: {what or 'NOT CAUGHT'}", flush=True)
    if file is not None:
        file.write_text(json.dumps(found, indent=1) + "\n")
    return any(one["caught_by"] is None for one in found)


if __name__ == "__main__":
    sys.exit(main())
