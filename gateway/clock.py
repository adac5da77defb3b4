"""The one clock: PostgreSQL's, carried between heartbeats by the monotonic clock, so that a stepped wall clock moves
nothing.

An id's time and the start of a sale are this clock's. It is never ahead of PostgreSQL's, and late by no more than the
fastest heartbeat of the last half minute took to come back, and what two clocks may drift apart in that time.
"""

import time
from collections import deque

OFFSET_MAX_S = 5.0  # a host further off than this has a clock that nobody should trust
AGE_MAX_S = 60.0  # a heartbeat older than this says nothing about the offset any more
WINDOW_S = 30.0  # how long a heartbeat that was answered fast outweighs slower ones
# How fast this host's clock may run away from PostgreSQL's: quartz is good to some 20 ppm, and NTP slews both.
DRIFT = 50e-6


class Clock:
    """Seconds and milliseconds since 1970. Unknown until the first heartbeat."""

    def __init__(self) -> None:
        # (monotonic time, least offset of PostgreSQL's clock against the monotonic one) of recent heartbeats.
        self._bounds: deque[tuple[float, float]] = deque()
        self._base: float | None = None
        self._set_at = 0.0
        self.offset_s = 0.0

    def observe(self, ledger_time_s: float, asked_at: float, answered_at: float) -> None:
        """PostgreSQL said `ledger_time_s` at some moment between `asked_at` and `answered_at` (monotonic seconds), so
        its offset is at least that against the answer and at most that against the question. The greatest lower bound
        makes this clock as little late as is known, and never early.
        """
        lowest, highest = ledger_time_s - answered_at, ledger_time_s - asked_at
        while self._bounds and answered_at - self._bounds[0][0] > WINDOW_S:
            self._bounds.popleft()
        if any(_sunk(bound, answered_at) > highest for bound in self._bounds):
            self._bounds.clear()  # PostgreSQL's clock was stepped back: what it said before is void.
        self._bounds.append((answered_at, lowest))
        self._base = max(_sunk(bound, answered_at) for bound in self._bounds)
        self._set_at = answered_at
        self.offset_s = self._base + time.monotonic() - time.time()

    @property
    def known(self) -> bool:
        return self.was_known and time.monotonic() - self._set_at <= AGE_MAX_S

    @property
    def was_known(self) -> bool:
        """Whether it has been known, however long ago: it goes on by itself, later than PostgreSQL's by what the drift
        may be, and never ahead.
        """
        return self._base is not None and abs(self.offset_s) <= OFFSET_MAX_S

    def now_s(self) -> float:
        if self._base is None:
            return time.time()
        now = time.monotonic()
        return now + self._base - DRIFT * (now - self._set_at)

    def steady_s(self) -> float:
        """Seconds from no moment in particular, for what lasts so long: no step of any clock is in them."""
        return time.monotonic()

    def now_ms(self) -> int:
        return int(self.now_s() * 1000)


def _sunk(bound: tuple[float, float], at: float) -> float:
    """What an old lower bound is worth at a later time: the clocks may have drifted apart since."""
    since, offset = bound
    return offset - DRIFT * (at - since)
