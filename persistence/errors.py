"""The errors of the adapters, in the three families of the house: a caller's fault is a code and no exception;
*Unavailable* is a dependency, and another try makes sense; everything else is a bug or a server that must not be
used.

    Unavailable
        LedgerUnavailableError    PostgreSQL cannot be reached, or has no partition
        StreamUnavailableError    NATS cannot be reached, or its stream refuses
        MirrorUnavailableError    Redis cannot be reached, or did not answer in time
    OwnerNotAliveError            this owner of leases has been declared dead
    PoisonError                   PostgreSQL refuses a row that passed validation
    NotDurableError               the server would lose what it acknowledges
"""


class Unavailable(Exception):  # noqa: N818 - the family's name in the house style
    """A dependency cannot answer now."""


class LedgerUnavailableError(Unavailable):
    """PostgreSQL cannot be reached, or cannot take rows now."""


class StreamUnavailableError(Unavailable):
    """NATS cannot be reached, or its stream does not take the event."""


class MirrorUnavailableError(Unavailable):
    """Redis cannot be reached, or did not answer in time. Nothing depends on what it would have said."""


class OwnerNotAliveError(Exception):
    """The owner has been declared dead: what it holds is no longer its own."""


class PoisonError(Exception):
    """PostgreSQL refuses a row of the batch: a bug in the validation, since nothing of the batch was stored."""


class NotDurableError(Exception):
    """The server would lose what it acknowledges; the message says which setting."""
