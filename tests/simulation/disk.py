"""The folder of journals of one host, in memory: the interface of `persistence.journal`, with locks that end with their
process and a tail that nobody knows whether the disk has.

It promises what the real one does: what `append` has returned for is found, and what is found was appended whole.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from persistence.journal import JournalError, JournalFullError, JournalPoisonedError, Record
from tests.simulation.guards import GUARDS
from tests.simulation.loop import PROCESS, Process

if TYPE_CHECKING:
    from tests.simulation.world import World


class File:
    """`durable` of its records are known to be on the disk."""

    def __init__(self, owner: str, holder: Process | None) -> None:
        self.owner = owner
        self.host = "host"
        self.holder = holder
        self.content: list[Record] = []
        self.durable = 0
        self.sequence = 0


class Disk:
    """Its files by their owners."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.files: dict[str, File] = {}
        self.set_aside: list[Record] = []

    def died(self, process: Process) -> None:
        """The process's locks are free. Of what was not known to be on the disk some may be there."""
        for file in self.files.values():
            if file.holder is process:
                file.holder = None
                known = file.durable if GUARDS.fsync else 0
                loose = len(file.content) - known
                del file.content[known + int(self.world.draw() * (loose + 1)) :]
                file.durable = len(file.content)

    def create(self, _folder: Path, owner: str, _host: str, _bytes_max: int) -> "Journal":
        if self.world.faults.draw("journal_open") is not None:
            raise JournalError("the disk is full")
        self.files[owner] = File(owner, PROCESS.get())
        return Journal(self, self.files[owner])

    def adopt(self, _folder: Path, own: Collection[str] = ()) -> Iterator["Orphan"]:
        for owner, file in list(self.files.items()):
            if owner not in own and owner in self.files and not (file.holder and GUARDS.journal_lock):
                file.holder = PROCESS.get()
                self.world.note("adopts the journal of", owner[:8], len(file.content))
                yield Orphan(self, file)

    def quarantine(self, folder: Path, _owner: str, record: Record, _reason: str) -> Path:
        self.set_aside.append(record)
        return folder


class Journal:
    """The writing side."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file
        self.path = Path("journals") / file.owner
        self.poisoned = False

    @property
    def size(self) -> int:
        return sum(len(record.payload) for record in self._file.content)

    @property
    def records(self) -> int:
        return len(self._file.content)

    def append(self, records: Sequence[tuple[int, bytes]], at_ms: int) -> None:
        if self.poisoned:
            raise JournalPoisonedError("a write has failed before")
        world, file = self._disk.world, self._file
        fault = world.faults.draw("journal_append")
        if fault == "full":
            raise JournalFullError("no space is left")
        for kind, payload in records:
            file.sequence += 1
            file.content.append(Record(file.sequence, kind, at_ms, payload))
        fault = fault or world.faults.draw("journal_fsync")
        if fault == "crash_before":
            world.crash(PROCESS.get())
        elif fault == "fsync_failed":
            self.poisoned = True
            raise JournalPoisonedError("fsync has failed")
        else:
            file.durable = len(file.content)
            if fault == "crash_after":
                world.crash(PROCESS.get())

    def read(self, after: int = 0, bytes_max: int = 1 << 20) -> list[Record]:  # noqa: ARG002 - the journal's signature
        self._disk.world.faults.draw("journal_read")
        return [record for record in self._file.content[: self._file.durable] if record.sequence > after]

    def clear(self) -> None:
        self._file.content.clear()
        self._file.durable = 0

    def close(self, *, remove: bool) -> None:
        _close(self._disk, self._file, remove=remove)


class Orphan:
    """A journal whose process is gone."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file
        self.owner, self.host = file.owner, file.host
        self.torn_bytes = 0
        self.damaged: list[object] = []

    def read(self, after: int = 0, bytes_max: int = 1 << 20) -> list[Record]:  # noqa: ARG002 - the journal's signature
        self._disk.world.faults.draw("journal_read")
        return [record for record in self._file.content if record.sequence > after]

    def close(self, *, remove: bool) -> None:
        _close(self._disk, self._file, remove=remove)


def _close(disk: Disk, file: File, *, remove: bool) -> None:
    if file.holder is PROCESS.get():
        file.holder = None
        if remove:
            disk.files.pop(file.owner, None)
