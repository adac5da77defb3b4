"""Stock on its way between workers: what is called for goes back, what has become free is asked for, and the ledger is
not asked in vain. The loop turns only when something wakes it, or the test does.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from gateway import leases as room
from gateway.comparison import Comparison
from gateway.domain.outcomes import Refusal
from gateway.leases import LEDGER_CALL_S, SHIELD_S, Leases
from gateway.live import Live
from gateway.metrics import Counters
from gateway.parking import Demand, Parked, Short
from gateway.tasks import Tasks
from persistence.postgres.stock import Shard
from persistence.redis.mirror import Ring
from tests.unit.fake_ledger import FakeControl, FakeLease, FakeStock
from tests.unit.fakes import FakeBell, FakeSession, FrozenClock, settings, turns

PLENTY = 1_000_000
NEVER_S = 3600.0
LEASE_UNITS_MAX = settings().stock.lease_units_max
HELD = b"\x01" * 16


class Worker:
    """Leases of one worker over a pretended ledger, which other workers may share."""

    def __init__(self, stock: FakeStock, tasks: Tasks, clock: FrozenClock) -> None:
        self.stock, self.clock = stock, clock
        self.session, self.bell = FakeSession(stock), FakeBell()
        live = Live(settings(stock={"park_ms_max": 60_000}))
        self.leases = Leases(self.session, clock, live, self.bell, Counters())
        self.running = tasks.loop("leases", self.leases.run)

    def hold(self, sku: str, units: int, promised: int = 0, lease: bytes = HELD) -> None:
        """A lease with so many units in the till, some of them promised."""
        self.stock.free.setdefault(sku, 0)
        self.stock.leases[lease] = FakeLease(self.leases.owner, sku, units)
        self.leases.till.add(sku, lease, units)
        if promised:
            assert self.leases.try_reserve([(sku, promised)]) is not None

    def park(self, **units: int) -> Parked:
        parked = self.leases.park(demand(**units))
        assert parked is not None
        return parked

    async def turn(self, pass_s: float = 0.0) -> None:
        """Let time pass, and the loop turn."""
        self.clock.at_s += pass_s
        self.leases._wake.set()
        await turns()

    async def hear(self, kind: str, *skus: str) -> None:
        for sku in skus:
            self.leases.heard(Ring("wanted" if kind == "wanted" else "freed", sku))
        await turns()

    async def beat(self) -> None:
        """A heartbeat, as far as leases go."""
        await Comparison(FakeSession(FakeControl(self.stock)), self.leases).step()


class World:
    def __init__(self) -> None:
        self.clock, self.tasks = FrozenClock(), Tasks()

    def worker(self, **free: int) -> Worker:
        return self.beside(FakeStock(**free))

    def beside(self, stock: FakeStock) -> Worker:
        """A worker over a ledger that is there already."""
        return Worker(stock, self.tasks, self.clock)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(room, "RETRY_MIN_S", NEVER_S)
    monkeypatch.setattr(room, "RETRY_MAX_S", NEVER_S)
    world = World()
    yield world
    await world.tasks.close(wait_s=0)
    assert world.tasks.failures == 0


def demand(**units: int) -> Demand:
    return list(units.items())


def in_other_hands(stock: FakeStock, sku: str, units: int, lease: bytes = b"\x09" * 16) -> FakeLease:
    stock.free.setdefault(sku, 0)
    stock.leases[lease] = FakeLease("another", sku, units)
    return stock.leases[lease]


def units_there(stock: FakeStock, sku: str) -> int:
    """Units that can still be sold, by whomever."""
    return stock.free[sku] + stock.outstanding(sku)


async def test_leases_called_give_back_all_that_is_unpromised_and_nothing_promised(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5, promised=2)
    worker.hold("A", 4, lease=b"\x02" * 16)
    await worker.hear("wanted", "A")
    assert (worker.stock.free["A"], worker.leases.till.free("A")) == (7, 0)
    assert [(lease.lease, lease.units, lease.promised) for lease in worker.leases.till.leases()] == [(HELD, 2, 2)]


async def test_leases_called_leave_other_skus_alone(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5)
    worker.hold("B", 4, lease=b"\x02" * 16)
    await worker.hear("wanted", "A")
    assert (worker.stock.free["B"], worker.leases.till.free("B")) == (0, 4)


async def test_leases_called_say_that_units_are_free_and_how_many(world: World) -> None:
    worker = world.worker(A=2)
    worker.hold("A", 5, promised=2)
    await worker.hear("wanted", "A")
    assert worker.bell.said_free == ["A"]
    assert worker.bell.pushed == [Shard("A", 0, 5, 1)]


async def test_leases_called_for_a_sku_without_free_units_do_nothing(world: World) -> None:
    worker = world.worker(B=3)
    worker.hold("A", 2, promised=2)
    in_other_hands(worker.stock, "C", 1)
    worker.park(C=1)  # Would be asked for again if the call woke anybody.
    await turns()
    before = worker.leases.till.leases(), list(worker.stock.takes), list(worker.bell.pushed)
    await worker.hear("wanted", "A", "B")
    assert (worker.leases.till.leases(), worker.stock.takes, worker.bell.pushed) == before
    assert (worker.stock.free["A"], worker.bell.said_free) == (0, [])


async def test_leases_called_give_back_what_somebody_waits_for_here_as_well(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 2)
    in_other_hands(worker.stock, "A", 1)
    parked = worker.park(A=3)
    await worker.hear("wanted", "A")
    assert not parked.result.done()
    assert (worker.stock.free["A"], worker.leases.till.free("A")) == (2, 0)


async def test_leases_of_two_workers_that_each_hold_what_the_other_lacks_serve_one_of_them(world: World) -> None:
    one = world.worker()
    two = world.beside(one.stock)
    one.hold("A", 1)
    two.hold("B", 1, lease=b"\x02" * 16)
    orders = one.park(A=1, B=1), two.park(A=1, B=1)
    for _ in range(4):
        for worker in (one, two):
            await worker.turn(SHIELD_S)
            for sku in dict.fromkeys(worker.bell.called):
                worker.bell.called.clear()
                await one.hear("wanted", sku)
                await two.hear("wanted", sku)
    assert sorted(order.result.done() for order in orders) == [False, True]
    assert (units_there(one.stock, "A"), units_there(one.stock, "B")) == (1, 1)


@pytest.mark.parametrize("fault", ["away", "answers are lost"])
async def test_leases_called_while_the_ledger_is_away_lose_no_unit(world: World, fault: str) -> None:
    worker = world.worker()
    worker.hold("A", 5, promised=2)
    worker.session.away = fault == "away"
    worker.session.lose_answers = 0 if worker.session.away else room.GIVE_TRIES
    await worker.hear("wanted", "A")
    assert worker.leases.till.leases() == []
    assert worker.bell.said_free == []
    worker.session.away = False
    await worker.beat()
    assert (worker.stock.free["A"], worker.stock.outstanding("A")) == (5, 0)


async def test_leases_called_for_two_skus_while_the_ledger_is_away_give_back_neither_by_halves(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5)
    worker.hold("B", 4, lease=b"\x02" * 16)
    worker.session.away = True
    await worker.hear("wanted", "A", "B")
    worker.session.away = False
    await worker.beat()
    assert worker.stock.free == {"A": 5, "B": 4}


async def test_leases_renewed_during_a_call_lose_no_unit(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5)
    worker.session.held.clear()
    await worker.hear("wanted", "A")
    worker.leases.renew()
    worker.session.held.set()
    await turns()
    assert (worker.stock.free["A"], worker.leases.till.leases()) == (5, [])
    parked = worker.park(A=2)
    await turns()
    parts = parked.result.result()
    assert isinstance(parts, list)
    assert {worker.stock.leases[lease].owner for lease, _ in parts} == {worker.leases.owner}


async def test_leases_closed_by_the_ledger_and_renewed_during_a_call_give_units_back_once(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5)
    worker.session.held.clear()
    await worker.hear("wanted", "A")
    worker.stock.close(HELD)
    worker.leases.renew()
    worker.session.held.set()
    await turns()
    assert (worker.stock.free["A"], worker.stock.outstanding("A")) == (5, 0)
    assert worker.leases.till.leases() == []


async def test_leases_closed_with_calls_waiting_end_and_keep_the_books(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5)
    await turns()
    worker.leases.heard(Ring("wanted", "A"))
    worker.leases.close()
    await turns()
    assert worker.running.done()
    await worker.beat()
    assert (units_there(worker.stock, "A"), worker.leases.till.free("A")) == (5, worker.stock.outstanding("A"))


async def test_leases_closed_during_a_call_finish_it_and_end(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5)
    worker.session.held.clear()
    await worker.hear("wanted", "A")
    worker.leases.close()
    worker.session.held.set()
    await turns()
    assert worker.running.done()
    assert worker.stock.free["A"] == 5


async def test_leases_closed_during_a_call_ask_for_nothing_more(world: World) -> None:
    worker = world.worker(B=PLENTY)
    worker.hold("A", 5)
    worker.session.held.clear()
    await worker.hear("wanted", "A")
    worker.leases.stock_up(["B"])
    worker.leases.close()
    worker.session.held.set()
    await turns()
    assert worker.running.done()
    assert worker.stock.takes == []


async def test_leases_that_hear_of_freed_units_try_again_what_was_sold_out(world: World) -> None:
    worker = world.worker(A=3)
    short = worker.park(A=4)
    await turns()
    assert short.result.result() == Short([("A", 3)])
    assert worker.leases.short(demand(A=4)) is not None
    worker.stock.free["A"] = 4
    await worker.hear("freed", "A")
    assert worker.leases.short(demand(A=4)) is None
    parked = worker.park(A=4)
    await turns()
    assert isinstance(parked.result.result(), list)


async def test_leases_that_hear_of_freed_units_keep_what_is_known_of_other_skus(world: World) -> None:
    worker = world.worker(A=3)
    worker.park(A=4)
    await worker.hear("freed", "B")
    assert worker.leases.short(demand(A=4)) == Short([("A", 3)])


@pytest.mark.parametrize("shown", [{}, {"A": 0}], ids=["nothing shown", "the mirror behind"])
async def test_leases_that_hear_of_freed_units_wake_who_waits(world: World, shown: dict[str, int]) -> None:
    worker = world.worker()
    lease = in_other_hands(worker.stock, "A", 2)
    worker.bell.shown = shown
    parked = worker.park(A=2)
    await turns()
    assert not parked.result.done()
    worker.stock.free["A"], lease.active = 2, False
    await worker.hear("freed", "A")
    assert isinstance(parked.result.result(), list)


async def test_leases_restocked_void_the_bound_here_and_elsewhere(world: World) -> None:
    worker = world.worker(A=3)
    worker.park(A=4)
    await turns()
    worker.leases.restocked("A")
    assert worker.leases.short(demand(A=4)) is None
    assert worker.bell.said_free == ["A"]


async def test_leases_refused_units_in_other_hands_call_once_per_refusal(world: World) -> None:
    worker = world.worker(A=1)
    in_other_hands(worker.stock, "A", 3)
    worker.park(A=2)
    worker.park(A=3)
    await turns()
    assert (len(worker.stock.takes), worker.bell.called) == (1, ["A"])
    await worker.turn(SHIELD_S)
    assert (len(worker.stock.takes), worker.bell.called) == (2, ["A", "A"])


async def test_leases_refused_with_none_outstanding_call_nobody(world: World) -> None:
    worker = world.worker(A=1)
    parked = worker.park(A=2)
    await turns()
    assert parked.result.result() == Short([("A", 1)])
    assert worker.bell.called == []


async def test_leases_refused_what_does_not_exist_call_nobody(world: World) -> None:
    worker = world.worker()
    in_other_hands(worker.stock, "A", 3)
    parked = worker.park(A=4)
    await turns()
    assert parked.result.result() == Short([("A", 3)])
    assert worker.bell.called == []


async def test_leases_refused_an_order_call_for_nothing_of_which_none_is_outstanding(world: World) -> None:
    worker = world.worker(A=5)
    in_other_hands(worker.stock, "B", 1)
    worker.park(A=1, B=1)
    await turns()
    assert worker.bell.called == ["B"]


async def test_leases_refused_an_order_call_for_what_it_lacks_alone(world: World) -> None:
    """Of A there is enough: nobody has to give any up for an order that fails for want of B."""
    worker = world.worker(A=5)
    in_other_hands(worker.stock, "A", 3)
    in_other_hands(worker.stock, "B", 3, lease=b"\x08" * 16)
    worker.park(A=1, B=1)
    await turns()
    assert worker.bell.called == ["B"]


@pytest.mark.parametrize(("units", "left"), [(3, 7), (11, 10)], ids=["granted", "refused"])
async def test_leases_tell_the_mirror_how_a_take_has_left_the_shards(world: World, units: int, left: int) -> None:
    worker = world.worker(A=10)
    worker.park(A=units)
    await turns()
    assert worker.bell.pushed == [Shard("A", 0, left, 1)]


async def test_leases_granted_call_nobody(world: World) -> None:
    worker = world.worker(A=2)
    in_other_hands(worker.stock, "A", 3)
    worker.park(A=2)
    await turns()
    assert worker.bell.called == []


async def test_leases_parked_for_long_call_by_the_ledger_now_and_then(world: World) -> None:
    worker = world.worker()
    in_other_hands(worker.stock, "A", 3)
    worker.park(A=2)
    heard = []
    for _ in range(8):
        await worker.turn(LEDGER_CALL_S / 2 + 0.01)
        heard.append(len(worker.bell.called_by_ledger))
    assert heard == [0, 1, 1, 2, 2, 3, 3, 4]
    assert set(worker.bell.called_by_ledger) == {"A"}


async def test_leases_parked_for_long_call_by_the_ledger_for_what_they_lack_alone(world: World) -> None:
    worker = world.worker()
    worker.hold("B", 1)
    in_other_hands(worker.stock, "A", 3)
    worker.park(A=2, B=1)
    await worker.turn(2 * LEDGER_CALL_S)
    assert worker.bell.called_by_ledger == ["A"]


async def test_leases_granted_serve_who_waits_before_they_answer_a_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.worker(A=0, X=0)
    in_other_hands(worker.stock, "X", 5)
    in_other_hands(worker.stock, "A", 1, lease=b"\x08" * 16)
    answered = asyncio.Event()
    monkeypatch.setattr(worker.bell, "call_by_ledger", lambda _: answered.wait())
    _, waiting = worker.park(X=1), worker.park(A=1)  # X keeps the worker calling by the ledger when A is called for.
    await turns()
    worker.stock.close(b"\x08" * 16)
    await worker.turn(pass_s=LEDGER_CALL_S)
    worker.leases.heard(Ring("wanted", "A"))
    answered.set()
    await turns()
    assert isinstance(waiting.result.result(), list)
    assert worker.bell.said_free == []


async def test_leases_parked_for_long_call_by_the_ledger_together(world: World) -> None:
    worker = world.worker()
    for number, sku in enumerate("ABC", 1):
        in_other_hands(worker.stock, sku, 3, lease=bytes([64 + number]) * 16)
    worker.park(B=2)
    worker.park(A=1, B=1)
    await worker.turn(2 * LEDGER_CALL_S)
    worker.park(C=1)  # Young: the mirror's bell is enough.
    await worker.turn(2 * LEDGER_CALL_S / 3)
    assert worker.bell.called_by_ledger == ["A", "B"]


async def test_leases_with_nobody_parked_call_nobody_by_the_ledger(world: World) -> None:
    worker = world.worker()
    in_other_hands(worker.stock, "A", 3)
    parked = worker.park(A=2)
    await turns()
    worker.leases.parking.release(parked, Refusal("stock_returning"))
    await worker.turn(2 * LEDGER_CALL_S)
    assert worker.bell.called_by_ledger == []


async def test_leases_refused_do_not_ask_again_while_the_mirror_shows_too_few(world: World) -> None:
    worker = world.worker()
    in_other_hands(worker.stock, "A", 3)
    worker.bell.shown = {"A": 1}
    worker.park(A=2)
    for _ in range(4):
        await worker.turn(SHIELD_S / 5)
    assert len(worker.stock.takes) == 1


@pytest.mark.parametrize("shown", [{"A": 2}, {}], ids=["enough shown", "nothing shown"])
async def test_leases_refused_ask_again_at_once_otherwise(world: World, shown: dict[str, int]) -> None:
    worker = world.worker()
    in_other_hands(worker.stock, "A", 3)
    worker.bell.shown = shown
    worker.park(A=2)
    await turns()
    await worker.turn()
    assert len(worker.stock.takes) == 2


async def test_leases_refused_ask_again_in_the_end_whatever_the_mirror_shows(world: World) -> None:
    worker = world.worker()
    lease = in_other_hands(worker.stock, "A", 3)
    worker.bell.shown = {"A": 0}
    parked = worker.park(A=2)
    await turns()
    lease.used = 3  # They have been sold, of which the mirror says nothing.
    await worker.turn(SHIELD_S + 0.01)
    assert parked.result.result() == Short([("A", 0)])


async def test_leases_refused_an_order_ask_for_no_part_of_it_while_the_mirror_shows_too_few(world: World) -> None:
    worker = world.worker(A=5)
    in_other_hands(worker.stock, "B", 3)
    worker.bell.shown = {"A": 5, "B": 0}
    worker.park(A=1, B=1)
    await turns()
    await worker.turn()
    assert (len(worker.stock.takes), worker.stock.free["A"]) == (1, 5)


async def test_leases_refused_one_order_ask_for_another_at_once(world: World) -> None:
    worker = world.worker(B=5)
    in_other_hands(worker.stock, "A", 3)
    worker.bell.shown = {"A": 0, "B": 0}
    worker.park(A=1)
    await turns()
    other = worker.park(B=2)
    await turns()
    assert other.result.done()
    assert [list(take) for take in worker.stock.orders] == [["A"], ["B"]]


async def test_leases_parked_order_asks_for_all_that_it_lacks_as_one_order(world: World) -> None:
    worker = world.worker(A=5, B=5)
    worker.hold("A", 1)
    worker.hold("C", 1, lease=b"\x02" * 16)
    parked = worker.park(A=3, B=2, C=1)
    await turns()
    [take] = worker.stock.orders
    assert take.keys() == {"A", "B"}
    assert take["A"] == take["B"] > 0
    assert [want[:2] for want in worker.stock.wants] == [("A", 2), ("B", 2)]
    assert parked.result.done()


async def test_leases_parked_orders_that_share_nothing_are_asked_for_together(world: World) -> None:
    worker = world.worker(A=5, B=5, C=5, D=5)
    worker.park(A=1, B=1)
    worker.park(C=1, D=1)
    await turns()
    [take] = worker.stock.orders
    assert take["A"] == take["B"] != take["C"] == take["D"]


async def test_leases_parked_orders_that_share_a_lacking_sku_are_not_asked_for_together(world: World) -> None:
    worker = world.worker(A=5, B=5, C=5)
    orders = worker.park(A=1, B=1), worker.park(B=1, C=1)
    await turns()
    assert [set(take) for take in worker.stock.orders] == [{"A", "B"}, {"B", "C"}]
    assert all(order.result.done() for order in orders)


async def test_leases_parked_order_that_has_to_wait_its_turn_keeps_its_skus_from_later_ones(world: World) -> None:
    worker = world.worker(A=5, B=5, C=5)
    worker.park(A=1)
    worker.park(A=1, B=1)
    worker.park(B=1)
    worker.park(C=1)
    await turns()
    assert set(worker.stock.orders[0]) == {"A", "C"}


async def test_leases_parked_order_of_which_one_sku_is_short_takes_nothing(world: World) -> None:
    worker = world.worker(A=5)
    in_other_hands(worker.stock, "B", 1)
    parked = worker.park(A=2, B=1)
    await turns()
    assert not parked.result.done()
    assert (worker.stock.free["A"], worker.leases.till.leases()) == (5, [])


async def test_leases_stock_up_asks_for_keys_without_units_ahead_of_need_and_once(world: World) -> None:
    worker = world.worker(A=PLENTY, B=PLENTY)
    worker.hold("B", 1)
    worker.leases.stock_up(["A", "B"])
    await turns()
    assert worker.stock.wants == [("A", 0, LEASE_UNITS_MAX)]
    assert worker.leases.till.free("A") == LEASE_UNITS_MAX
    await worker.turn()
    worker.leases.stock_up(["A"])
    await worker.turn()
    assert len(worker.stock.takes) == 1


async def test_leases_stock_up_in_the_tail_asks_once_and_calls_nobody(world: World) -> None:
    worker = world.worker(A=10)
    in_other_hands(worker.stock, "A", 3)
    worker.leases.stock_up(["A"])
    await turns()
    await worker.turn()
    assert (worker.stock.wants, worker.stock.free["A"]) == ([("A", 0, LEASE_UNITS_MAX)], 10)
    assert worker.bell.called == []


async def test_leases_stock_up_beside_a_parked_order_asks_for_each_key_once(world: World) -> None:
    worker = world.worker(A=PLENTY, B=PLENTY)
    worker.park(A=3)
    worker.leases.stock_up(["A", "B"])
    await turns()
    assert [want[:2] for want in worker.stock.wants] == [("A", 3), ("B", 0)]


async def test_leases_stock_up_while_a_take_is_in_doubt_is_asked_for_afterwards(world: World) -> None:
    worker = world.worker(A=5, B=PLENTY)
    worker.session.away = True
    worker.park(A=1)
    await turns()
    worker.leases.stock_up(["B"])
    await turns()
    worker.session.away = False
    await worker.turn()
    await worker.turn()
    assert worker.leases.till.free("B") == LEASE_UNITS_MAX


async def test_leases_stock_up_while_the_mirror_is_asked_is_asked_for_afterwards(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.worker(B=PLENTY)
    in_other_hands(worker.stock, "A", 3)
    worker.park(A=1)
    await turns()

    keys = ["B"]

    async def free(_: Sequence[str], now_ms: int) -> dict[str, int]:
        worker.leases.stock_up(keys)
        keys.clear()
        return {"A": 1}

    monkeypatch.setattr(worker.bell, "free", free)
    await worker.turn()
    await worker.turn()
    assert worker.leases.till.free("B") == LEASE_UNITS_MAX


async def test_recall_gives_back_here_and_calls_everybody_by_both_ways(world: World) -> None:
    worker = world.worker()
    worker.hold("A", 5, promised=2)
    await worker.leases.recall("A")
    assert worker.stock.free["A"] == 3
    assert (worker.bell.called, worker.bell.called_by_ledger) == (["A"], ["A"])
