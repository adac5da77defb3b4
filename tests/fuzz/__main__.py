"""`python -m tests.fuzz [TARGET…]`: a million inputs, or `--inputs` of them, that nobody should send. Ends with 1 when
something was found that must not be; each finding is printed with the command that replays it.
"""

import argparse
import json
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench.environment import brief
from tests.fuzz import guided, pieces
from tests.fuzz.child import CLASSES, open_target
from tests.fuzz.memory import MIB
from tests.fuzz.pieces import Outcome

INPUTS = 1_000_000
KEPT = Path(__file__).parents[2] / "build" / "fuzz"
SHOWN_CHARS = 600
COLUMNS = "{:<8} {:<10} {:>9} {:>9} {:>9} {:>4} {:>7} {:>9} {:>9} {:>7}  {}"


def main() -> int:
    options = _parser().parse_args()
    if options.replay is not None:
        return _replay(options.targets, options.replay)
    targets = options.targets or list(CLASSES)
    planned = pieces.plan(targets, options.inputs, has_atheris=guided.is_installed())
    print(f"Seed {options.seed}. Memory is that of the processes under test, once they are warm and in the end.\n")
    print(COLUMNS.format("target", "engine", "inputs", "accepted", "refused", "500", "crashes", "RSS MiB", "", "s", ""))
    folder = Path(tempfile.mkdtemp(prefix="floodgate-fuzz-"))
    try:
        outcomes = pieces.run(planned, options.seed, folder, options.jobs, lambda one: _tell(one, options.seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report = [_row(outcome) for outcome in outcomes]
    found = sum(row["status"] == "failed" for row in report)
    print(f"\n{sum(row['inputs'] for row in report):,} inputs: {found} findings")
    if options.json is not None:
        record = {"environment": brief(), "seed": options.seed, "pieces": report}
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return bool(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[*CLASSES, []], help=", ".join(CLASSES))
    parser.add_argument("--inputs", type=int, default=INPUTS, metavar="N", help=f"of all targets (default {INPUTS:,})")
    parser.add_argument(
        "--seed", type=int, default=secrets.randbelow(1 << 31), metavar="SEED", help="decides the inputs"
    )
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at once (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try the inputs of a finding again, on one TARGET")
    return parser


def _replay(targets: Sequence[str], path: Path) -> int:
    if len(targets) != 1:
        sys.exit("name the target of the finding")
    target = open_target(targets[0])
    try:
        inputs = msgspec.msgpack.decode(path.read_bytes(), type=list[target.shape])  # type: ignore[name-defined]
        for one in inputs:
            print(f"{one!r:.{SHOWN_CHARS}}", flush=True)
            print(*target.check([one]))
        target.finish()
    finally:
        target.close()
    return 0


def _row(outcome: Outcome) -> dict[str, Any]:
    tally, piece = outcome.tally, outcome.piece
    return {
        "target": piece.target,
        "engine": piece.engine,
        "status": outcome.status,
        "reason": outcome.reason,
        "inputs": tally.inputs,
        "accepted": tally.accepted,
        "refused": tally.inputs - tally.accepted,
        "errors_500": int(tally.kind == "500"),
        "crashes": int(tally.kind in ("crash", "hung")),
        "rss_warm_mib": round(tally.warm_bytes / MIB, 1),
        "rss_end_mib": round(tally.last_bytes / MIB, 1),
        "seconds": round(tally.seconds, 1),
        "answers": dict(sorted(tally.answers.items())),
        "finding": tally.finding,
    }


def _tell(outcome: Outcome, seed: int) -> None:
    row = _row(outcome)
    names = (
        "target",
        "engine",
        "inputs",
        "accepted",
        "refused",
        "errors_500",
        "crashes",
        "rss_warm_mib",
        "rss_end_mib",
    )
    words = {"not_run": f"not run: {outcome.reason}", "failed": "FAILED", "passed": "passed"}
    print(COLUMNS.format(*(_number(row[name]) for name in names), f"{row['seconds']:.0f}", words[outcome.status]))
    if outcome.status == "failed":
        _tell_finding(outcome, seed)
    sys.stdout.flush()


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _tell_finding(outcome: Outcome, seed: int) -> None:
    target = outcome.piece.target
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{target}-{outcome.piece.engine}-{seed}"
    path.write_bytes(outcome.failing)
    print(f"    {outcome.tally.finding}")
    print(f"    {outcome.failing!r:.{SHOWN_CHARS}}")
    print(f"    .venv/bin/python -m tests.fuzz {target} --replay {path}")
    for line in outcome.log.splitlines():
        print(f"    | {line}")


if __name__ == "__main__":
    sys.exit(main())
