"""The till by example: what each call does to a lease. The machine beside this file tries their sequences."""

from typing import Any

import pytest

from core_ext.shapes import LeaseView
from tests.ext.twins import Twin

L1, L2, L3 = (bytes([number]) * 16 for number in (1, 2, 3))


def table(twin: Twin, *leases: tuple[str, bytes, int]) -> Any:
    made = twin.stock_table.StockTable()
    for sku, lease, units in leases:
        made.add(sku, lease, units)
    return made


@pytest.fixture
def till(twin: Twin) -> Any:
    """Two leases of A, five and three units, and one of B with two."""
    return table(twin, ("A", L1, 5), ("A", L2, 3), ("B", L3, 2))


def test_add_of_a_lease_makes_its_units_free(till: Any) -> None:
    assert (till.free("A"), till.free("B"), till.free("C")) == (8, 2, 0)
    assert till.leases() == [LeaseView(L1, "A", 5, 0, 0), LeaseView(L2, "A", 3, 0, 0), LeaseView(L3, "B", 2, 0, 0)]
    assert till.skus() == ["A", "B"]


def test_holds_and_ids_name_the_leases_that_are_known(till: Any) -> None:
    assert till.ids() == [L1, L2, L3]
    till.drop(L1)
    assert till.ids() == [L2, L3]
    assert (till.holds(L1), till.holds(L2)) == (False, True)


@pytest.mark.parametrize(("lease", "units"), [(L1, 1), (L1, 5), (bytes(16), 0), (bytes(16), -1)])
def test_add_of_a_known_lease_or_no_units_is_refused(till: Any, lease: bytes, units: int) -> None:
    with pytest.raises(ValueError, match="lease"):
        till.add("A", lease, units)
    assert till.free("A") == 8


def test_reserve_takes_from_the_oldest_lease_and_spans_leases(till: Any) -> None:
    assert till.try_reserve([("A", 4)]) == [(L1, 4)]
    assert till.try_reserve([("A", 2), ("B", 1)]) == [(L1, 1), (L2, 1), (L3, 1)]
    assert (till.free("A"), till.free("B")) == (2, 1)


def test_reserve_that_is_short_of_one_sku_changes_nothing(till: Any) -> None:
    before = till.leases()
    assert till.try_reserve([("A", 8), ("B", 3)]) is None
    assert till.try_reserve([("A", 1), ("C", 1)]) is None
    assert till.leases() == before
    assert till.missing([("A", 8), ("B", 3), ("C", 1)]) == [("B", 1), ("C", 1)]


def test_reserve_of_nothing_has_no_parts(till: Any) -> None:
    assert till.try_reserve([]) == []


def test_reserve_of_no_units_is_a_bug(till: Any) -> None:
    with pytest.raises(AssertionError):
        till.try_reserve([("A", 0)])


def test_settle_uses_the_units_and_forgets_a_lease_used_up(till: Any) -> None:
    till.settle(till.try_reserve([("A", 6)]))
    assert till.leases() == [LeaseView(L2, "A", 3, 1, 0), LeaseView(L3, "B", 2, 0, 0)]


def test_settle_of_the_last_lease_forgets_its_sku(till: Any) -> None:
    till.settle(till.try_reserve([("B", 2)]))
    assert till.skus() == ["A"]


def test_restore_puts_units_back_at_their_age(till: Any) -> None:
    parts = till.try_reserve([("A", 8)])
    till.restore(parts)
    assert till.free("A") == 8
    assert till.try_reserve([("A", 6)]) == [(L1, 5), (L2, 1)]


@pytest.mark.parametrize("call", ["settle", "restore"])
def test_parts_beyond_what_was_promised_are_a_bug(till: Any, call: str) -> None:
    till.try_reserve([("A", 1)])
    with pytest.raises(AssertionError):
        getattr(till, call)([(L1, 2)])
    assert till.leases()[0] == LeaseView(L1, "A", 5, 0, 1)


@pytest.mark.parametrize("call", ["settle", "restore"])
def test_parts_of_a_dropped_lease_are_ignored(till: Any, call: str) -> None:
    parts = till.try_reserve([("A", 6)])
    assert till.drop(L1)
    getattr(till, call)(parts)
    assert till.free("A") == (2 if call == "settle" else 3)


def test_drop_forgets_the_lease_and_its_free_units(till: Any) -> None:
    assert till.drop(L1)
    assert not till.drop(L1)
    assert (till.free("A"), len(till.leases())) == (3, 2)


def test_clear_forgets_all_leases_and_keeps_the_low_marks(till: Any) -> None:
    till.set_low_mark("A", 5)
    till.try_reserve([("A", 4)])
    till.clear()
    assert (till.leases(), till.skus(), till.free("A"), till.take_thirsty()) == ([], [], 0, [])
    till.add("A", L1, 5)
    till.try_reserve([("A", 1)])
    assert till.take_thirsty() == ["A"]


def test_give_takes_free_units_of_the_newest_lease_first(till: Any) -> None:
    assert till.try_give("A", 4) == [(L2, 3, 3), (L1, 5, 1)]
    assert till.leases() == [LeaseView(L1, "A", 4, 0, 0), LeaseView(L3, "B", 2, 0, 0)]
    assert till.free("A") == 4


def test_give_leaves_what_is_promised(till: Any) -> None:
    parts = till.try_reserve([("A", 2)])
    assert till.try_give("A", 100) == [(L2, 3, 3), (L1, 5, 3)]
    assert till.leases()[0] == LeaseView(L1, "A", 2, 0, 2)
    till.settle(parts)
    assert till.skus() == ["B"]


@pytest.mark.parametrize(("sku", "units_max"), [("A", 0), ("A", -1), ("C", 5)])
def test_give_of_nothing_gives_nothing(till: Any, sku: str, units_max: int) -> None:
    assert till.try_give(sku, units_max) == []


def test_low_mark_fallen_below_by_a_reservation_is_told_once(till: Any) -> None:
    till.set_low_mark("A", 5)
    till.try_reserve([("A", 3)])
    assert till.take_thirsty() == []
    till.try_reserve([("A", 1), ("B", 1)])
    till.try_reserve([("A", 1)])
    assert till.thirsty
    assert till.take_thirsty() == ["A"]
    assert not till.thirsty
    assert till.take_thirsty() == []


def test_low_mark_is_told_again_by_the_next_reservation_below_it(till: Any) -> None:
    till.set_low_mark("A", 100)
    till.try_reserve([("A", 1)])
    assert till.take_thirsty() == ["A"]
    till.try_reserve([("A", 1)])
    assert till.take_thirsty() == ["A"]


def test_low_mark_of_zero_is_never_told(till: Any) -> None:
    till.set_low_mark("A", 100)
    till.set_low_mark("A", 0)
    till.try_reserve([("A", 8)])
    assert till.take_thirsty() == []


def test_give_and_refused_reservation_make_nobody_thirsty(till: Any) -> None:
    till.set_low_mark("A", 100)
    till.try_give("A", 7)
    till.try_reserve([("A", 2)])
    assert till.take_thirsty() == []
