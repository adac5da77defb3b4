"""The disk of one host, with its folder of journals: bytes that are read, of which some are known to be on the disk.

The product's own journal works on it: `Kernel` stands in the place of its `os`, and `Held` in that of its `LockedFile`.
It promises what a disk does: what was synced is found again, and where something was written and not synced anything
may be found.
"""

import errno
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NoReturn

from persistence.journal import JournalError
from persistence.journal.file import JOURNAL, QUARANTINE, UNREADABLE
from persistence.journal.format import HEADER_BYTES
from tests.simulation.guards import GUARDS
from tests.simulation.loop import PROCESS, Process

if TYPE_CHECKING:
    from tests.simulation.world import World


class DiedError(BaseException):
    """The process came no further than this call."""


class File:
    """`content` is what is read, `durable` what of it is known to be on the disk; `holder` has its lock."""

    def __init__(self, disk: "Disk", path: Path, content: bytes) -> None:
        self.disk = disk
        self.path = path
        self.holder: Process | None = None
        self.content = bytearray(content)
        self.durable = content

    @property
    def has_records(self) -> bool:
        return len(self.content) > HEADER_BYTES

    def sync(self) -> None:
        if GUARDS.fsync:
            self.durable = bytes(self.content)

    def lose(self, random: Random) -> None:
        """The power was cut: what was not synced is there, or not, or torn, or something else is in its place."""
        head, rest = bytes(self.content[:HEADER_BYTES]), self.durable[HEADER_BYTES:]
        if head != self.durable[:HEADER_BYTES]:  # It was being cleared. Either copy of the header is small enough.
            self.content[:] = random.choice((self.durable, head + rest, head))
        elif self.content != self.durable:
            self.content[:] = self.durable + _torn(bytes(self.content[len(self.durable) :]), random)
        self.durable = bytes(self.content)


def _torn(tail: bytes, random: Random) -> bytes:
    start = int(random.random() * (len(tail) + 1))
    end = start + int(random.random() * (len(tail) - start + 1))
    match random.randrange(5):
        case 0:
            return tail
        case 1:
            return tail[:start]
        case 2:
            return tail[:start] + bytes(len(tail) - start)
        case 3:
            return tail[:start] + bytes(end - start) + tail[end:]
        case _:
            return tail[:start] + random.randbytes(end - start) + tail[end:]


class Disk:
    """Its files by their names."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.files: dict[str, File] = {}

    @property
    def journals(self) -> list[File]:
        return [file for name, file in self.files.items() if name.endswith(JOURNAL)]

    @property
    def set_aside(self) -> list[str]:
        """What waits for a human being, save for stretches of a journal that were never acknowledged."""
        return [name for name in self.files if name.endswith((QUARANTINE, UNREADABLE))]

    def died(self, process: Process) -> None:
        """The process's locks are free."""
        for file in self.files.values():
            if file.holder is process:
                file.holder = None
                file.lose(self.world.random)

    def paths(self, endings: Sequence[str]) -> list[Path]:
        return sorted(file.path for name, file in self.files.items() if name.endswith(tuple(endings)))


class Held:
    """A file and its lock, which is its process's."""

    def __init__(self, file: File) -> None:
        self._disk = file.disk
        self._file: File | None = file
        self.path = file.path
        file.holder = PROCESS.get()

    @classmethod
    def make(cls, disk: Disk, path: Path, content: bytes) -> "Held":
        """Raises OSError."""
        if disk.world.faults.draw("journal_open") is not None:
            raise OSError(errno.ENOSPC, "the disk is full")
        if path.name in disk.files:
            raise FileExistsError(path.name)
        file = disk.files[path.name] = File(disk, path, content)
        return cls(file)

    @classmethod
    def try_open(cls, disk: Disk, path: Path) -> "Held | None":
        file = disk.files.get(path.name)
        if file is None or (file.holder is not None and GUARDS.journal_lock):
            return None
        disk.world.note("takes up", path.name[:8], len(file.content))
        return cls(file)

    @property
    def descriptor(self) -> File:
        if self._file is None:
            raise JournalError(f"{self.path} has been closed")
        return self._file

    @property
    def released(self) -> bool:
        return self._file is None

    @property
    def size(self) -> int:
        return len(self.descriptor.content)

    def remove(self) -> None:
        self._disk.files.pop(self.path.name, None)

    def set_aside(self, ending: str) -> Path:
        file = self._disk.files.pop(self.path.name)
        self.path = file.path = self.path.with_name(f"{self.path.name}.{len(self._disk.files)}{ending}")
        self._disk.files[self.path.name] = file
        return self.path

    def release(self) -> None:
        file, self._file = self._file, None
        if file is not None and file.holder is PROCESS.get():
            file.holder = None


class Kernel:
    """The calls of `os` that a journal makes; a file is its own descriptor. They raise OSError, and DiedError."""

    @staticmethod
    def pwrite(file: File, content: bytes, at: int) -> int:
        """What stands at the front is the header, which is written anew when the journal is cleared."""
        fault = file.disk.world.faults.draw("journal_append" if at else "journal_clear")
        if fault == "full":
            raise OSError(errno.ENOSPC, "no space is left")
        if fault == "failed":
            raise OSError(errno.EIO, "the disk does not answer")
        if fault == "crash_before":
            _die(file)
        file.content[at : at + len(content)] = content
        if fault == "crash_after":
            _die(file)
        return len(content)

    @staticmethod
    def pread(file: File, count: int, at: int) -> bytes:
        if file.disk.world.faults.draw("journal_read") == "crash_before":
            _die(file)
        return bytes(file.content[at : at + count])

    @staticmethod
    def ftruncate(file: File, size: int) -> None:
        del file.content[size:]

    @staticmethod
    def fsync(file: File) -> None:
        file.sync()

    @staticmethod
    def fdatasync(file: File) -> None:
        """Whether it has failed or the process died, what was written may be there or not."""
        fault = file.disk.world.faults.draw("journal_fsync")
        if fault == "crash_before":
            _die(file)
        if fault == "fsync_failed":
            raise OSError(errno.EIO, "fdatasync has failed")
        file.sync()
        if fault == "crash_after":
            _die(file)


def _die(file: File) -> NoReturn:
    file.disk.world.crash(PROCESS.get())
    raise DiedError
