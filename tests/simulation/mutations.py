"""The guards, and what takes each of them away: with any of them gone some seed has to fail. Whoever runs mutations
needs nothing but MUTATIONS and `caught`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from gateway.admission import Admission
from gateway.clock_steps import ClockSteps
from gateway.comparison import Comparison
from gateway.domain.outcomes import Outcome, Promise, Refusal
from gateway.leases import Leases
from gateway.parking import Demand, Parking
from persistence.journal import reading
from persistence.journal.format import Head
from persistence.postgres import control
from persistence.postgres.session import Session
from tests.simulation.faults import PLAIN, Theme, theme_of
from tests.simulation.guards import GUARDS
from tests.simulation.running import Failure, first_failure

SEEDS_MAX = 2000  # until a mutation counts as not caught


class Change(NamedTuple):
    """The attribute `name` of `target` is `value` instead."""

    target: Any
    name: str
    value: Any


def _refuse_at_once(_: Admission, refusal: Refusal, _request: object, outcome: Promise) -> None:
    outcome.set_result(refusal)


async def _refuse(_: Admission, refusal: Refusal, *_known: object) -> Outcome:
    return refusal


def _holds_nobody_back(_: Parking, _demand: Demand) -> bool:
    return False


async def _give_nothing(leases: Leases) -> None:
    leases._called = {}


async def _taken_for_stored(*_in_doubt: object) -> bool:
    return True


async def _compares_nothing(_: Comparison) -> None:
    pass


def _sees_nothing(*_: object) -> float:
    return 0.0


async def _ends_nobody(_: Session) -> int:
    return 0


def _is_payload(payload: bytes, head: Head, _seed: int) -> bool:
    return len(payload) == head.length


_short = Leases._short


def _short_of_free(leases: Leases, sku: str, free: int, _outstanding: int) -> None:
    _short(leases, sku, free, 0)


def _model(*names: str) -> Sequence[Change]:
    return tuple(Change(GUARDS, name, value=False) for name in names)


class Mutation(NamedTuple):
    """What removes a guard, and what the guard is there for: with that in every world it takes fewer of them."""

    changes: Sequence[Change]
    theme: Theme = PLAIN


# Guard -> its removal. Where it stands in SQL, or in a server, it is removed from the model of that.
MUTATIONS: dict[str, Mutation] = {
    "batch outcome: an order in doubt is stored when the ledger says so": Mutation(
        (Change(control, "resolve", _taken_for_stored),), theme_of(faults=[("commit_whole", "silent_before")])
    ),
    "plain insert of the batch id: a batch is committed once, or fenced": Mutation(
        _model("batch_once"), theme_of(faults=[("commit_whole", "deaf")])
    ),
    # Each of the two holds alone: closing a lease leaves it no units.
    "lease state and bound: a commit takes from active leases what they have": Mutation(
        _model("lease_state", "lease_bound"),
        theme_of(faults=[("take", "late_of_dead"), ("heartbeat", "stop_after")], events=["stop"]),
    ),
    "alive check of take: the dead are granted nothing": Mutation(
        _model("take_owner_alive"), theme_of(faults=[("take", "late_of_dead")])
    ),
    "heartbeat read-back: till and ledger have the same leases": Mutation(
        (Change(Comparison, "step", _compares_nothing),),
        theme_of("scarce", faults=[("give", "restart_before")], events=["postgres_down"]),
    ),
    "mirror version: the later state of a shard stays": Mutation(
        _model("mirror_version"), theme_of(faults=[("mirror_push", "stop_before")])
    ),
    "exact tail: a take of the last units says how many there are": Mutation(_model("exact_tail"), theme_of("scarce")),
    "exact tail: units in hands are not sold out": Mutation((Change(Leases, "_short", _short_of_free),)),
    "known key before refusal: a retry gets its order": Mutation(
        (Change(Admission, "_refuse_unless_known", _refuse_at_once), Change(Admission, "_unless_known", _refuse))
    ),
    "journal lock: only its holder replays a journal": Mutation(
        _model("journal_lock"), theme_of("journal", events=["postgres_down"])
    ),
    "CRC: a torn record is none": Mutation(
        (Change(reading, "is_payload", _is_payload),),
        theme_of("journal", faults=[("journal_fsync", "crash_before")], events=["postgres_down", "power"]),
    ),
    "key claim: a key belongs to one order": Mutation(_model("key_once")),
    "limit: a buyer holds no more than he may": Mutation(_model("buyer_limit"), theme_of("limited")),
    "event id: the stream stores an event once": Mutation(
        _model("event_id"), theme_of(faults=[("publish", "lost_ack"), ("relay_publish", "lost_ack")])
    ),
    "COMMIT tag: a transaction that was rolled back is not committed": Mutation(
        _model("commit_tag"), theme_of(faults=[("commit_whole", "aborted")])
    ),
    "backend reaper: a committer that hangs gives up its locks": Mutation(
        (Change(control, "reap", _ends_nobody),),
        theme_of("limited", "doubling", faults=[("copy", "stalled"), ("commit_whole", "stalled")]),
    ),
    "take: a lease id is granted once": Mutation(
        _model("take_once_per_lease"), theme_of(faults=[("take", "silent_after")])
    ),
    "give: names the units that the lease had": Mutation(
        _model("give_names_old_value"),
        theme_of(
            "contested",
            "limited",
            "doubling",
            faults=3 * [("give", "silent_after")] + 3 * [("begin", "late")],
            events=["postgres_slow"],
        ),
    ),
    "outbox: its row is written with the orders": Mutation(_model("outbox_row")),
    "journal: fsync before the receipt": Mutation(_model("fsync"), theme_of(events=["postgres_down", "crash"])),
    "journal: pins its owner's leases": Mutation(
        _model("journal_pins_leases"), theme_of("journal", events=["postgres_down", "stop", "stop"])
    ),
    "expiry: an order that is paid does not expire": Mutation(_model("expiry_state"), theme_of("expiring")),
    "clock: one that is put forward ends no order early": Mutation(
        (Change(ClockSteps, "ahead_s", _sees_nothing),), theme_of("expiring", "long", events=["step_ledger"])
    ),
    "parking: nobody overtakes": Mutation((Change(Parking, "holds_back", _holds_nobody_back),)),
    "calls: units go back to whoever waits": Mutation((Change(Leases, "_answer_calls", _give_nothing),)),
}


@contextmanager
def without(guard: str) -> Iterator[None]:
    """For the length of a block the guard is gone."""
    with ExitStack() as stack:
        for target, name, value in MUTATIONS[guard].changes:
            stack.enter_context(patch.object(target, name, value))
        yield


def caught(guard: str, seeds_max: int = SEEDS_MAX) -> Failure | None:
    """The first seed that fails without the guard; None when none of so many does."""
    with without(guard):
        return first_failure(range(seeds_max), MUTATIONS[guard].theme)
