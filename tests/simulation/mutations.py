"""The guards, and what takes each of them away: with any of them gone some seed has to fail. Whoever runs mutations
needs nothing but MUTATIONS and `caught`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from gateway.admission import Admission
from gateway.domain.outcomes import Outcome, Promise, Refusal
from gateway.leases import Leases
from gateway.parking import Demand, Parking
from tests.simulation.faults import Theme
from tests.simulation.guards import GUARDS
from tests.simulation.running import Failure, first_failure
from tests.simulation.world import PLAIN

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


_short = Leases._short


def _short_of_free(leases: Leases, sku: str, free: int, _outstanding: int) -> None:
    _short(leases, sku, free, 0)


def _model(name: str) -> Sequence[Change]:
    return (Change(GUARDS, name, value=False),)


class Mutation(NamedTuple):
    """What removes a guard, and what the guard is there for: with that in every world it takes fewer of them."""

    changes: Sequence[Change]
    theme: Theme = PLAIN


# Guard -> its removal. The first ones stand in SQL, or in a server, and are removed from the model of it.
MUTATIONS: dict[str, Mutation] = {
    "take: its owner is alive": Mutation(_model("take_owner_alive"), Theme([("take", "late_of_dead")])),
    "take: a lease id is granted once": Mutation(_model("take_once_per_lease"), Theme([("take", "silent_after")])),
    "give: names the units that the lease had": Mutation(
        _model("give_names_old_value"), Theme([("give", "reset_after"), ("commit_whole", "late")], ["postgres_slow"])
    ),
    "commit: the batch id is inserted once": Mutation(_model("batch_once"), Theme([("commit_whole", "deaf")])),
    "commit: the lease is active and has the units": Mutation(
        _model("lease_bound"), Theme([("take", "late_of_dead"), ("heartbeat", "stop_after")], ["stop"])
    ),
    "commit: a key belongs to one order": Mutation(_model("key_once")),
    "commit: the buyer's limit": Mutation(_model("buyer_limit")),
    "commit: the row of the outbox": Mutation(_model("outbox_row")),
    "journal: fsync before the receipt": Mutation(_model("fsync"), Theme(events=["postgres_down", "crash"])),
    "journal: pins its owner's leases": Mutation(
        _model("journal_pins_leases"), Theme(events=["postgres_down", "stop", "stop"])
    ),
    "journal: only the holder of its lock replays it": Mutation(
        _model("journal_lock"), Theme(events=["postgres_down"])
    ),
    "refusal: a known key beats it": Mutation(
        (Change(Admission, "_refuse_unless_known", _refuse_at_once), Change(Admission, "_unless_known", _refuse))
    ),
    "parking: nobody overtakes": Mutation((Change(Parking, "holds_back", _holds_nobody_back),)),
    "sold out: units in hands count": Mutation((Change(Leases, "_short", _short_of_free),)),
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
