"""What becomes of a request: accepted, or refused with a code. Refusals are values and no exceptions, since nearly
every request of a sale is one.
"""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from core_ext.codes import PROBLEMS

RETRY_AFTER_S = 1  # what a 503 asks for unless it knows better


class Refusal(Struct, frozen=True):
    """A code of the registry, with what there is to say about this case. `errors` are entries of the problem's `errors`
    (detail, pointer, code, available); `extra` are members of the problem beyond the usual ones. `retry_after_s` is
    what the answer asks for when it knows better than its status does.
    """

    code: str
    detail: str = ""
    errors: tuple[dict[str, Any], ...] = ()
    extra: dict[str, Any] = {}
    retry_after_s: int = 0

    @property
    def status(self) -> int:
        return PROBLEMS[self.code].status


class Accepted(Struct, frozen=True):
    """An order that is in the ledger; `body` is the order as created. `replayed`: an earlier request with the same key
    made it.
    """

    order_id: bytes
    body: bytes
    replayed: bool = False


class Receipt(Struct, frozen=True):
    """An order that is in the journal, and will be a row: no order yet, but never lost. Whoever asks again with the key
    gets the order it has become.
    """


Outcome = Accepted | Receipt | Refusal

RECEIPT = Receipt()

# The same object each time, so that its answer is encoded once, see `gateway.edge.answers`.
OVERLOADED = Refusal("overloaded")
LEDGER_AWAY = Refusal("ledger_away")


class Promise(Struct, eq=False):
    """The outcome of a request, which may not be known yet: an `asyncio.Future` without a loop and without errors.

    Whoever waits is called at once, in the turn in which the outcome becomes known, and must not raise: it is the
    committer that calls, in the middle of its batch. Who waits from the beginning may be given in a list of its own.
    """

    _callbacks: list[Callable[["Promise"], None]] = []
    _outcome: Outcome | None = None

    def done(self) -> bool:
        """Whether the outcome is known."""
        return self._outcome is not None

    def result(self) -> Outcome:
        """The outcome, which has to be known."""
        assert self._outcome is not None, "nobody knows the outcome yet"
        return self._outcome

    def set_result(self, outcome: Outcome) -> None:
        """Say the outcome, once, to all who wait."""
        assert self._outcome is None, "an outcome does not change"
        self._outcome = outcome
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()

    def add_done_callback(self, callback: "Callable[[Promise], None]") -> None:
        """Call when the outcome is known: now, if it is."""
        if self._outcome is None:
            self._callbacks.append(callback)
        else:
            callback(self)


class ProblemError(Exception):
    """A refusal on its way out of a route beside the hot one."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


def refuse(code: str, detail: str = "", **extra: Any) -> ProblemError:
    """The error to raise for a code of the registry."""
    assert code in PROBLEMS, code
    return ProblemError(Refusal(code, detail, (), extra))
