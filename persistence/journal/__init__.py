"""Journals: what a worker has acknowledged while the ledger was away, on its own disk. Records are bytes with a kind;
what they mean is the caller's affair. Blocking throughout: call it in a thread.
"""

from persistence.journal.errors import JournalError, JournalFullError, JournalLockedError, JournalPoisonedError
from persistence.journal.file import Journal
from persistence.journal.folder import Orphan, Peeked, adopt, kept, peek
from persistence.journal.format import RECORD_BYTES_MAX, Record
from persistence.journal.quarantine import Quarantined, quarantine, read_quarantine
from persistence.journal.reading import Damage

__all__ = [
    "RECORD_BYTES_MAX",
    "Damage",
    "Journal",
    "JournalError",
    "JournalFullError",
    "JournalLockedError",
    "JournalPoisonedError",
    "Orphan",
    "Peeked",
    "Quarantined",
    "Record",
    "adopt",
    "kept",
    "peek",
    "quarantine",
    "read_quarantine",
]
