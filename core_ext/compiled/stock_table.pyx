# cython: language_level=3
"""The till, compiled: see core_ext/reference/stock_table.py, which is the specification and documents every method."""

from libc.stdint cimport int64_t

from core_ext.shapes import LeaseView

__all__ = ["StockTable"]


cdef class Lease:
    cdef bytes id
    cdef str sku
    cdef int64_t units, used, promised, age

    cdef int64_t free(self) noexcept:
        return self.units - self.used - self.promised

    cdef int check(self) except -1:
        assert self.used >= 0
        assert self.promised >= 0
        assert self.free() >= 0
        return 0


cdef class Shelf:
    cdef list open  # leases with free units, oldest last
    cdef int64_t free, leases, low_mark


cdef class StockTable:
    cdef dict _shelves, _leases, _low_marks, _thirsty
    cdef int64_t _next_age

    def __init__(self):
        self._shelves = {}
        self._leases = {}
        self._low_marks = {}
        self._thirsty = {}
        self._next_age = 0

    def add(self, str sku not None, bytes lease not None, int64_t units):
        cdef Lease added
        if lease in self._leases:
            raise ValueError("the lease is known already")
        if units < 1:
            raise ValueError("a lease has at least one unit")
        self._next_age += 1
        added = Lease.__new__(Lease)
        added.id, added.sku, added.units, added.age = lease, sku, units, self._next_age
        self._enter(added)

    def free(self, str sku not None) -> int:
        return self._free(sku)

    def try_reserve(self, list demand not None):
        cdef str sku
        cdef int64_t units
        cdef list parts = []
        for sku, units in demand:
            assert units > 0
            if self._free(sku) < units:
                return None
        for sku, units in demand:
            self._promise(sku, units, parts)
        return parts

    def missing(self, list demand not None) -> list:
        cdef str sku
        cdef int64_t units
        cdef list short = []
        for sku, units in demand:
            units -= self._free(sku)
            if units > 0:
                short.append((sku, units))
        return short

    def settle(self, list parts not None):
        cdef bytes id_
        cdef int64_t units
        cdef Lease lease
        for id_, units in parts:
            lease = self._leases.get(id_)
            if lease is not None:
                assert 0 < units <= lease.promised
                lease.promised -= units
                lease.used += units
                lease.check()
                self._forget_when_used_up(lease)

    def restore(self, list parts not None):
        cdef bytes id_
        cdef int64_t units
        cdef Lease lease
        for id_, units in parts:
            lease = self._leases.get(id_)
            if lease is not None:
                assert 0 < units <= lease.promised
                lease.promised -= units
                self._freed(lease, units)

    def drop(self, bytes lease not None) -> bool:
        cdef Lease known
        cdef Shelf shelf
        known = self._leases.get(lease)
        if known is None:
            return False
        shelf = self._shelves[known.sku]
        if known.free():
            shelf.open.remove(known)
            shelf.free -= known.free()
        self._leave(known)
        return True

    def clear(self):
        self._shelves.clear()
        self._leases.clear()
        self._thirsty.clear()

    def try_give(self, str sku not None, int64_t units_max) -> list:
        cdef Shelf shelf = self._shelves.get(sku)
        cdef Lease lease
        cdef int64_t units
        cdef list given = []
        while shelf is not None and shelf.open and units_max > 0:
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

    def holds(self, bytes lease not None) -> bool:
        return lease in self._leases

    def ids(self) -> list:
        return list(self._leases)

    def leases(self) -> list:
        cdef Lease lease
        cdef list by_age = sorted([(lease.age, lease) for lease in self._leases.values()])
        return [LeaseView(lease.id, lease.sku, lease.units, lease.used, lease.promised) for _, lease in by_age]

    def skus(self) -> list:
        return sorted(self._shelves)

    def set_low_mark(self, str sku not None, int64_t units):
        cdef Shelf shelf = self._shelves.get(sku)
        if units:
            self._low_marks[sku] = units
        else:
            self._low_marks.pop(sku, None)
        if shelf is not None:
            shelf.low_mark = units

    @property
    def thirsty(self):
        return bool(self._thirsty)

    def take_thirsty(self) -> list:
        cdef list thirsty = list(self._thirsty)
        self._thirsty.clear()
        return thirsty

    cdef int64_t _free(self, str sku) except -1:
        cdef Shelf shelf = self._shelves.get(sku)
        return 0 if shelf is None else shelf.free

    cdef int _promise(self, str sku, int64_t units, list parts) except -1:
        cdef Shelf shelf = self._shelves[sku]
        cdef Lease lease
        cdef int64_t part
        shelf.free -= units
        if shelf.free < shelf.low_mark:
            self._thirsty[sku] = None
        while units:
            lease = shelf.open[-1]
            part = min(lease.free(), units)
            lease.promised += part
            lease.check()
            if not lease.free():
                shelf.open.pop()
            parts.append((lease.id, part))
            units -= part
        return 0

    cdef int _freed(self, Lease lease, int64_t units) except -1:
        cdef Shelf shelf = self._shelves[lease.sku]
        cdef Py_ssize_t at
        lease.check()
        shelf.free += units
        if lease.free() != units:
            return 0
        # What is freed is old (restored) or new (added): it belongs near one of the ends.
        at = len(shelf.open)
        if at and (<Lease>shelf.open[0]).age < lease.age:
            at = 0
        while at and (<Lease>shelf.open[at - 1]).age < lease.age:
            at -= 1
        shelf.open.insert(at, lease)
        return 0

    cdef int _enter(self, Lease lease) except -1:
        cdef Shelf shelf = self._shelves.get(lease.sku)
        if shelf is None:
            shelf = Shelf.__new__(Shelf)
            shelf.open = []
            shelf.low_mark = self._low_marks.get(lease.sku, 0)
            self._shelves[lease.sku] = shelf
        shelf.leases += 1
        self._leases[lease.id] = lease
        if lease.free():
            self._freed(lease, lease.free())
        return 0

    cdef int _forget_when_used_up(self, Lease lease) except -1:
        if lease.used == lease.units:
            self._leave(lease)
        return 0

    cdef int _leave(self, Lease lease) except -1:
        cdef Shelf shelf = self._shelves[lease.sku]
        del self._leases[lease.id]
        shelf.leases -= 1
        if not shelf.leases:
            del self._shelves[lease.sku]
        return 0
