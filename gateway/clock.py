"""The one clock: PostgreSQL's, carried between heartbeats by the monotonic clock, so that a stepped wall clock moves
nothing.

An id's time is this clock's. It is never ahead of PostgreSQL by more than the drift since the last heartbeat.
"""

import time

OFFSET_MAX_S = 5.0  # a host further off than this has a clock that nobody should trust
AGE_MAX_S = 60.0  # a heartbeat older than this says nothing about the offset any more


class Clock:
    """Seconds and milliseconds since 1970. Unknown until the first heartbeat."""

    def __init__(self) -> None:
        self._base: float | None = None
        self._set_at = 0.0
        self.offset_s = 0.0

    def observe(self, ledger_time_s: float) -> None:
        """PostgreSQL said `ledger_time_s` just now. The time of the way back makes this clock late, never early."""
        self._set_at = time.monotonic()
        self._base = ledger_time_s - self._set_at
        self.offset_s = ledger_time_s - time.time()

    @property
    def known(self) -> bool:
        return (
            self._base is not None
            and abs(self.offset_s) <= OFFSET_MAX_S
            and time.monotonic() - self._set_at <= AGE_MAX_S
        )

    def now_s(self) -> float:
        return time.time() if self._base is None else time.monotonic() + self._base

    def now_ms(self) -> int:
        return int(self.now_s() * 1000)
