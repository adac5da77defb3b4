"""Records that the ledger refuses: kept with the reason, beside the journals, until a human being has looked at them.

A file per owner, of the format of a journal, so that damage costs one record and not all. A record that was put there
twice, by an adopter that died and by the next one, is there once for who reads it. Nothing here is ever deleted.
"""

import struct
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from persistence.journal.errors import JournalError, JournalLockedError, translated
from persistence.journal.file import QUARANTINE, READ_BYTES_MAX, UNREADABLE, append_durably, new_header
from persistence.journal.format import (
    PAYLOAD_BYTES_MAX,
    RECORD_BYTES_MAX,
    DamagedHeaderError,
    Header,
    Record,
    pack_head,
    pack_header,
)
from persistence.journal.locked import LockedFile, opened
from persistence.journal.reading import Reader, read_header

REASON_BYTES_MAX = 1000
QUARANTINED = 0  # the kind of these records
# Before the payload: the sequence, the kind and the time that the record had, and the reason with its length.
_ORIGIN = struct.Struct(">QBQH")

assert RECORD_BYTES_MAX + _ORIGIN.size + REASON_BYTES_MAX <= PAYLOAD_BYTES_MAX


class Quarantined(NamedTuple):
    """A record as it was in its journal, and why it is here."""

    record: Record
    reason: str


def quarantine(folder: Path, owner: str, record: Record, reason: str) -> Path:
    """Put a record of the owner's journal into its quarantine, durably; returns the file. Called by who holds the lock
    of the journal. Of the reason REASON_BYTES_MAX are kept. Raises JournalError, and JournalFullError when there is no
    space for it: the record must then stay in the journal.
    """
    path = folder / f"{owner}{QUARANTINE}"
    origin = reason.encode()[:REASON_BYTES_MAX]
    payload = _ORIGIN.pack(record.sequence, record.kind, record.at_ms, len(origin)) + origin + record.payload
    with translated(f"{path} cannot be written"), ExitStack() as undo:
        file, header = _open(path, owner)
        undo.callback(file.release)
        at = file.size
        # Where it stands is its sequence: that rises, and nobody has to look for the one before. What a crash has left
        # half written stays before it.
        kept = Record(at, QUARANTINED, record.at_ms, payload)
        append_durably(file.descriptor, pack_head(kept, header.seed) + payload, at)
    return path


def read_quarantine(path: Path) -> list[Quarantined]:
    """All of a file that `quarantine` has written, in the order in which they came. Raises JournalError."""
    with translated(f"{path} cannot be read"), opened(path) as descriptor:
        reader = Reader(descriptor, read_header(descriptor), path.stat().st_size)
        found: dict[Record, str] = {}
        after = 0
        while records := reader.read(after, READ_BYTES_MAX):
            after = records[-1].sequence
            found.update(_unpack(record) for record in records)
    return [Quarantined(record, reason) for record, reason in found.items()]


def _open(path: Path, owner: str) -> tuple[LockedFile, Header]:
    file = LockedFile.try_open(path)
    if file is not None:
        with ExitStack() as undo:
            undo.callback(file.release)
            try:
                header = read_header(file.descriptor)
            except DamagedHeaderError:
                file.set_aside(UNREADABLE)
            else:
                undo.pop_all()
                return file, header
    header = new_header(owner, "")
    try:
        return LockedFile.make(path, pack_header(header)), header
    except FileExistsError as error:
        raise JournalLockedError(f"somebody else writes to {path}") from error


def _unpack(record: Record) -> tuple[Record, str]:
    if record.kind != QUARANTINED or len(record.payload) < _ORIGIN.size:
        raise JournalError("this is a journal, and no quarantine")
    sequence, kind, at_ms, length = _ORIGIN.unpack_from(record.payload)
    if len(record.payload) < _ORIGIN.size + length:
        raise JournalError("a record in quarantine ends within its reason")
    reason, payload = record.payload[_ORIGIN.size :][:length], record.payload[_ORIGIN.size + length :]
    return Record(sequence, kind, at_ms, payload), reason.decode(errors="ignore")
