"""The pieces of a run: how many inputs each target and engine gets, and the processes that try them, of which a crash,
or a standstill, is a finding like any other.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from deploy.local.process import Process
from tests.fuzz import guided
from tests.fuzz.child import ATHERIS
from tests.fuzz.guided import FAILING
from tests.fuzz.progress import Tally, read_page, read_tally

DRAWN = "hypothesis"
# Of the inputs. What takes longer gets fewer; none of a million gets less than 100,000.
SHARES = {
    ("body", DRAWN): 0.30,
    ("body", ATHERIS): 0.15,
    ("headers", DRAWN): 0.15,
    ("journal", DRAWN): 0.15,
    ("journal", ATHERIS): 0.15,
    ("lua", DRAWN): 0.10,
}
NOT_INSTALLED = "atheris is not installed: pip install --editable '.[fuzz]'; hypothesis has tried these inputs"
LOOK_AGAIN_S = 0.2
STARTING_S_MAX = 180.0  # until the first input is tried, servers included
STANDSTILL_S_MAX = 60.0
STOP_S = 60.0


class Piece(NamedTuple):
    """What one process tries."""

    target: str
    engine: str
    inputs: int


class Outcome(NamedTuple):
    """What has become of a piece. `failing`: the inputs that its finding is about; `reason`: why it was not run."""

    piece: Piece
    tally: Tally
    failing: bytes = b""
    reason: str = ""
    log: str = ""

    @property
    def status(self) -> str:
        return "not_run" if self.reason else "failed" if self.tally.finding else "passed"


def plan(targets: Sequence[str], inputs: int, *, has_atheris: bool) -> list[Piece]:
    """Pieces that make `inputs` together; those of atheris are tried by hypothesis where there is none."""
    shares = {key: share for key, share in SHARES.items() if key[0] in targets}
    whole = sum(shares.values())
    counts = {key: round(inputs * share / whole) for key, share in shares.items()}
    if not has_atheris:
        for target, engine in [key for key in counts if key[1] == ATHERIS]:
            counts[target, DRAWN] += counts[target, engine]
            counts[target, engine] = 0
    return [Piece(*key, count) for key, count in counts.items()]


class Running:
    """A piece that is being tried, in a folder of its own."""

    def __init__(self, piece: Piece, seed: int, folder: Path) -> None:
        self.piece = piece
        self._folder = folder
        folder.mkdir(parents=True)
        environment = os.environ | (guided.ENVIRONMENT if piece.engine == ATHERIS else {})
        command = [sys.executable, "-m", "tests.fuzz.child", piece.target, piece.engine, str(piece.inputs), str(seed)]
        self._process = Process(piece.target, [*command, str(folder)], folder / "log", environment=environment)
        self._process.start()
        self._begun = 0
        self._moved = time.monotonic()

    def outcome(self) -> Outcome | None:
        """None as long as it runs, and moves."""
        status = self._process.poll()
        if status is None:
            if not self._stands_still():
                return None
            self.stop()
            return self._ended("it stands still", "hung")
        tally = read_tally(self._folder)
        if tally.finding or (status == 0 and tally.ended):
            return self._ended(tally.finding, tally.kind)
        return self._ended(f"the process has ended with {status}", "crash")

    def stop(self) -> None:
        self._process.stop(STOP_S)

    def _stands_still(self) -> bool:
        begun, _ = read_page(self._folder)
        now = time.monotonic()
        if begun != self._begun:
            self._begun, self._moved = begun, now
        return now - self._moved > (STANDSTILL_S_MAX if begun else STARTING_S_MAX)

    def _ended(self, finding: str, kind: str) -> Outcome:
        tally = read_tally(self._folder)
        tally.finding, tally.kind = finding, kind
        if not finding:
            return Outcome(self.piece, tally)
        failing = self._folder / FAILING
        inputs = failing.read_bytes() if failing.exists() else read_page(self._folder)[1]
        return Outcome(self.piece, tally, inputs, log=self._process.tail(30))


def run(pieces: Sequence[Piece], seed: int, folder: Path, jobs: int, tell: Callable[[Outcome], None]) -> list[Outcome]:
    """Try all pieces, so many at once; each outcome is told as soon as it is known."""
    waiting = list(pieces)
    running: list[Running] = []
    outcomes: list[Outcome] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                piece = waiting.pop(0)
                if piece.inputs:
                    running.append(Running(piece, seed, folder / f"{piece.target}-{piece.engine}"))
                else:
                    outcomes.append(Outcome(piece, Tally(), reason=NOT_INSTALLED))
                    tell(outcomes[-1])
            time.sleep(LOOK_AGAIN_S)
            for one in list(running):
                if (outcome := one.outcome()) is not None:
                    running.remove(one)
                    outcomes.append(outcome)
                    tell(outcome)
    finally:
        for one in running:
            one.stop()
    return outcomes
