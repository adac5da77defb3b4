"""The folder of a host's journals: which there are, and taking up those whose owners are gone.

A file is there for as long as something in it may not be committed. Whoever gets its lock is the only one to work on
it, and its owner is dead, or has given it up. Nothing that may hold an order is ever deleted here: what cannot be read
is set aside under another name.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from persistence.journal.errors import JournalError, translated
from persistence.journal.file import DAMAGED, JOURNAL, QUARANTINE, READ_BYTES_MAX, UNREADABLE, close
from persistence.journal.format import DamagedHeaderError, Header, NewerFormatError, Record
from persistence.journal.locked import STAGED, LockedFile, is_locked, opened
from persistence.journal.reading import Damage, Reader, Survey, read_header

PEEK_ATTEMPTS = 3


class Orphan:
    """A journal whose lock was free, held until `close`. `records` it has, the `oldest_ms` appended then; `torn_bytes`
    behind the last good one were being written when its owner died; `damaged` stretches were once good records.
    """

    def __init__(self, file: LockedFile, header: Header) -> None:
        self.owner = header.owner
        self.host = header.host
        self.path = file.path
        self._file = file
        self._reader = Reader(file.descriptor, header, file.size)
        self.records, self.oldest_ms, self.torn_bytes, self.damaged = self._reader.survey()

    def read(self, after: int = 0, bytes_max: int = READ_BYTES_MAX) -> list[Record]:
        """As Journal.read. What was acknowledged to nobody may be among them, if it was written whole."""
        assert not self._file.released, "the orphan has been closed"
        return self._reader.read(after, bytes_max)

    def close(self, *, remove: bool) -> None:
        """Give up the lock. With `remove` all has been committed, and the file goes away; a damaged one is kept under
        another name. Repeated, it does nothing. Raises JournalError, and the lock is given up all the same.
        """
        close(self._file, remove=remove, damaged=bool(self.damaged))


class Peeked(NamedTuple):
    """A journal as it was at a glance. Of one that is `locked` the end may be being written: `torn_bytes` is then no
    tear. One whose header cannot be read, or is of a later format, is `damaged` from its first byte.
    """

    owner: str
    host: str
    path: Path
    size: int
    records: int
    locked: bool
    oldest_ms: int | None
    torn_bytes: int
    damaged: list[Damage]


def adopt(folder: Path, own: Collection[str] = ()) -> Iterator[Orphan]:
    """Take up every journal that nobody holds, but those of the owners in `own`, one after the other as the caller asks
    for them; the caller closes each. What processes that died left unfinished is removed, a file without a readable
    header is set aside. Raises JournalError, at the end, for files that could not be taken up or are of a later format.
    """
    failures: list[JournalError] = []
    for path in _files(folder, JOURNAL):
        if path.name.removesuffix(JOURNAL) in own:
            continue
        try:
            orphan = _try_adopt(path)
        except JournalError as error:
            failures.append(JournalError(f"{path}: {error}"))
            continue
        if orphan is not None:
            yield orphan
    _remove_staged(folder)
    if failures:
        raise JournalError(f"{len(failures)} journals could not be taken up: {failures[0]}") from failures[0]


def peek(folder: Path) -> list[Peeked]:
    """Every journal of the folder. Reads the files whole and takes no lock. Raises JournalError."""
    return [peeked for path in _files(folder, JOURNAL) if (peeked := _try_peek(path)) is not None]


def kept(folder: Path) -> list[Path]:
    """Files that wait for a human being: records in quarantine, damaged journals, and unreadable ones."""
    return _files(folder, QUARANTINE, DAMAGED, UNREADABLE)


def _files(folder: Path, *endings: str) -> list[Path]:
    with translated(f"{folder} cannot be read"):
        try:
            return sorted(path for path in folder.iterdir() if path.name.endswith(endings))
        except FileNotFoundError:
            return []


def _remove_staged(folder: Path) -> None:
    for path in _files(folder, STAGED):
        with translated(f"{path} cannot be removed"), ExitStack() as undo:
            file = LockedFile.try_open(path)
            if file is not None:
                undo.callback(file.release)
                file.remove()


def _try_adopt(path: Path) -> Orphan | None:
    """None when somebody holds it, or nothing in it can be read."""
    with translated("it cannot be taken up"), ExitStack() as undo:
        file = LockedFile.try_open(path)
        if file is None:
            return None
        undo.callback(file.release)
        try:
            orphan = Orphan(file, read_header(file.descriptor))
        except DamagedHeaderError:
            file.set_aside(UNREADABLE)
            return None
        undo.pop_all()
        return orphan


def _try_peek(path: Path) -> Peeked | None:
    """None when it has gone away meanwhile."""
    with translated(f"{path} cannot be read"):
        try:
            with opened(path, os.O_RDONLY | os.O_NOFOLLOW) as descriptor:
                return _peeked(path, descriptor)
        except FileNotFoundError:
            return None


def _peeked(path: Path, descriptor: int) -> Peeked:
    try:
        header, survey = _surveyed(descriptor)
    except (DamagedHeaderError, NewerFormatError):
        header = Header(path.name.removesuffix(JOURNAL), "", b"", 0)
        survey = Survey(0, None, 0, [Damage(0, os.fstat(descriptor).st_size)])
    size, locked = os.fstat(descriptor).st_size, is_locked(descriptor)
    return Peeked(header.owner, header.host, path, size, survey.records, locked, *survey[1:])


def _surveyed(descriptor: int) -> tuple[Header, Survey]:
    """Of one and the same state: records of before a clear would look damaged to who has read the header after it."""
    header = read_header(descriptor)
    survey = Reader(descriptor, header, os.fstat(descriptor).st_size).survey()
    for _ in range(PEEK_ATTEMPTS - 1):
        before, header = header, read_header(descriptor)
        if header == before:
            break
        survey = Reader(descriptor, header, os.fstat(descriptor).st_size).survey()
    return header, survey
