"""Orders that wait for stock: bounded, in order of arrival, told once what becomes of them, and in nobody's way but of
those who want what they lack.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext import stock_table
from gateway.domain.outcomes import Refusal
from gateway.parking import Demand, Parked, Parking, Short

LATER_S = 3600.0  # a deadline that no test lives to see
RETURNING = Refusal("stock_returning")


@pytest.fixture
def parking() -> Parking:
    return Parking()


def till(**units: int) -> stock_table.StockTable:
    """A till that holds these units, each SKU in a lease of its own."""
    table = stock_table.StockTable()
    for number, (sku, count) in enumerate(units.items(), 1):
        table.add(sku, bytes([number]) * 16, count)
    return table


def demand(**units: int) -> Demand:
    return list(units.items())


def park(parking: Parking, **units: int) -> Parked:
    parked = parking.park(demand(**units), 0.0, LATER_S, lambda _: None)
    assert parked is not None
    return parked


def done(*orders: Parked) -> list[bool]:
    return [parked.result.done() for parked in orders]


async def test_parking_with_too_many_orders_takes_no_more(parking: Parking, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.parking.PARKED_MAX", 2)
    first, _ = park(parking, A=1), park(parking, A=1)
    assert parking.park(demand(B=1), 0.0, LATER_S, lambda _: None) is None
    assert not parking.holds_back(demand(B=1))
    parking.release(first, RETURNING)
    assert parking.park(demand(B=1), 0.0, LATER_S, lambda _: None) is not None


async def test_parking_tells_its_orders_in_order_of_arrival(parking: Parking) -> None:
    orders = [park(parking, A=units) for units in (3, 1, 2)]
    parking.release(orders[1], RETURNING)
    orders[1:] = [orders[2], park(parking, A=5)]
    assert list(parking) == orders
    assert len(parking) == 3


async def test_parking_holds_back_who_wants_a_sku_that_somebody_waits_for(parking: Parking) -> None:
    park(parking, A=1, B=1)
    assert parking.holds_back(demand(B=1))
    assert parking.holds_back(demand(C=1, A=1))
    assert not parking.holds_back(demand(C=1))


async def test_parking_holds_back_until_the_last_who_waits_is_released(parking: Parking) -> None:
    first, second = park(parking, A=1), park(parking, A=2)
    parking.release(first, RETURNING)
    assert parking.holds_back(demand(A=1))
    parking.release(second, RETURNING)
    assert not parking.holds_back(demand(A=1))


async def test_parking_deadline_gives_the_order_up_once(parking: Parking) -> None:
    given_up: list[Parked] = []

    def give_up(parked: Parked) -> None:
        given_up.append(parked)
        parking.release(parked, RETURNING)

    parked = parking.park(demand(A=1), 0.0, 0.0, give_up)
    assert parked is not None
    assert await parked.result == RETURNING
    late = parking.park(demand(A=1), 0.0, 0.0, give_up)
    assert late is not None
    await late.result
    assert given_up == [parked, late]


async def test_parking_deadline_of_a_released_order_does_not_fire(parking: Parking) -> None:
    given_up: list[Parked] = []
    first, second = (parking.park(demand(A=1), 0.0, 0.0, given_up.append) for _ in range(2))
    assert first is not None
    assert second is not None
    parking.release(first, RETURNING)
    control = parking.park(demand(A=1), 0.0, 0.0, lambda parked: parking.release(parked, RETURNING))
    assert control is not None
    await control.result
    assert given_up == [second]


async def test_parking_release_tells_an_order_once(parking: Parking) -> None:
    parked, other = park(parking, A=1), park(parking, A=1)
    parking.release(parked, Short([("A", 0)]))
    parking.release(parked, RETURNING)
    assert parked.result.result() == Short([("A", 0)])
    assert list(parking) == [other]
    assert parking.holds_back(demand(A=1))


async def test_parking_refuse_short_tells_only_those_who_want_more_than_exists(parking: Parking) -> None:
    more, less, exact, other = (park(parking, **units) for units in ({"A": 4, "B": 1}, {"A": 2}, {"A": 3}, {"B": 9}))
    assert parking.refuse_short("A", 3) == 1
    assert more.result.result() == Short([("A", 3)])
    assert list(parking) == [less, exact, other]


async def test_parking_refuse_short_tells_all_who_want_more_than_exists(parking: Parking) -> None:
    park(parking, A=1)
    park(parking, B=1, A=2)
    assert parking.refuse_short("A", 0) == 2
    assert len(parking) == 0


async def test_parking_serves_in_order_of_arrival(parking: Parking) -> None:
    orders = [park(parking, A=units) for units in (3, 2, 1)]
    parking.serve(till(A=5))
    assert done(*orders) == [True, True, False]
    assert orders[0].result.result() == [(b"\x01" * 16, 3)]


async def test_parking_order_that_stays_short_reserves_nothing(parking: Parking) -> None:
    park(parking, A=1, B=2)
    table = till(A=1, B=1)
    parking.serve(table)
    assert (table.free("A"), table.free("B")) == (1, 1)


async def test_parking_order_that_lacks_a_sku_keeps_those_behind_from_it(parking: Parking) -> None:
    orders = park(parking, A=3), park(parking, A=2), park(parking, A=1, B=1)
    parking.serve(till(A=2, B=1))
    assert done(*orders) == [False, False, False]


async def test_parking_order_that_lacks_a_sku_lets_those_behind_have_its_other_skus(parking: Parking) -> None:
    orders = park(parking, A=2, B=1), park(parking, B=1), park(parking, A=1)
    parking.serve(till(A=1, B=1))
    assert done(*orders) == [False, True, False]


async def test_parking_order_behind_one_that_is_short_keeps_what_it_lacks_itself(parking: Parking) -> None:
    """The second lacks B on its own account: whoever came after it may not have the B that is there."""
    orders = park(parking, A=2), park(parking, A=1, B=2), park(parking, B=1)
    parking.serve(till(A=1, B=1))
    assert done(*orders) == [False, False, False]


async def test_parking_serves_those_whose_units_have_come(parking: Parking) -> None:
    orders = park(parking, A=2), park(parking, B=1)
    table = till(A=1)
    parking.serve(table)
    table.add("A", b"\x09" * 16, 1)
    parking.serve(table)
    assert done(*orders) == [True, False]
    assert table.free("A") == 0
    assert list(parking) == [orders[1]]


def served_one_by_one(demands: list[dict[str, int]], units: dict[str, int]) -> list[bool]:
    """What `serve` promises, said without lines: who is served, order by order."""
    left, short, served = dict(units), set[str](), []
    for wanted in demands:
        lacks = {sku for sku, count in wanted.items() if left.get(sku, 0) < count}
        served.append(not lacks and not short & wanted.keys())
        if served[-1]:
            left = {sku: count - wanted.get(sku, 0) for sku, count in left.items()}
        else:
            short |= lacks
    return served


counts = st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 4), min_size=1, max_size=3)


@given(st.lists(counts, max_size=25), st.dictionaries(st.sampled_from("ABCD"), st.integers(1, 12)), st.data())
async def test_parking_serves_whom_a_look_at_every_order_would_serve(
    demands: list[dict[str, int]], units: dict[str, int], data: st.DataObject
) -> None:
    parking = Parking()
    orders = [park(parking, **wanted) for wanted in demands]
    gone = data.draw(st.sets(st.sampled_from(range(len(orders))))) if orders else set()
    for at in gone:
        parking.release(orders[at], RETURNING)
    parking.serve(till(**units))
    staying = [at for at in range(len(orders)) if at not in gone]
    expected = served_one_by_one([demands[at] for at in staying], units)
    assert [isinstance(orders[at].result.result(), list) if orders[at].result.done() else False for at in staying] == (
        expected
    )
    assert len(parking) == expected.count(False)
    for parked in parking:
        parking.release(parked, RETURNING)  # Its deadline would outlive the loop.
    assert not parking.skus
    assert not parking.units
