"""Both tills, step by step, against a model so naive that it is right by inspection: one list of leases, scanned for
everything.
"""

from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from core_ext.shapes import LeaseView
from tests.ext.twins import COMPILED, REFERENCE

SKUS = ("A", "B", "字")
skus = st.sampled_from(SKUS)
demands = st.dictionaries(skus, st.integers(1, 8), max_size=3).map(lambda units: sorted(units.items()))


@dataclass
class ModelLease:
    id: bytes
    sku: str
    units: int
    used: int = 0
    promised: int = 0

    def free(self) -> int:
        return self.units - self.used - self.promised


@dataclass
class Model:
    """`leases` is in order of age and never shrinks but by drop and clear; a lease used up is only hidden."""

    leases: list[ModelLease] = field(default_factory=list)

    def visible(self) -> list[ModelLease]:
        return [lease for lease in self.leases if lease.used < lease.units]

    def free(self, sku: str) -> int:
        return sum(lease.free() for lease in self.leases if lease.sku == sku)

    def try_reserve(self, demand: list[tuple[str, int]]) -> list[tuple[bytes, int]] | None:
        if any(self.free(sku) < units for sku, units in demand):
            return None
        return [
            (lease.id, part)
            for sku, units in demand
            for lease, part in self.split(sku, units, self.leases)
            if promise(lease, part)
        ]

    def try_give(self, sku: str, units: int) -> list[tuple[bytes, int, int]]:
        given = []
        for lease, part in self.split(sku, units, self.leases[::-1]):
            given.append((lease.id, lease.units, part))
            lease.units -= part
        return given

    @staticmethod
    def split(sku: str, units: int, leases: list[ModelLease]) -> list[tuple[ModelLease, int]]:
        parts = []
        for lease in leases:
            if lease.sku == sku and lease.free() and units > 0:
                parts.append((lease, min(lease.free(), units)))
                units -= parts[-1][1]
        return parts

    def find(self, id_: bytes) -> ModelLease | None:
        return next((lease for lease in self.leases if lease.id == id_), None)


def promise(lease: ModelLease, units: int) -> bool:
    lease.promised += units
    return True


class Tills(RuleBasedStateMachine):
    """Each rule does the same to both tills and the model and compares what they say."""

    promised = Bundle("promised")

    @initialize()
    def open(self) -> None:
        self.tills: list[Any] = [REFERENCE.stock_table.StockTable(), COMPILED.stock_table.StockTable()]
        self.model = Model()
        self.marks: dict[str, int] = {}
        self.thirsty: set[str] = set()
        self.number = 0

    def both(self, call: str, *arguments: Any) -> Any:
        reference, compiled = (getattr(till, call)(*arguments) for till in self.tills)
        assert reference == compiled
        return reference

    @rule(sku=skus, units=st.integers(1, 9))
    def add(self, sku: str, units: int) -> None:
        self.number += 1
        lease = self.number.to_bytes(16, "big")
        self.both("add", sku, lease, units)
        self.model.leases.append(ModelLease(lease, sku, units))

    @rule(target=promised, demand=demands)
    def reserve(self, demand: list[tuple[str, int]]) -> Any:
        missing = [(sku, units - self.model.free(sku)) for sku, units in demand if units > self.model.free(sku)]
        assert self.both("missing", demand) == missing
        parts = self.both("try_reserve", demand)
        assert parts == self.model.try_reserve(demand)
        if parts is None:
            return multiple()
        self.thirsty |= {sku for sku, _ in demand if self.model.free(sku) < self.marks.get(sku, 0)}
        return parts

    @rule(parts=consumes(promised))
    def settle(self, parts: list[tuple[bytes, int]]) -> None:
        self.both("settle", parts)
        for lease, units in self.known(parts):
            lease.promised -= units
            lease.used += units

    @rule(parts=consumes(promised))
    def restore(self, parts: list[tuple[bytes, int]]) -> None:
        self.both("restore", parts)
        for lease, units in self.known(parts):
            lease.promised -= units

    def known(self, parts: list[tuple[bytes, int]]) -> list[tuple[ModelLease, int]]:
        return [(lease, units) for id_, units in parts if (lease := self.model.find(id_))]

    @rule(sku=skus, units_max=st.integers(0, 12))
    def give(self, sku: str, units_max: int) -> None:
        assert self.both("try_give", sku, units_max) == self.model.try_give(sku, units_max)

    @rule(place=st.integers(0, 50))
    def drop(self, place: int) -> None:
        lease = self.model.leases[place % len(self.model.leases)].id if self.model.leases else bytes(16)
        assert self.both("drop", lease) == any(lease == each.id for each in self.model.visible())
        self.model.leases = [each for each in self.model.leases if each.id != lease]

    @rule()
    def clear(self) -> None:
        self.both("clear")
        self.model.leases = []
        self.thirsty.clear()

    @rule(sku=skus, units=st.integers(0, 12))
    def set_low_mark(self, sku: str, units: int) -> None:
        self.both("set_low_mark", sku, units)
        self.marks[sku] = units

    @rule()
    def take_thirsty(self) -> None:
        thirsty = self.both("take_thirsty")
        assert len(thirsty) == len(set(thirsty))
        assert set(thirsty) == self.thirsty
        self.thirsty.clear()

    @invariant()
    def thirst_is_told(self) -> None:
        assert all(till.thirsty == bool(self.thirsty) for till in self.tills)

    @invariant()
    def books_balance(self) -> None:
        visible = [
            LeaseView(lease.id, lease.sku, lease.units, lease.used, lease.promised) for lease in self.model.visible()
        ]
        assert self.both("leases") == visible
        assert self.both("ids") == [lease.lease for lease in visible]
        assert self.both("skus") == sorted({lease.sku for lease in visible})
        for sku in SKUS:
            assert self.both("free", sku) == self.model.free(sku)


TestTills = Tills.TestCase
TestTills.settings = settings(deadline=None, max_examples=150, stateful_step_count=60)
