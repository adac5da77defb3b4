"""Which fault meets which step, by a seed: one that every world is after in its turn, some at a step of a kind that was
picked for it, some wherever they fall. And how often each has met each, over many seeds: the coverage.

It decides only that something happens; the servers and the processes do it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple

BEFORE = ("reset_before", "killed_before", "silent_before", "late", "restart_before", "crash_before")
AFTER = ("reset_after", "silent_after", "restart_after", "crash_after", "stop_after")
STATEMENT = BEFORE + AFTER


def _each(*steps: str) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(steps, STATEMENT)


# The steps of the road, and what may happen at each: of the ledger, of the mirror, of the stream, of the disk.
ROAD: dict[str, dict[str, tuple[str, ...]]] = {
    "owner": {"connect": ("refused",), **_each("register", "heartbeat", "compare", "reap", "bury", "leave")},
    "take": {
        "take": (*STATEMENT, "late_of_dead"),
        "mirror_push": ("lost_before", "answer_lost", "empty", "stale", "crash_before", "stop_before"),
        "mirror_read": ("lost_before", "answer_lost", "empty", "stale"),
    },
    "give": {**_each("give", "close", "shards", "ring", "rung"), "mirror_ring": ("lost_before", "answer_lost")},
    "commit": {
        "commit_whole": (*STATEMENT, "aborted", "stalled", "late_of_dead", "deaf"),
        **_each("begin", "commit_batch"),
        "copy": (*STATEMENT, "stalled"),
        "commit": (*STATEMENT, "aborted"),
        **_each("resolve", "lookup", "order_read"),
    },
    "journal": {
        "journal_open": ("full",),
        "journal_append": ("full", "failed", "crash_before", "crash_after"),
        "journal_fsync": ("fsync_failed", "crash_before", "crash_after"),
        "journal_read": ("crash_before",),
        "journal_clear": ("failed", "crash_before", "crash_after"),
        **_each("drain"),
    },
    "outbox": {
        "publish": ("lost_before", "lost_half", "lost_ack", "crash_before", "crash_after", "stop_before"),
        "relay_publish": ("lost_before", "lost_half", "lost_ack", "crash_before", "crash_after"),
        **_each("remove", "relay", "session_begin", "session_commit", "rollback", "sweep"),
    },
    "expiry": {
        **_each("look", "expire", "note_step"),
        "expire_publish": ("lost_before", "lost_half", "lost_ack", "crash_before", "crash_after"),
    },
}
FAULTS = {step: faults for steps in ROAD.values() for step, faults in steps.items()}
# What befalls a worker whatever it does just then, and the states that it may be in, each with the step that it begins
# with and how soon after that.
EVENTS = (
    "postgres_down",
    "postgres_slow",
    "cut",
    "redis_down",
    "nats_down",
    "crash",
    "power",
    "stop",
    "leave",
    "step",
    "step_ledger",
    "mode",
)
STATES: dict[str, tuple[str, float]] = {
    "idle": ("heartbeat", 0.0),
    "taking": ("take", 0.0),
    "parked": ("park", 0.0),
    "committing": ("commit_whole", 0.0),
    "journaled": ("journal_fsync", 0.005),
    "publishing": ("publish", 0.0),
}
CELLS = (
    *((fault, step) for step, faults in FAULTS.items() for fault in faults),
    *((event, state) for state in STATES for event in EVENTS),
)


class Theme(NamedTuple):
    """What a world has besides what its seed picks: faults at some steps, what befalls it, and what it is like."""

    faults: Sequence[tuple[str, str]] = ()  # step, fault
    events: Sequence[str] = ()
    traits: frozenset[str] = frozenset()

    def plus(self, other: "Theme") -> "Theme":
        return Theme((*self.faults, *other.faults), (*self.events, *other.events), self.traits | other.traits)


def theme_of(*traits: str, faults: Sequence[tuple[str, str]] = (), events: Sequence[str] = ()) -> Theme:
    return Theme(faults, events, frozenset(traits))


PLAIN = Theme()
_STEPWISE = theme_of("limited", "doubling")
_CONTESTED = theme_of("contested", "limited", "doubling", "long")
_JOURNALED = theme_of("journal", "plenty", "long", events=("postgres_down",))
_RELAYED = theme_of("long", faults=[("publish", "lost_before")])
# What leads to the steps that a world seldom comes to by itself.
LEADS: dict[str, Theme] = {
    **dict.fromkeys(("begin", "commit_batch", "copy", "commit"), _STEPWISE),
    **dict.fromkeys(("give", "shards"), _CONTESTED),
    **dict.fromkeys(
        ("journal_append", "journal_fsync", "journal_read", "journal_clear", "journaled"),
        _JOURNALED,
    ),
    **dict.fromkeys(("ring", "mirror_ring", "mirror_read"), _CONTESTED.plus(theme_of(events=("stop", "stop")))),
    "lookup": theme_of("scarce"),
    "close": theme_of("long", events=("crash", "crash")),
    "resolve": theme_of("reject", faults=[("commit_whole", "silent_after")]),
    "drain": _JOURNALED.plus(theme_of("wary", "doubling")),
    "leave": theme_of("long", events=("leave",)),
    "relay_publish": _RELAYED,
    "rollback": _RELAYED.plus(theme_of(faults=2 * [("relay_publish", "lost_before")])),
    "sweep": theme_of("long"),
    **dict.fromkeys(("look", "expire", "expire_publish"), theme_of("expiring", "long")),
    "note_step": theme_of("expiring", "long", events=("step_ledger", "step_ledger", "step_ledger")),
}
# What the world of each seed in turn is after; those that are often missed have several turns.
TURNS = {
    "ring": 4,
    "give": 3,
    "note_step": 2,
    **dict.fromkeys(("mirror_ring", "mirror_read", "journal_clear", "drain", "rollback", "leave", "resolve"), 2),
}
TARGETS = tuple(cell for cell in CELLS for _ in range(TURNS.get(cell[1], 1)))


class Faults:
    """One per world. `draw` says what meets a step. `target` is what the world is after: a fault and a step, or what
    befalls it and a state.
    """

    def __init__(
        self, random: Random, coverage: Counter[tuple[str, str]], theme: Theme, target: tuple[str, str]
    ) -> None:
        self.steps = 0
        self.met = 0
        self.befall: Callable[[str, float], None] = lambda _event, _pause_s: None
        self._coverage = coverage
        self._choice = random.choice
        self._focus: dict[str, list[tuple[int, str]]] = {}
        self._seen: Counter[str] = Counter()
        # One among the first steps: every world has a fault.
        self._gaps = [random.randrange(20, 180)]
        self._gaps += sorted(random.randrange(180, 900) for _ in range(random.choice((0, 0, 1, 3))))
        for _ in range(random.choice((0, 0, 1, 2))):
            step = random.choice(tuple(FAULTS))
            self._aim(step, random.choice(FAULTS[step]), random.choice((1, 1, 2, 3, 5)))
        for step, fault in theme.faults:
            self._aim(step, fault, random.choice((1, 1, 2, 3)))
        what, where = target
        nth = 1 if where in LEADS else random.choice((1, 1, 1, 2, 3))
        self._aim(STATES[where][0] if where in STATES else where, what, nth)
        self._pause_s = STATES[where][1] if where in STATES else 0.0

    def draw(self, step: str) -> str | None:
        """The fault that meets this step; None nearly always."""
        self.steps += 1
        fault = None
        if self._gaps and self.steps >= self._gaps[0] and step in FAULTS:
            self._gaps.pop(0)
            fault = self._choice(FAULTS[step])
        elif step in self._focus:
            self._seen[step] += 1
            fault = next((fault for nth, fault in self._focus[step] if nth == self._seen[step]), None)
        if fault is None:
            return None
        if fault in EVENTS:
            self.befall(fault, self._pause_s)
            return None
        self.note(fault, step)
        return fault

    def note(self, fault: str, step: str) -> None:
        self.met += 1
        self._coverage[fault, step] += 1

    def end(self) -> None:
        """From now on nothing happens any more."""
        self._gaps.clear()
        self._focus.clear()

    def _aim(self, step: str, fault: str, nth: int) -> None:
        self._focus.setdefault(step, []).append((nth, fault))


def matrix(coverage: Mapping[tuple[str, str], int]) -> Iterable[str]:
    """Lines of a table: a row for each step, and what has met it how often."""
    wide = max(map(len, (*FAULTS, *STATES)))
    befell: dict[str, dict[str, tuple[str, ...]]] = {
        "what befell a worker, by what it was at": dict.fromkeys(STATES, EVENTS)
    }
    for part, steps in (*ROAD.items(), *befell.items()):
        yield f"{part}:"
        for step, faults in steps.items():
            yield f"  {step:{wide}}  {', '.join(f'{fault} {coverage.get((fault, step), 0):,}' for fault in faults)}"


def rarest(coverage: Mapping[tuple[str, str], int]) -> list[tuple[int, str, str]]:
    """How often, what, where: all of the table, the rarest first."""
    return sorted((coverage.get(cell, 0), *cell) for cell in CELLS)
