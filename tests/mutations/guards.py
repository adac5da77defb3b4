"""The guards that a row of the matrix has to miss, and how each is taken away: by a patch of the product's code as its
processes import it (removals.py), or of a function of the ledger, or by dropping what the ledger checks. Those that no
row can miss are listed with the reason; the simulation has to.
"""

from typing import NamedTuple

from bench.faults.times import SCALED, Times

WIDE_WINDOW = SCALED._replace(duplicate_window=60)  # An event that the relay sends again falls into it.
COMMIT_WHOLE, COMMIT_BATCH = "commit_whole", "commit_batch"
LEASE_HAS_THEM = "case l.state when 'active' then l.used + d.units <= l.units else false end"


class Fragment(NamedTuple):
    """What stands once in the text of a function of the ledger, and what is to stand there."""

    function: str
    before: str
    after: str


class Mutation(NamedTuple):
    """`row` has to fail. `removed` names the patch; `statements` are run besides. At most `injections` are tried, at
    `rate` times the orders of the row.
    """

    row: int
    removed: str = ""
    fragments: tuple[Fragment, ...] = ()
    statements: tuple[str, ...] = ()
    injections: int = 4
    rate: float = 1.0
    times: Times = SCALED


MUTATIONS: dict[str, Mutation] = {
    "batch outcome": Mutation(10, "batch outcome"),
    "lease state and bound": Mutation(
        4,
        fragments=(
            Fragment(COMMIT_WHOLE, LEASE_HAS_THEM, "true"),
            Fragment(COMMIT_BATCH, LEASE_HAS_THEM, "true"),
            Fragment(COMMIT_BATCH, " or l.state <> 'active' or l.used + d.units > l.units", ""),
        ),
        statements=("alter table stock_lease drop constraint stock_lease_check",),
        injections=3,
    ),
    "known key before refusal": Mutation(36, "known key", injections=5, rate=4.0),
    "journal lock": Mutation(22, "journal lock", injections=2),
    "CRC": Mutation(20, "CRC", injections=6),
    "key claim": Mutation(
        36, statements=("alter table idempotency_key drop constraint idempotency_key_pkey",), injections=2
    ),
    "limit": Mutation(
        36,
        fragments=(
            Fragment(COMMIT_WHOLE, "where b.taken + t.units <= t.units_max;", ";"),
            Fragment(COMMIT_BATCH, "array_agg(t.n) filter (where b.taken + t.units > t.units_max)", "null::integer[]"),
        ),
        injections=8,  # Until some of the buyers have come three times.
        rate=4.0,
    ),
    "event id": Mutation(31, "event id", times=WIDE_WINDOW),
    "outbox": Mutation(
        2,
        fragments=(Fragment(COMMIT_WHOLE, "insert into outbox (batch_id, order_ids, versions) values", "perform"),),
    ),
    "journal: fsync before the receipt": Mutation(21, "journal fsync", injections=2),
    "journal: pins its owner's leases": Mutation(23, "journal pins", injections=2),
}

# Guards of the simulation that no row can miss, and why.
UNSEEN = {
    "plain insert of the batch id": "who fences a batch ends its backend, and a late batch finds its keys claimed",
    "alive check of take": "the steward closes the leases of the dead again and again",
    "heartbeat read-back": "a lease is in doubt only after three gives of a nearly sold-out SKU that nobody answered",
    "mirror version": "nothing is decided on the mirror's word",
    "exact tail": "who is told too early that a SKU is sold out goes, and others buy the rest",
    "COMMIT tag": "the driver reports the error that aborted the transaction before",
    "backend reaper": "a worker ends the commit that it gives up, and an adopter those of the dead",
}
