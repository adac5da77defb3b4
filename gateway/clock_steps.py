"""Notices that the ledger's clock was put forward, so that no order is ended early by it: what has passed by that clock
is compared with what has passed by the host's own, which is never put anywhere.

A step that is noticed is noted in the ledger, once, whoever notices it; and looks are kept there, so that a process
that is started later on the same host notices what was done meanwhile.
"""

import math
from collections import deque
from pathlib import Path

import asyncpg
import structlog

from persistence.postgres import expiry
from persistence.postgres.control import Reading
from persistence.postgres.expiry import Look

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # see proc(5)
STEP_S_MIN = 0.1
SLEW = 500e-6  # how fast a clock may run away from another one: as fast as NTP slews it at most
WINDOW_S = 30.0  # how long a fast reading outweighs slower ones
KEEP_S = 1.0  # between two looks that are kept

log = structlog.get_logger("clock")


class ClockSteps:
    """One per process that ends orders by the ledger's clock."""

    def __init__(self, boot: str | None = None) -> None:
        self._boot = boot or BOOT_ID.read_text().strip()
        self._readings: deque[Reading] = deque()
        self._steps = 0  # the number of the last one that is known
        self._kept_at = -math.inf

    async def surely(self, connection: asyncpg.Connection) -> float:
        """The ledger's time now, in seconds since 1970, or a little earlier: whatever a slow answer hides is not in it.
        When this returns, the ledger knows of every step until then. Raises what the driver does.
        """
        if not self._readings:
            last = await expiry.last_look(connection, self._boot)
            if last is not None:
                self.learn(last)
        look = await expiry.look_at_clock(connection)
        ahead_s = self.ahead_s(look.reading)
        if ahead_s:
            await self._note(connection, look, ahead_s)
        self.learn(look)
        is_first = len(self._readings) == 1  # since it began, or since the clock was put somewhere
        if is_first or look.reading.answered_at - self._kept_at >= KEEP_S:
            await expiry.keep_look(connection, self._boot, look._replace(steps=self._steps))
            self._kept_at = look.reading.answered_at
        return min(look.reading.ledger_time_s, self._latest(look.reading.answered_at))

    def ahead_s(self, reading: Reading) -> float:
        """By how much, at most, the clock was put forward since the last reading that was learnt; 0 if it was not."""
        if not self._readings or reading.ledger_time_s <= self._latest(reading.answered_at) + STEP_S_MIN:
            return 0.0
        return _offset_max(reading) - max(map(_offset_min, self._readings))

    def learn(self, look: Look) -> None:
        """Compare with this look from now on, and with those of a while if the clock was put nowhere since."""
        reading, readings = look.reading, self._readings
        is_back = any(_offset_min(known) > _offset_max(reading) + STEP_S_MIN for known in readings)
        if is_back or self.ahead_s(reading):
            readings.clear()
        while readings and reading.answered_at - readings[0].answered_at > WINDOW_S:
            readings.popleft()
        readings.append(reading)
        self._steps = max(self._steps, look.steps)

    async def _note(self, connection: asyncpg.Connection, look: Look, ahead_s: float) -> None:
        news_s, self._steps = await expiry.note_step(connection, self._steps, look.reading.ledger_time_s, ahead_s)
        log.warning("ledger_clock_put_forward", ahead_s=round(ahead_s, 3), not_noted_before_s=round(news_s, 3))

    def _latest(self, at: float) -> float:
        """What the ledger's clock says at most at this moment of ours, if nobody has put it forward."""
        return at + min(_offset_max(known) + SLEW * (at - known.asked_at) for known in self._readings)


def _offset_max(reading: Reading) -> float:
    """How far the ledger's clock was ahead of ours, at most: it spoke after it had been asked."""
    return reading.ledger_time_s - reading.asked_at


def _offset_min(reading: Reading) -> float:
    """At least: it spoke before its answer was here."""
    return reading.ledger_time_s - reading.answered_at
