"""Which fault meets which step, by a seed: some at a step of a kind that was picked for it, some wherever they fall.
And how often each has met each, over many seeds: the coverage.

It decides only that something happens; the servers and the processes do it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple

BEFORE = ("reset_before", "killed_before", "silent_before", "late", "restart_before", "crash_before")
AFTER = ("reset_after", "silent_after", "restart_after", "crash_after", "stop_after")
STATEMENT = BEFORE + AFTER
# What may happen at each step: of the ledger, of the mirror, of the stream, of the disk.
FAULTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "register",
            "heartbeat",
            "compare",
            "reap",
            "give",
            "close",
            "shards",
            "ring",
            "rung",
            "lookup",
            "order_read",
            "resolve",
            "begin",
            "commit_batch",
            "commit",
            "rollback",
            "drain",
            "remove",
            "relay",
            "sweep",
            "bury",
            "leave",
        ),
        STATEMENT,
    ),
    "take": (*STATEMENT, "late_of_dead"),
    "commit_whole": (*STATEMENT, "stalled", "late_of_dead", "deaf", "deaf"),
    "copy": (*STATEMENT, "stalled"),
    "connect": ("refused",),
    "mirror_push": ("lost_before", "answer_lost", "empty", "stale", "crash_before", "stop_before"),
    "mirror_read": ("lost_before", "answer_lost", "empty", "stale"),
    "mirror_ring": ("lost_before", "answer_lost"),
    "publish": ("lost_before", "lost_half", "lost_ack", "crash_before", "crash_after", "stop_before"),
    "relay_publish": ("lost_before", "lost_half", "lost_ack", "crash_before", "crash_after"),
    "journal_open": ("full",),
    "journal_append": ("full",),
    "journal_fsync": ("fsync_failed", "crash_before", "crash_after"),
    "journal_read": (),
}
# Steps that only a path besides the usual one comes to are picked as often as the others together.
RARE = (
    "commit_whole",
    "give",
    "close",
    "resolve",
    "commit_batch",
    "copy",
    "commit",
    "remove",
    "leave",
    "bury",
    "relay",
    "journal_fsync",
)


class Theme(NamedTuple):
    """What a world has besides what its seed picks: faults at some steps, and happenings."""

    faults: Sequence[tuple[str, str]] = ()  # step, fault
    events: Sequence[str] = ()


class Faults:
    """One per world. `draw` says what meets a step."""

    def __init__(self, random: Random, coverage: Counter[tuple[str, str]], theme: Theme) -> None:
        self.steps = 0
        self.met = 0
        self._coverage = coverage
        self._choice = random.choice
        self._focus: dict[str, list[tuple[int, str]]] = {}
        self._seen: Counter[str] = Counter()
        # One among the first steps: every world has a fault.
        self._gaps = [random.randrange(20, 180)]
        self._gaps += sorted(random.randrange(180, 900) for _ in range(random.choice((0, 0, 1, 3))))
        for _ in range(random.choice((1, 1, 2, 3))):
            step = random.choice(RARE if random.random() < 0.5 else tuple(FAULTS))
            if FAULTS[step]:
                fault, nth = random.choice(FAULTS[step]), random.choice((1, 1, 2, 3, 5))
                self._focus.setdefault(step, []).append((nth, fault))
        for step, fault in theme.faults:
            self._focus.setdefault(step, []).append((random.choice((1, 2, 3, 5)), fault))

    def draw(self, step: str) -> str | None:
        """The fault that meets this step; None nearly always."""
        self.steps += 1
        fault = None
        if self._gaps and self.steps >= self._gaps[0] and FAULTS.get(step):
            self._gaps.pop(0)
            fault = self._choice(FAULTS[step])
        elif step in self._focus:
            self._seen[step] += 1
            fault = next((fault for nth, fault in self._focus[step] if nth == self._seen[step]), None)
        if fault is not None:
            self.note(fault, step)
        return fault

    def note(self, fault: str, step: str) -> None:
        self.met += 1
        self._coverage[fault, step] += 1

    def end(self) -> None:
        """From now on nothing happens any more."""
        self._gaps.clear()
        self._focus.clear()


def matrix(coverage: Mapping[tuple[str, str], int]) -> Iterable[str]:
    """Lines of a table: a row for each step, and what has met it how often."""
    steps = sorted({step for _, step in coverage})
    wide = max((len(step) for step in steps), default=0)
    for step in steps:
        met = sorted((fault, count) for (fault, at), count in coverage.items() if at == step)
        yield f"{step:{wide}}  {', '.join(f'{fault} {count:,}' for fault, count in met)}"


def missing(coverage: Mapping[tuple[str, str], int]) -> list[str]:
    """Faults that could have met a step and never have."""
    return [
        f"{fault} at {step}" for step, faults in FAULTS.items() for fault in faults if not coverage.get((fault, step))
    ]
