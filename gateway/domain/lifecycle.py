"""The life of an order: its states, and the changes that lead from one to another. This table is the only place where
that is decided: the ledger's guard, the answers of the API, the picture in the README and the matrix of the tests are
made from it.

An order has one state. Where its lines part ways (some units shipped, some cancelled, some come back) the order stays
in its state and the lines count units; money is counted beside both and never decides a state by itself.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

Status = Literal[
    "pending_payment",
    "paid",
    "preparing",
    "shipped",
    "completed",
    "after_sales",
    "cancelled",
    "expired",
    "refunding",
    "refunded",
]
STATUSES: tuple[Status, ...] = get_args(Status)
FIRST: tuple[Status, ...] = ("pending_payment", "paid")  # what an order may begin as
# Nothing is held for these, and nothing but money can change about them any more.
ENDED: tuple[Status, ...] = ("cancelled", "expired", "refunded")


class Change(NamedTuple):
    """A kind of change: what it is called when it is asked for, and the event that tells of it. `moves` are the states
    before and after; they are the same where the order stays what it is.
    """

    action: str
    event: str
    summary: str
    moves: tuple[tuple[Status, Status], ...]

    def targets(self, status: str) -> tuple[Status, ...]:
        """What an order in this state may be afterwards; empty when the change is not allowed."""
        return tuple(after for before, after in self.moves if before == status)


def _to(target: Status, *sources: Status) -> tuple[tuple[Status, Status], ...]:
    return tuple((source, target) for source in sources)


def _in(*statuses: Status) -> tuple[tuple[Status, Status], ...]:
    return tuple((status, status) for status in statuses)


REFUNDABLE: tuple[Status, ...] = ("paid", "preparing", "shipped", "completed", "after_sales")
CHANGES = {
    change.action: change
    for change in (
        Change("pay", "paid", "An order has been paid.", _to("paid", "pending_payment")),
        Change("cancel", "cancelled", "An order was cancelled, its units are free again.", _to("cancelled", *FIRST)),
        Change(
            "expire", "expired", "An order was not paid in time, its units are free again.", _to("expired", FIRST[0])
        ),
        Change("prepare", "preparing", "Its goods are being put together.", _to("preparing", "paid")),
        Change("unprepare", "preparation_stopped", "Its goods went back on the shelf.", _to("paid", "preparing")),
        Change("ship_part", "partially_shipped", "A part of its goods is on the way.", _in("preparing")),
        Change("ship", "shipped", "All goods that it still has are on the way.", _to("shipped", "preparing")),
        Change("deliver", "delivered", "All its goods have arrived.", _in("shipped")),
        Change("complete", "completed", "Nothing is to be done about it any more.", _to("completed", "shipped")),
        Change(
            "claim",
            "after_sales_opened",
            "The buyer wants money or other goods for some of its units.",
            (*_to("after_sales", "shipped", "completed"), *_in("after_sales")),
        ),
        Change(
            "settle",
            "after_sales_closed",
            "What the buyer wanted is settled, or refused.",
            (*_to("shipped", "after_sales"), *_to("completed", "after_sales"), *_in("after_sales")),
        ),
        Change("refund", "refunding", "All its money is on the way back.", _to("refunding", *REFUNDABLE)),
        Change("finish_refund", "refunded", "All its money is back.", _to("refunded", "refunding")),
        Change(
            "fail_refund",
            "refund_failed",
            "Its money could not be sent back; it is what it was before.",
            tuple(("refunding", status) for status in REFUNDABLE),
        ),
        Change(
            "cancel_lines",
            "lines_cancelled",
            "Some of its units are free again.",
            (*_in("pending_payment", "paid", "preparing"), *_to("shipped", "preparing")),
        ),
        Change("change", "changed", "Its address or its note is another one.", _in(*FIRST)),
        Change("receive_money", "payment_received", "Money came that did not make it paid.", _in(*STATUSES)),
        Change("return_money", "money_returned", "Some of its money is back with the buyer.", _in(*STATUSES)),
    )
}
assert len({change.event for change in CHANGES.values()}) == len(CHANGES)


def moves() -> list[tuple[Status, Status]]:
    """Every pair of states that some change leads through, in the order of the states; pairs of the same state are
    changes that leave the order what it is.
    """
    found = {move for change in CHANGES.values() for move in change.moves}
    return sorted(found, key=lambda move: (STATUSES.index(move[0]), STATUSES.index(move[1])))


def allowed(status: str, of: Iterable[str] = CHANGES) -> list[str]:
    """The actions, of these, that an order in this state allows, in the order of the table."""
    wanted = set(of)
    return [action for action, change in CHANGES.items() if action in wanted and change.targets(status)]


def guard_sql() -> str:
    """The condition of the ledger's guard: whether `old.status` may become `new.status`."""
    after = {status: [target for source, target in moves() if source == status] for status in STATUSES}
    cases = "\n".join(
        f"        when '{status}' then new.status in ({', '.join(map(repr, targets))})"
        for status, targets in after.items()
    )
    return f"case old.status\n{cases}\n        else false end"
