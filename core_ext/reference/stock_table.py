"""The till: the units of active leases that this owner may sell, without asking anybody.

Units of a lease are used (in the ledger), promised (in a commit under way) or free. What was promised is settled or
restored exactly once, when the outcome of the commit is known. Single-threaded; every call costs the leases that it
touches. The till never decides what is true: the ledger refuses a lease that it does not know as active.
"""

from bisect import bisect_left

from core_ext.shapes import LeaseView

__all__ = ["StockTable"]


class _Lease:
    __slots__ = ("age", "id", "promised", "sku", "units", "used")

    def __init__(self, id: bytes, sku: str, units: int, age: int) -> None:  # noqa: A002 - the word of the field
        self.id, self.sku, self.units, self.age = id, sku, units, age
        self.used = self.promised = 0

    def free(self) -> int:
        return self.units - self.used - self.promised

    def check(self) -> None:
        assert self.used >= 0
        assert self.promised >= 0
        assert self.free() >= 0


class _Shelf:
    """The leases of one SKU. `open` holds those with free units, oldest last: reserving takes from its end."""

    __slots__ = ("free", "leases", "low_mark", "open")

    def __init__(self, low_mark: int) -> None:
        self.open: list[_Lease] = []
        self.free, self.leases, self.low_mark = 0, 0, low_mark


class StockTable:
    """All leases of one owner. A *part* is (lease, units): what one lease contributes to an order."""

    def __init__(self) -> None:
        self._shelves: dict[str, _Shelf] = {}
        self._leases: dict[bytes, _Lease] = {}
        self._low_marks: dict[str, int] = {}
        self._thirsty: dict[str, None] = {}
        self._next_age = 0

    def add(self, sku: str, lease: bytes, units: int) -> None:
        """A new lease, all of it free. ValueError when it is known already or has no units."""
        if lease in self._leases:
            raise ValueError("the lease is known already")
        if units < 1:
            raise ValueError("a lease has at least one unit")
        self._next_age += 1
        self._enter(_Lease(lease, sku, units, self._next_age))

    def free(self, sku: str) -> int:
        """Units that can be sold now."""
        shelf = self._shelves.get(sku)
        return shelf.free if shelf else 0

    def try_reserve(self, demand: list[tuple[str, int]]) -> list[tuple[bytes, int]] | None:
        """The parts that cover the demand, oldest lease first; None when a SKU is short, and then nothing has changed.

        The demand names each SKU once, with at least one unit.
        """
        for sku, units in demand:
            assert units > 0
            shelf = self._shelves.get(sku)
            if shelf is None or shelf.free < units:
                return None
        return [part for sku, units in demand for part in self._promise(sku, units)]

    def missing(self, demand: list[tuple[str, int]]) -> list[tuple[str, int]]:
        """The units that are short, for each SKU that is short."""
        short = [(sku, units - self.free(sku)) for sku, units in demand]
        return [(sku, units) for sku, units in short if units > 0]

    def settle(self, parts: list[tuple[bytes, int]]) -> None:
        """The commit is known to have happened: promised units are used. A lease used up is forgotten; parts of a
        dropped one are ignored.
        """
        for id_, units in parts:
            lease = self._leases.get(id_)
            if lease is not None:
                assert 0 < units <= lease.promised
                lease.promised -= units
                lease.used += units
                lease.check()
                self._forget_when_used_up(lease)

    def restore(self, parts: list[tuple[bytes, int]]) -> None:
        """The commit is known not to have happened: promised units are free again. Parts of a dropped lease are
        ignored.
        """
        for id_, units in parts:
            lease = self._leases.get(id_)
            if lease is not None:
                assert 0 < units <= lease.promised
                lease.promised -= units
                self._freed(lease, units)

    def drop(self, lease: bytes) -> bool:
        """Forget a lease with all its units, whatever state they are in. False when it is not known."""
        known = self._leases.get(lease)
        if known is None:
            return False
        shelf = self._shelves[known.sku]
        if known.free():
            shelf.open.remove(known)
            shelf.free -= known.free()
        self._leave(known)
        return True

    def clear(self) -> None:
        """Forget all leases. The low marks stay."""
        for kept in (self._shelves, self._leases, self._thirsty):
            kept.clear()

    def try_give(self, sku: str, units_max: int) -> list[tuple[bytes, int, int]]:
        """Remove up to `units_max` free units, newest lease first: (lease, its units as the ledger has them before,
        units given) each.
        """
        given: list[tuple[bytes, int, int]] = []
        shelf = self._shelves.get(sku)
        while shelf and shelf.open and units_max > 0:
            lease = shelf.open[0]
            units = min(lease.free(), units_max)
            given.append((lease.id, lease.units, units))
            units_max -= units
            lease.units -= units
            shelf.free -= units
            lease.check()
            if not lease.free():
                del shelf.open[0]
            self._forget_when_used_up(lease)
        return given

    def holds(self, lease: bytes) -> bool:
        """Whether the lease is known."""
        return lease in self._leases

    def ids(self) -> list[bytes]:
        """The ids of all leases, in the order in which they came."""
        return list(self._leases)

    def leases(self) -> list[LeaseView]:
        """All leases, oldest first."""
        by_age = sorted(self._leases.values(), key=lambda lease: lease.age)
        return [LeaseView(lease.id, lease.sku, lease.units, lease.used, lease.promised) for lease in by_age]

    def skus(self) -> list[str]:
        """The SKUs that have a lease, in code point order."""
        return sorted(self._shelves)

    def set_low_mark(self, sku: str, units: int) -> None:
        """From now on a reservation that leaves fewer than `units` free makes the SKU thirsty; 0 is never."""
        if units:
            self._low_marks[sku] = units
        else:
            self._low_marks.pop(sku, None)
        if sku in self._shelves:
            self._shelves[sku].low_mark = units

    @property
    def thirsty(self) -> bool:
        """Whether `take_thirsty` has anything to tell."""
        return bool(self._thirsty)

    def take_thirsty(self) -> list[str]:
        """The SKUs of which a reservation since the last call has left fewer free units than their low mark, each
        once.
        """
        thirsty = list(self._thirsty)
        self._thirsty.clear()
        return thirsty

    def _promise(self, sku: str, units: int) -> list[tuple[bytes, int]]:
        shelf = self._shelves[sku]
        shelf.free -= units
        if shelf.free < shelf.low_mark:
            self._thirsty[sku] = None
        parts = []
        while units:
            lease = shelf.open[-1]
            part = min(lease.free(), units)
            lease.promised += part
            lease.check()
            if not lease.free():
                shelf.open.pop()
            parts.append((lease.id, part))
            units -= part
        return parts

    def _freed(self, lease: _Lease, units: int) -> None:
        """`units` of the lease have just become free."""
        lease.check()
        shelf = self._shelves[lease.sku]
        shelf.free += units
        if lease.free() == units:
            shelf.open.insert(bisect_left(shelf.open, -lease.age, key=lambda other: -other.age), lease)

    def _enter(self, lease: _Lease) -> None:
        shelf = self._shelves.get(lease.sku)
        if shelf is None:
            shelf = self._shelves[lease.sku] = _Shelf(self._low_marks.get(lease.sku, 0))
        shelf.leases += 1
        self._leases[lease.id] = lease
        if lease.free():
            self._freed(lease, lease.free())

    def _forget_when_used_up(self, lease: _Lease) -> None:
        if lease.used == lease.units:
            self._leave(lease)

    def _leave(self, lease: _Lease) -> None:
        del self._leases[lease.id]
        shelf = self._shelves[lease.sku]
        shelf.leases -= 1
        if not shelf.leases:
            del self._shelves[lease.sku]
