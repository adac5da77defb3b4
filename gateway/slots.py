"""Numbers that the workers of one host share: a piece of memory with a slot for each, made by the supervisor and passed
on as a file descriptor.

A slot has one writer, the worker that holds it, and any number of readers. Nothing is locked: each number is eight
bytes and written whole. What a dead worker wrote stays for its successor; that it is dead says the supervisor, who
alone releases slots. What the numbers mean is the business of gateway/metrics.py: the supervisor does not know.
"""

import mmap
import os
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

NUMBER_BYTES = 8
SLOT_NUMBERS = 512
SLOT_BYTES = SLOT_NUMBERS * NUMBER_BYTES
assert SLOT_BYTES % 4096 == 0, "no two workers write to one page"
# The head of a slot. The layout tells apart what different versions write: during an upgrade both may run.
PID, READY, LAYOUT, HEAD = 0, 1, 2, 3
# The sign of life is a slot's last number, out of the way of every layout: versions that give none leave it at 0, and
# read and write all others where they always were.
SIGN = SLOT_NUMBERS - 1
NUMBERS_MAX = SIGN - HEAD


class Slot:
    """One worker's place: who holds it, whether that worker takes orders, when it last gave a sign of life, and its
    numbers.
    """

    def __init__(self, number: int, cells: "memoryview[float]") -> None:
        self.number = number
        self._cells = cells

    @property
    def pid(self) -> int:
        """The process that holds the slot; 0 when none does."""
        return int(self._cells[PID])

    @property
    def ready(self) -> bool:
        return bool(self._cells[READY])

    @ready.setter
    def ready(self, ready: bool) -> None:
        self._cells[READY] = ready

    @property
    def sign_at(self) -> float:
        """When the holder last gave a sign of life, in seconds of the monotonic clock, which all processes of a host
        share; 0 when it never has.
        """
        return self._cells[SIGN]

    @sign_at.setter
    def sign_at(self, now_s: float) -> None:
        self._cells[SIGN] = now_s

    def claim(self, layout: int, count: int) -> list[float]:
        """Hold the slot from now on; returns the `count` numbers of its last holder, zeros if they were of another
        layout.
        """
        assert count <= NUMBERS_MAX
        if self._cells[LAYOUT] != layout:
            self.write([0.0] * count)
        self._cells[LAYOUT] = layout
        self._cells[READY] = False
        self._cells[PID] = os.getpid()
        return self.read(layout, count)

    def release(self) -> None:
        """The holder is dead. Its numbers stay."""
        self._cells[READY] = False
        self._cells[SIGN] = 0.0
        self._cells[PID] = 0

    def read(self, layout: int, count: int) -> list[float]:
        """The numbers; none when nobody has written any of this layout."""
        return list(self._cells[HEAD : HEAD + count]) if self._cells[LAYOUT] == layout else []

    def write(self, numbers: Sequence[float]) -> None:
        self._cells[HEAD : HEAD + len(numbers)] = memoryview(array("d", numbers))


class Slots:
    """All slots of one host."""

    def __init__(self, memory: mmap.mmap) -> None:
        cells = memoryview(memory).cast("d")
        self._slots = [
            Slot(number, cells[number * SLOT_NUMBERS : (number + 1) * SLOT_NUMBERS])
            for number in range(len(memory) // SLOT_BYTES)
        ]

    @classmethod
    def attach(cls, descriptor: int) -> "Slots":
        """Those in the memory of `make_memory`. The descriptor may be closed afterwards."""
        return cls(mmap.mmap(descriptor, os.fstat(descriptor).st_size))

    @classmethod
    def private(cls) -> "Slots":
        """One slot that nobody else sees."""
        return cls(mmap.mmap(-1, SLOT_BYTES))

    def __getitem__(self, number: int) -> Slot:
        return self._slots[number]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)


class Place(NamedTuple):
    """Where a worker writes: its slot among all of the host."""

    slots: Slots
    number: int

    @property
    def own(self) -> Slot:
        return self.slots[self.number]


def make_memory(slots: int) -> int:
    """A file descriptor of empty slots without a name: it is gone with the last process that has it."""
    descriptor = os.memfd_create("floodgate-slots")
    os.ftruncate(descriptor, slots * SLOT_BYTES)
    return descriptor
