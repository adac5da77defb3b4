"""Stock in the hand of a worker: refills, parking in order of arrival, and what *sold out* may be said of."""

from collections.abc import AsyncIterator

import pytest

from gateway import leases as room
from gateway.domain.outcomes import Refusal
from gateway.leases import BOUND_S, RETRY_MAX_S, Leases
from gateway.live import Live
from gateway.metrics import Counters
from gateway.parking import Demand, Parked, Parts, Short
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError
from tests.unit.fake_ledger import FakeLease, FakeStock
from tests.unit.fakes import FakeBell, FakeSession, FrozenClock, settings, turns

PLENTY = 1_000_000


class World:
    """Leases over a pretended ledger. The loop of the leases runs from `start` on."""

    def __init__(self, **stock: int) -> None:
        self.clock = FrozenClock()
        self.tasks = Tasks()
        self.begin(**stock)

    def begin(self, park_ms_max: int = 60_000, **free: int) -> None:
        self.stock = FakeStock(**free)
        self.session = FakeSession(self.stock)
        self.bell = FakeBell()
        live = Live(settings(stock={"park_ms_max": park_ms_max}))
        self.leases = Leases(self.session, self.clock, live, self.bell, Counters())

    def start(self) -> None:
        self.tasks.loop("leases", self.leases.run)

    def hold(self, sku: str, units: int, lease: bytes = b"\x01" * 16) -> None:
        self.stock.leases[lease] = FakeLease(self.leases.owner, sku, units)
        self.leases.till.add(sku, lease, units)

    def park(self, *demand: tuple[str, int]) -> Parked:
        parked = self.leases.park(list(demand))
        assert parked is not None
        return parked

    async def parked(self, *demand: tuple[str, int]) -> Parts | Short | Refusal:
        """What becomes of a parked order, the loop running."""
        parked = self.park(*demand)
        await turns()
        assert parked.result.done(), "it still waits"
        return parked.result.result()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.tasks.close(wait_s=0)


def units_of(result: Parts | Short | Refusal) -> int:
    assert isinstance(result, list), result
    return sum(units for _, units in result)


def demand(**units: int) -> Demand:
    return list(units.items())


async def test_leases_with_units_in_hand_serve_at_once(world: World) -> None:
    world.hold("A", 5)
    assert world.leases.try_reserve(demand(A=3)) == [(b"\x01" * 16, 3)]


async def test_leases_with_an_empty_hand_take_from_the_ledger(world: World) -> None:
    world.begin(A=PLENTY)
    world.start()
    assert world.leases.try_reserve(demand(A=3)) is None
    assert units_of(await world.parked(("A", 3))) == 3


async def test_leases_refill_ahead_of_need_while_there_is_plenty(world: World) -> None:
    world.begin(A=PLENTY)
    world.start()
    await world.parked(("A", 1))
    takes = world.leases.takes
    for _ in range(world.leases.till.free("A")):
        assert world.leases.try_reserve(demand(A=1)) is not None
        await turns()
    assert world.leases.takes > takes
    assert world.leases.try_reserve(demand(A=1)) is not None


async def test_leases_refills_grow_while_they_follow_one_another(world: World) -> None:
    world.begin(A=PLENTY)
    world.start()
    sizes = []
    for _ in range(8):
        await world.parked(("A", world.leases.till.free("A") + 1))
        sizes.append(world.stock.wants[-1][2])
    assert sizes == sorted(sizes)
    assert sizes[-1] == settings().stock.lease_units_max


async def test_leases_in_the_tail_take_exactly_what_the_oldest_needs(world: World) -> None:
    world.begin(A=10)
    world.start()
    assert units_of(await world.parked(("A", 3))) == 3
    assert (world.stock.free["A"], world.leases.till.free("A")) == (7, 0)


async def test_leases_serve_the_parked_in_order_of_arrival(world: World) -> None:
    world.begin(A=5)
    first, second, third = (world.park(("A", units)) for units in (3, 2, 1))
    world.start()
    await turns()
    assert units_of(first.result.result()) == 3
    assert units_of(second.result.result()) == 2
    assert not third.result.done()


async def test_leases_let_nobody_overtake_a_parked_order(world: World) -> None:
    world.hold("A", 2)
    world.park(("A", 3))
    assert world.leases.try_reserve(demand(A=1)) is None


async def test_leases_let_others_of_another_sku_pass_a_parked_order(world: World) -> None:
    world.hold("B", 2)
    world.park(("A", 3))
    assert world.leases.try_reserve(demand(B=1)) is not None


async def test_leases_parked_order_holds_nothing_while_it_waits(world: World) -> None:
    world.begin(A=5)
    world.stock.leases[b"\x09" * 16] = FakeLease("another", "B", 5)
    world.start()
    parked = world.park(("A", 1), ("B", 1))
    await turns()
    assert not parked.result.done()
    assert all(lease.promised == 0 for lease in world.leases.till.leases())


async def test_leases_parked_order_of_several_skus_gets_all_of_them(world: World) -> None:
    world.begin(A=5, B=5)
    world.start()
    assert units_of(await world.parked(("A", 2), ("B", 3))) == 5


async def test_leases_parked_order_keeps_those_behind_from_what_it_lacks(world: World) -> None:
    world.hold("A", 2)
    world.stock.leases[b"\x09" * 16] = FakeLease("another", "A", 5)
    world.stock.free["A"] = 0
    first, second = world.park(("A", 3)), world.park(("A", 2))
    world.start()
    await turns()
    assert (first.result.done(), second.result.done()) == (False, False)


async def test_leases_units_that_come_back_serve_who_waits(world: World) -> None:
    world.hold("A", 3)
    parts = world.leases.try_reserve(demand(A=3))
    assert parts is not None
    world.stock.free["A"] = 0
    world.start()
    parked = world.park(("A", 2))
    await turns()
    assert not parked.result.done()
    world.leases.till.restore(parts)
    world.leases.returned()
    await turns()
    assert units_of(parked.result.result()) == 2


async def test_leases_of_a_quantity_that_does_not_exist_say_sold_out(world: World) -> None:
    world.begin(A=3)
    world.start()
    assert await world.parked(("A", 4)) == Short([("A", 3)])


async def test_leases_count_units_in_other_hands_before_they_say_sold_out(world: World) -> None:
    world.begin(A=1)
    world.stock.leases[b"\x09" * 16] = FakeLease("another", "A", 3)
    world.start()
    waiting = world.park(("A", 4))
    sold_out = world.park(("A", 5))
    await turns()
    assert not waiting.result.done()
    assert sold_out.result.result() == Short([("A", 4)])


async def test_leases_of_an_unknown_sku_say_sold_out(world: World) -> None:
    world.start()
    assert await world.parked(("A", 1)) == Short([("A", 0)])


async def test_leases_tell_who_comes_later_of_sold_out_without_asking(world: World) -> None:
    world.begin(A=3)
    world.start()
    await world.parked(("A", 4))
    assert world.leases.short(demand(A=4)) == Short([("A", 3)])
    assert world.leases.short(demand(A=3)) is None


async def test_leases_believe_a_bound_for_a_second_at_most(world: World) -> None:
    world.begin(A=3)
    world.start()
    await world.parked(("A", 4))
    world.clock.at_s += BOUND_S
    assert world.leases.short(demand(A=4)) is None


async def test_leases_believe_no_bound_after_units_have_come(world: World) -> None:
    world.begin(A=3)
    world.start()
    await world.parked(("A", 4))
    await world.parked(("A", 1))
    assert world.leases.short(demand(A=4)) is None


async def test_leases_parked_too_long_may_come_back_and_is_never_sold_out(world: World) -> None:
    world.begin(park_ms_max=1, A=0)
    world.stock.leases[b"\x09" * 16] = FakeLease("another", "A", 5)
    world.start()
    result = await world.park(("A", 2)).result
    assert isinstance(result, Refusal)
    assert result.code == "stock_returning"


async def test_leases_parked_too_long_while_a_take_is_young_may_come_back(world: World) -> None:
    world.begin(park_ms_max=1, A=5)
    world.session.held.clear()
    world.start()
    result = await world.park(("A", 2)).result
    assert isinstance(result, Refusal)
    assert result.code == "stock_returning"


@pytest.mark.parametrize("fault", ["away", "hangs"])
async def test_leases_parked_while_the_ledger_is_away_say_so(world: World, fault: str) -> None:
    world.begin(A=5)
    world.session.away = fault == "away"
    if fault == "hangs":
        world.session.held.clear()
    world.start()
    parked = world.park(("A", 2))
    await turns()
    world.clock.at_s += 2 * RETRY_MAX_S
    world.leases._give_up(parked)
    assert await parked.result == Refusal("ledger_away")


async def test_leases_after_one_was_parked_too_long_let_others_pass(world: World) -> None:
    world.begin(park_ms_max=1)
    world.hold("A", 1)
    await world.park(("A", 2)).result
    assert world.leases.parked == 0
    assert world.leases.try_reserve(demand(A=1)) is not None


async def test_leases_with_too_many_parked_park_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.parking.PARKED_MAX", 1)
    world.park(("A", 1))
    assert world.leases.park(demand(A=1)) is None


async def test_leases_closed_tell_who_waits_and_park_no_more(world: World) -> None:
    parked = world.park(("A", 1))
    world.leases.close()
    assert parked.result.result() == Refusal("ledger_away")
    assert world.leases.park(demand(A=1)) is None
    await world.leases.run()


async def test_leases_take_that_was_not_answered_is_asked_again_with_the_same_ids(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "RETRY_MIN_S", 0)
    monkeypatch.setattr(room, "RETRY_MAX_S", 0)
    world.begin(A=10)
    world.session.lose_answers = 2
    world.start()
    parked = world.park(("A", 3))
    assert units_of(await parked.result) == 3
    assert len({tuple(take) for take in world.stock.takes[:3]}) == 1
    assert (world.stock.free["A"], world.stock.outstanding("A")) == (7, 3)


async def test_leases_renewed_drop_the_till_and_have_another_owner(world: World) -> None:
    world.hold("A", 5)
    before = world.leases.owner
    world.leases.renew()
    assert world.leases.owner != before
    assert world.leases.till.leases() == []


async def test_leases_renewed_keep_nothing_of_a_take_under_way(world: World) -> None:
    world.begin(A=10)
    world.session.held.clear()
    world.start()
    parked = world.park(("A", 3))
    await turns()
    dead = world.leases.owner
    world.leases.renew()
    world.stock.dead.add(dead)
    world.session.held.set()
    assert units_of(await parked.result) == 3
    assert {lease.owner for lease in world.stock.leases.values()} == {world.leases.owner}


async def test_leases_take_granted_to_an_owner_that_was_renewed_meanwhile_is_not_sold_from(world: World) -> None:
    world.begin(A=10)
    world.session.held.clear()
    world.start()
    parked = world.park(("A", 3))
    await turns()
    dead = world.leases.owner
    world.leases.renew()
    world.session.held.set()
    parts = await parked.result
    assert isinstance(parts, list)
    assert all(world.stock.leases[lease].owner != dead for lease, _ in parts)


async def test_leases_of_an_owner_that_is_not_alive_take_again_once_it_is_renewed(world: World) -> None:
    world.begin(A=10)
    world.stock.dead.add(world.leases.owner)
    world.start()
    parked = world.park(("A", 3))
    await turns()
    assert not parked.result.done()
    world.leases.renew()
    assert units_of(await parked.result) == 3


async def test_unknown_are_leases_that_the_till_does_not_hold(world: World) -> None:
    world.hold("A", 5)
    assert world.leases.unknown([b"\x01" * 16, b"\x07" * 16]) == [b"\x07" * 16]


async def test_unknown_is_no_lease_that_is_being_asked_for(world: World) -> None:
    world.begin(A=10)
    world.session.lose_answers = 1
    world.start()
    parked = world.park(("A", 3))
    await turns()
    granted = list(world.stock.leases)
    assert granted
    assert world.leases.till.ids() == []
    assert world.leases.unknown(granted) == []
    assert units_of(await parked.result) == 3


async def test_close_unknown_gives_back_what_is_unsold(world: World) -> None:
    world.begin(A=0)
    world.stock.leases[b"\x07" * 16] = FakeLease(world.leases.owner, "A", 5)
    await world.leases.close_unknown([b"\x07" * 16])
    assert (world.stock.free["A"], world.stock.outstanding("A")) == (5, 0)


async def test_close_unknown_leaves_alone_what_the_till_holds(world: World) -> None:
    world.hold("A", 5)
    await world.leases.close_unknown([b"\x01" * 16])
    assert world.stock.outstanding("A") == 5


async def test_replace_closes_the_leases_and_drops_them(world: World) -> None:
    world.begin(A=0)
    world.hold("A", 5)
    await world.leases.replace([b"\x01" * 16])
    assert world.leases.till.leases() == []
    assert world.stock.free["A"] == 5


async def test_give_back_returns_what_is_neither_sold_nor_promised(world: World) -> None:
    world.begin(A=0)
    world.hold("A", 5)
    assert world.leases.try_reserve(demand(A=2)) is not None
    await world.leases.give_back("A")
    assert (world.stock.free["A"], world.leases.till.free("A")) == (3, 0)
    [lease] = world.leases.till.leases()
    assert (lease.units, lease.promised) == (2, 2)


async def test_give_back_of_a_sku_without_leases_asks_nobody(world: World) -> None:
    world.session.away = True
    await world.leases.give_back("A")


async def test_give_back_that_was_not_answered_moves_the_units_once(world: World) -> None:
    world.begin(A=0)
    world.hold("A", 5)
    assert world.leases.try_reserve(demand(A=2)) is not None
    world.session.lose_answers = 1
    await world.leases.give_back("A")
    assert world.stock.free["A"] == 3
    assert [lease.units for lease in world.leases.till.leases()] == [2]


async def test_give_back_in_doubt_drops_the_leases_and_says_so(world: World) -> None:
    world.begin(A=0)
    world.hold("A", 5)
    world.session.away = True
    with pytest.raises(LedgerUnavailableError):
        await world.leases.give_back("A")
    assert world.leases.till.leases() == []


async def test_give_back_of_a_lease_that_was_closed_meanwhile_drops_it(world: World) -> None:
    world.begin(A=0)
    world.hold("A", 5)
    assert world.leases.try_reserve(demand(A=1)) is not None
    world.stock.close(b"\x01" * 16)
    await world.leases.give_back("A")
    assert world.stock.free["A"] == 5
    assert world.leases.till.leases() == []
