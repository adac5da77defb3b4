"""The journal that an owner writes to: orders that were acknowledged while the ledger was away.

What `append` has returned for is on the disk. What it has raised for counts as not written; a file of which that
cannot be said is poisoned, and its owner acknowledges nothing more. Nobody else works on it while its owner lives.
Blocking throughout, and for one caller at a time: a thread of its own.
"""

import errno
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from persistence.journal.errors import JournalFullError, JournalPoisonedError, translated
from persistence.journal.format import (
    FILE_ID_BYTES,
    HEADER_BYTES,
    RECORD_BYTES_MAX,
    Header,
    Record,
    pack_head,
    pack_header,
)
from persistence.journal.locked import LockedFile, write_all
from persistence.journal.reading import Damage, Reader

# How names end. What is no journal is read by nobody but a human being.
JOURNAL = ".journal"
QUARANTINE = ".quarantine"
DAMAGED = ".damaged"
UNREADABLE = ".unreadable"
READ_BYTES_MAX = 1 << 20
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def new_header(owner: str, host: str) -> Header:
    """Of a file that there was not before."""
    return Header(owner, host, secrets.token_bytes(FILE_ID_BYTES), 1)


class Journal:
    """`path`; `size`, bytes of the file; `records`, appended and not yet cleared; `poisoned`; `damaged`, stretches of
    what was acknowledged that `read` has not found there any more. These may be looked at by anybody at any time.
    """

    def __init__(self, file: LockedFile, header: Header, bytes_max: int) -> None:
        self.path = file.path
        self.size = HEADER_BYTES
        self.records = 0
        self.poisoned = False
        self.damaged: list[Damage] = []
        self._file = file
        self._header = header
        self._bytes_max = bytes_max
        self._sequence = header.first_sequence  # of the next record
        self._reader = Reader(file.descriptor, header, HEADER_BYTES)

    @classmethod
    def create(cls, folder: Path, owner: str, host: str, bytes_max: int) -> "Journal":
        """The owner's journal, empty and locked, in a folder that is made when it is missing. `bytes_max` is how large
        the file may become. Raises JournalError.
        """
        header = new_header(owner, host)
        content = pack_header(header)
        with translated(f"{owner} cannot have a journal in {folder}"):
            return cls(LockedFile.make(folder / f"{owner}{JOURNAL}", content), header, bytes_max)

    def append(self, records: Sequence[tuple[int, bytes]], at_ms: int) -> None:
        """Write records, each a kind (0 to 255) and a payload of at most RECORD_BYTES_MAX, all appended at `at_ms`,
        with one fdatasync: they are durable when it returns, and never is only a part of them acknowledged. Raises
        JournalFullError, with the file as before; JournalPoisonedError, after which it raises nothing else, and an
        adopter may find these records or not.
        """
        self._refuse_poisoned()
        if not records:
            return
        content = self._pack(records, at_ms)
        if self.size + len(content) > self._bytes_max:
            raise JournalFullError(f"{self.path} would be larger than {self._bytes_max} bytes")
        descriptor = self._file.descriptor
        try:
            append_durably(descriptor, content, self.size)
        except JournalFullError:
            raise
        except BaseException:  # Whatever it was: nobody knows where the file ends now.
            self.poisoned = True
            raise
        self.size += len(content)
        self.records += len(records)
        self._sequence += len(records)

    def read(self, after: int = 0, bytes_max: int = READ_BYTES_MAX) -> list[Record]:
        """Records that were acknowledged, in order, from the first whose sequence is more than `after`; together at
        most `bytes_max`, or one. Empty when there are no more. When something that was acknowledged is not there any
        more, the file is poisoned, and it is kept under another name when it is to be removed.
        """
        assert not self._file.released, "the journal has been closed"
        self._reader.end = self.size
        found = self._reader.read(after, bytes_max)
        if lost := self._lost(ended=not found):
            self.poisoned, self.damaged = True, lost
        return found

    def clear(self) -> None:
        """All records have been committed: cut the file back to its header. Sequences go on. When it raises, which is
        JournalPoisonedError, an adopter may find the records or not.
        """
        self._refuse_poisoned()
        if not self.records:
            return
        descriptor = self._file.descriptor
        header = self._header._replace(first_sequence=self._sequence)
        try:
            with translated(f"{self.path} cannot be cleared", JournalPoisonedError):
                write_all(descriptor, pack_header(header), 0)
                os.ftruncate(descriptor, HEADER_BYTES)
                os.fsync(descriptor)
        except BaseException:
            self.poisoned = True
            raise
        self._header, self.size, self.records = header, HEADER_BYTES, 0
        self._reader = Reader(descriptor, header, HEADER_BYTES)

    def close(self, *, remove: bool) -> None:
        """Give up the lock. With `remove` all has been committed, and the file goes away; else whoever takes it up
        finds what was acknowledged. Repeated, it does nothing. Raises JournalError, and the lock is given up all the
        same.
        """
        close(self._file, remove=remove, damaged=bool(self.damaged))

    def _lost(self, *, ended: bool) -> list[Damage]:
        rest = self.size - self._reader.position
        return self._reader.damaged + ([Damage(self._reader.position, rest)] if ended and rest else [])

    def _pack(self, records: Sequence[tuple[int, bytes]], at_ms: int) -> bytes:
        seed, parts = self._header.seed, []
        for sequence, (kind, payload) in enumerate(records, self._sequence):
            assert len(payload) <= RECORD_BYTES_MAX, "a record is too large for a journal"
            parts += [pack_head(Record(sequence, kind, at_ms, payload), seed), payload]
        return b"".join(parts)

    def _refuse_poisoned(self) -> None:
        if self.poisoned:
            raise JournalPoisonedError(f"{self.path} is never written to again")


def append_durably(descriptor: int, content: bytes, at: int) -> None:
    """Write at the end of a file, which is at `at`, with one fdatasync. Raises JournalFullError, with the file durably
    as before; JournalPoisonedError when nobody knows what the disk has behind `at`.
    """
    try:
        write_all(descriptor, content, at)
    except OSError as error:
        with translated("what was half written cannot be undone", JournalPoisonedError):
            if error.errno not in NO_SPACE:
                raise
            # Durably: after a crash nobody is to find what its buyers have heard was not taken.
            os.ftruncate(descriptor, at)
            os.fsync(descriptor)
        raise JournalFullError(f"there is no space: {error}") from error
    with translated("what was written may not be on the disk", JournalPoisonedError):
        # The file grows with each append. Extended ahead by fallocate, 256 KiB took 298 us instead of 331 and 4 KiB no
        # less; with zeros written ahead, 360 (2026-11-23, ext4). That is not worth a file that has no end of its own.
        os.fdatasync(descriptor)


def close(file: LockedFile, *, remove: bool, damaged: bool) -> None:
    """Release a journal's file, after it has been removed or, since a human being may find something in it, set aside
    when it is damaged.
    """
    if file.released:
        return
    try:
        with translated(f"{file.path} cannot be removed"):
            if remove and damaged:
                file.set_aside(DAMAGED)
            elif remove:
                file.remove()
    finally:
        file.release()
