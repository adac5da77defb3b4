"""What can go wrong with a journal. Each says what the caller may still do with the file; what the operating system
said stands behind it.

    JournalError
        JournalFullError        nothing of the call counts, and it may be made again later
        JournalPoisonedError    nothing may ever be written to this file again
        JournalLockedError      somebody else works on the file
"""

from collections.abc import Iterator
from contextlib import contextmanager


class JournalError(Exception):
    """A journal cannot be made, read, or put away."""


class JournalFullError(JournalError):
    """There is no space for what was to be written, or it would be more than is allowed. The file is as before."""


class JournalPoisonedError(JournalError):
    """A write that could not be undone, or one that is not known to have reached the disk. The kernel forgets what it
    could not write, so that another fsync would succeed and mean nothing: the file is never written to again.
    """


class JournalLockedError(JournalError):
    """Somebody holds the file's lock."""


@contextmanager
def translated(action: str, kind: type[JournalError] = JournalError) -> Iterator[None]:
    """What the operating system refuses, in the family of the journal."""
    try:
        yield
    except OSError as error:
        raise kind(f"{action}: {error}") from error
