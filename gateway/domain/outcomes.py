"""What becomes of a request: accepted, or refused with a code. Refusals are values and no exceptions, since nearly
every request of a sale is one.
"""

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


Outcome = Accepted | Refusal


class ProblemError(Exception):
    """A refusal on its way out of a route beside the hot one."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal


def refuse(code: str, detail: str = "", **extra: Any) -> ProblemError:
    """The error to raise for a code of the registry."""
    assert code in PROBLEMS, code
    return ProblemError(Refusal(code, detail, (), extra))
