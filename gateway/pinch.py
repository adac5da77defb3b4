"""Where stock pinches: what this worker has counted per stock key since it was last asked. The heartbeat carries it to
the ledger, where operators see all workers together.

It counts and decides nothing, and costs the road one addition.
"""

import heapq
from collections import Counter
from collections.abc import Mapping

KEYS_MAX = 50  # told at once: those with most going on
COUNTED_MAX = 10_000  # keys that are counted between two looks; beyond them the pinch is everywhere

Counts = tuple[int, int, int]


class Pinch:
    """One per owner of leases."""

    def __init__(self) -> None:
        self._refills: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()

    def refilled(self, key: str) -> None:
        """The ledger has granted units."""
        _count(self._refills, key)

    def refused(self, key: str) -> None:
        """An order has been refused for want of stock."""
        _count(self._refused, key)

    def take(self, parked: Mapping[str, int]) -> dict[str, Counts]:
        """Stock key -> (refills, orders refused) since the last call, and the orders `parked` now. The KEYS_MAX keys
        with most of these, worst first; orders that did not get their units weigh before refills.
        """
        keys = self._refills.keys() | self._refused.keys() | {key for key, orders in parked.items() if orders}
        counts = {key: (self._refills.get(key, 0), self._refused.get(key, 0), parked.get(key, 0)) for key in keys}
        self._refills.clear()
        self._refused.clear()
        worst = heapq.nsmallest(KEYS_MAX, counts, key=lambda key: _weight(key, counts[key]))
        return {key: counts[key] for key in worst}


def _count(counter: Counter[str], key: str) -> None:
    if key in counter or len(counter) < COUNTED_MAX:
        counter[key] += 1


def _weight(key: str, counts: Counts) -> tuple[int, int, str]:
    refills, refused, parked = counts
    return -(refused + parked), -refills, key
