"""Rates by GCRA, the generic cell rate algorithm (ITU-T I.371): a meter is one moment, the theoretical arrival time of
the next request. Each request moves it on by a period; who would move it further ahead of now than a burst lasts is
told how long to wait, and is not charged. Pure: times are whole nanoseconds of any clock that does not step.

A meter never lets through more than burst + time / period in any span of time. Meters that share a rate are merged by
telling a common one what each has charged and taking over its time when that is later.
"""

import math
from typing import NamedTuple

from msgspec import Struct

SECOND_NS = 1_000_000_000
# How far ahead of now the common time of several meters may get: what so many can go beyond the rate together, each by
# a burst and by what it lets through until it hears of the others.
METERS_BEYOND = 16
UNHEARD_NS = SECOND_NS // 4


class Policy(NamedTuple):
    """One request in `period_ns` in the long run, up to `burst` at once; `quota` requests in `window_s` say the same in
    whole seconds. `tolerance_ns` is what a whole burst lasts, `ahead_us_max` how far ahead the common time may get, and
    `mark` tells the rate from others in keys.
    """

    name: str
    period_ns: int
    burst: int
    tolerance_ns: int
    quota: int
    window_s: int
    ahead_us_max: int
    mark: bytes


def policy_of(name: str, requests_per_s: float, burst: int) -> Policy | None:
    """None where nothing is limited. Without a burst it is what one second brings, at least one request. The window is
    the time in which a burst comes back, in whole seconds.
    """
    if not requests_per_s:
        return None
    burst = burst or max(1, math.ceil(requests_per_s))
    period_ns = max(1, int(SECOND_NS / requests_per_s))
    window_s = max(1, math.ceil(burst / requests_per_s))
    quota = max(burst, round(requests_per_s * window_s))
    tolerance_ns = period_ns * burst
    ahead_us_max = METERS_BEYOND * (tolerance_ns + UNHEARD_NS) // 1000
    return Policy(name, period_ns, burst, tolerance_ns, quota, window_s, ahead_us_max, b"%d/%d/" % (period_ns, burst))


class Meter(Struct, eq=False):
    """`due_ns` is the theoretical arrival time; `charged_ns` what was charged since somebody was last told, the first
    of it at `since_ns`.
    """

    policy: Policy
    due_ns: int = 0
    charged_ns: int = 0
    since_ns: int = 0

    def try_take(self, now_ns: int) -> int:
        """Charge one request. Returns 0, or, with nothing charged, how many nanoseconds it is too early."""
        policy = self.policy
        due_ns = max(self.due_ns, now_ns) + policy.period_ns
        early_ns = due_ns - now_ns - policy.tolerance_ns
        if early_ns > 0:
            return early_ns
        self.due_ns = due_ns
        if not self.charged_ns:
            self.since_ns = now_ns
        self.charged_ns += policy.period_ns
        return 0

    def left(self, now_ns: int) -> int:
        """How many requests would be let through at once."""
        ahead_ns = self.due_ns - now_ns
        if ahead_ns <= 0:
            return self.policy.burst
        return max(0, (self.policy.tolerance_ns - ahead_ns) // self.policy.period_ns)

    def early_ns(self, now_ns: int) -> int:
        """How long it takes until one request more would be let through than now; 0 when the burst is whole."""
        ahead_ns = self.due_ns - now_ns
        over_ns = ahead_ns - self.policy.tolerance_ns + self.policy.period_ns
        if ahead_ns <= 0 or over_ns > 0:
            return max(0, over_ns)
        return (ahead_ns - 1) % self.policy.period_ns + 1

    def is_idle(self, now_ns: int) -> bool:
        """Whether it is as good as a new one."""
        return self.due_ns <= now_ns and not self.charged_ns

    def tell(self) -> int:
        """What was charged since the last call, which is now told; nanoseconds."""
        charged_ns, self.charged_ns = self.charged_ns, 0
        return charged_ns

    def merge(self, due_ns: int) -> None:
        """Take over the common time, in which all that was told is counted, and nothing that was charged since."""
        self.due_ns = max(self.due_ns, due_ns + self.charged_ns)
