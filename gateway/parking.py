"""Orders that wait for stock (parked), in order of arrival. They hold nothing, have a deadline, and are bounded in
number.

Nobody who comes later overtakes a parked order on a SKU that it lacks. What becomes of one is said once: its parts of
leases, that fewer units exist than it asks for (Short), or a refusal.
"""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

from msgspec import Struct

from core_ext import stock_table
from gateway.domain.outcomes import Refusal

Demand = list[tuple[str, int]]
Parts = list[tuple[bytes, int]]

PARKED_MAX = 10_000  # orders that may wait for stock in one worker


class Short(Struct):
    """An order asks for more than exists: the SKUs, each with the units that do exist."""

    available: list[tuple[str, int]]


class Parked(Struct, eq=False):
    """An order that waits for stock; `number` rises with its arrival. The future gives its parts of leases, or why it
    gets none.
    """

    number: int
    demand: Demand
    result: asyncio.Future[Parts | Short | Refusal]
    since_s: float
    deadline: asyncio.TimerHandle | None = None


class Parking:
    """One per owner of leases. Those who wait for a SKU stand in its line, so that a turn costs the SKUs that somebody
    waits for, and not the orders. `skus` counts the orders of each line, `units` what they want.
    """

    def __init__(self) -> None:
        self.skus: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._orders: dict[int, Parked] = {}
        self._lines: dict[str, dict[int, Parked]] = {}

    def __len__(self) -> int:
        return len(self._orders)

    def __iter__(self) -> Iterator[Parked]:
        """In order of arrival; orders may leave meanwhile."""
        return iter(list(self._orders.values()))

    def holds_back(self, demand: Demand) -> bool:
        """Whether somebody waits for one of these SKUs already."""
        return bool(self._lines) and any(sku in self._lines for sku, _ in demand)

    def heads(self) -> dict[str, Parked]:
        """SKU -> who has waited for it longest."""
        return {sku: next(iter(line.values())) for sku, line in self._lines.items()}

    def park(self, demand: Demand, now_s: float, wait_s: float, give_up: Callable[[Parked], None]) -> Parked | None:
        """Let an order wait; after `wait_s` it is given up. None when too many wait already."""
        if len(self._orders) >= PARKED_MAX:
            return None
        loop = asyncio.get_running_loop()
        parked = Parked(next(self._numbers), demand, loop.create_future(), now_s)
        parked.deadline = loop.call_later(wait_s, give_up, parked)
        self._orders[parked.number] = parked
        for sku, units in demand:
            self._lines.setdefault(sku, {})[parked.number] = parked
            self.skus[sku] += 1
            self.units[sku] += units
        return parked

    def release(self, parked: Parked, result: Parts | Short | Refusal) -> None:
        """Tell an order what becomes of it. Nothing happens when it has been told before."""
        if self._orders.pop(parked.number, None) is None:
            return
        assert parked.deadline is not None
        parked.deadline.cancel()
        for sku, units in parked.demand:
            del self._lines[sku][parked.number]
            self.skus[sku] -= 1
            self.units[sku] -= units
            if not self.skus[sku]:
                del self._lines[sku], self.skus[sku], self.units[sku]
        if not parked.result.done():  # Whoever waited may have been cancelled.
            parked.result.set_result(result)

    def walk(self, blocked: set[str]) -> Iterator[Parked]:
        """Orders in order of arrival, each once. The caller adds to `blocked` the SKUs that an order keeps from those
        behind it: nobody behind in such a line is looked at on its account. Orders may leave meanwhile.
        """
        heads = [(next(iter(line)), sku) for sku, line in self._lines.items()]
        heapq.heapify(heads)
        rest: dict[str, Iterator[int]] = {}
        last = 0
        while heads:
            number, sku = heapq.heappop(heads)
            if number > last and number in self._orders:
                last = number
                yield self._orders[number]
            if sku not in blocked:
                if sku not in rest:
                    rest[sku] = iter([behind for behind in self._lines.get(sku, ()) if behind > number])
                if (behind := next(rest[sku], None)) is not None:
                    heapq.heappush(heads, (behind, sku))

    def serve(self, till: stock_table.StockTable) -> None:
        """Serve in order of arrival. An order that is not served keeps those behind it from what it lacks."""
        short: set[str] = set()
        for parked in self.walk(short):
            behind = any(sku in short for sku, _ in parked.demand)
            parts = None if behind else till.try_reserve(parked.demand)
            if parts is None:
                short.update(sku for sku, _ in till.missing(parked.demand))
            else:
                self.release(parked, parts)

    def refuse_short(self, sku: str, bound: int) -> int:
        """Tell everybody who wants more than `bound` units of a SKU that no more exist. Returns how many that were."""
        line = self._lines.get(sku, {}).values()
        short = [parked for parked in line if any(wanted == sku and units > bound for wanted, units in parked.demand)]
        for parked in short:
            self.release(parked, Short([(sku, bound)]))
        return len(short)
