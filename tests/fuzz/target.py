"""What a target of the fuzzing is: where inputs go, and what is checked of each.

It promises that an input is all there is to a finding: kept in a file, it fails again by itself. Whatever `check` does
not raise a FindingError for has been looked at and is in order.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, NamedTuple, TypeVar

from hypothesis import strategies as st
from msgspec import Struct

from tests.fuzz.memory import MIB

Input = TypeVar("Input", bound=Struct)


class FindingError(AssertionError):
    """Something that must not be. `kind` is `500`, or `wrong` for anything else that does not end a process; `culprit`
    the one input of several that it is about, when that is known.
    """

    def __init__(self, what: str, kind: str = "wrong") -> None:
        super().__init__(what)
        self.kind = kind
        self.culprit: Struct | None = None


class Answer(NamedTuple):
    """What became of an input: taken or refused, and in which words."""

    accepted: bool
    label: str


class Target(ABC, Generic[Input]):
    """Used by one thread. `close` once, however it ends."""

    name: ClassVar[str]
    shape: type[Input]
    batch: ClassVar[int] = 1  # inputs that are sent together
    dictionary: ClassVar[Sequence[bytes]] = ()  # words that a guided engine puts together
    growth_bytes_max: ClassVar[int] = 48 * MIB  # of the memory of `pids`, once it is warm

    @abstractmethod
    def inputs(self) -> st.SearchStrategy[Input]:
        """What hypothesis draws from."""

    @abstractmethod
    def check(self, batch: Sequence[Input]) -> list[Answer]:
        """Send inputs, and look at what becomes of them. Raises FindingError; so is any other error of its own."""

    def of_bytes(self, data: bytes) -> Input:
        """The input that a guided engine means by these bytes. Only targets that run in one process have it."""
        raise NotImplementedError

    def corpus(self) -> list[bytes]:
        """What a guided engine begins with."""
        return []

    def pids(self) -> list[int]:
        """The processes whose memory has to stay flat, beside this one: none when all runs in this one."""
        return []

    def limit_memory(self) -> None:
        """Make what would need far too much memory fail, where that can be told."""

    def finish(self) -> None:
        """Look at what can only be seen in the end. Raises FindingError."""

    def close(self) -> None:
        """Stop what was started."""
