"""Till and ledger brought together piece by piece: all of a few leases at once, many within a pass, and nothing closed
on one sighting.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from gateway.comparison import Comparison
from gateway.leases import Leases
from gateway.live import Live
from gateway.metrics import Counters
from persistence.errors import LedgerUnavailableError
from tests.unit.fake_ledger import FakeControl, FakeLease, FakeStock
from tests.unit.fakes import NO_SETTINGS, FakeBell, FakeSession, FrozenClock

PIECE = 4
FEW, MANY = PIECE - 1, 3 * PIECE


class Interrupted(FakeControl):
    """Something happens behind the back of whoever has just been answered: after each of its first questions, one of
    `events`.
    """

    def __init__(self, stock: FakeStock) -> None:
        super().__init__(stock)
        self.events: list[Callable[[], object]] = []

    async def fetch(self, text: str, *arguments: Any) -> list[dict[str, Any]]:
        answer = await super().fetch(text, *arguments)
        if self.events:
            self.events.pop(0)()
        return answer


class World:
    def __init__(self) -> None:
        self.stock = FakeStock(A=0)
        self.control = Interrupted(self.stock)
        self.session = FakeSession(self.control)
        self.leases = Leases(FakeSession(self.stock), FrozenClock(), Live(NO_SETTINGS), FakeBell(), Counters())
        self.comparison = Comparison(self.session, self.leases)

    def grant(self, number: int, *, known: bool = True) -> bytes:
        """A lease of one unit in the ledger, and in the till when it is `known`."""
        lease = number.to_bytes(16)
        self.stock.leases[lease] = FakeLease(self.leases.owner, "A", 1)
        if known:
            self.leases.till.add("A", lease, 1)
        return lease

    def lose(self, lease: bytes) -> None:
        """The ledger closes a lease, and nobody tells the till."""
        self.stock.close(lease)

    def strays(self) -> int:
        return sum(lease.active and not self.leases.till.holds(id_) for id_, lease in self.stock.leases.items())

    async def steps(self, count: int) -> None:
        for _ in range(count):
            await self.comparison.step()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("gateway.comparison.COMPARED_MAX", PIECE)
    return World()


async def test_comparison_of_few_leases_drops_and_closes_in_one_step(world: World) -> None:
    closed, kept = world.grant(1), world.grant(2)
    world.lose(closed)
    world.grant(3, known=False)
    await world.steps(1)
    assert world.leases.till.ids() == [kept]
    assert world.strays() == 0
    assert world.stock.leases[kept].active


async def test_comparison_asks_for_no_more_than_a_piece_at_a_time(world: World) -> None:
    for number in range(1, MANY):
        world.grant(number)
    await world.steps(10)
    assert max(world.control.compared) == PIECE


@pytest.mark.parametrize("leases", [FEW, PIECE, PIECE + 1, MANY])
async def test_comparison_drops_whatever_the_ledger_has_closed_within_a_pass(world: World, leases: int) -> None:
    for lease in [world.grant(number) for number in range(1, leases + 1)]:
        world.lose(lease)
    await world.steps(-(-leases // PIECE))
    assert world.leases.till.ids() == []


@pytest.mark.parametrize("leases", [FEW, PIECE, PIECE + 1, MANY])
async def test_comparison_closes_whatever_the_till_does_not_hold_within_a_pass(world: World, leases: int) -> None:
    for number in range(1, leases + 1):
        world.grant(number, known=False)
    await world.steps(-(-leases // PIECE))
    assert world.strays() == 0
    assert world.stock.free["A"] == leases


async def test_comparison_leaves_alone_what_both_know_in_any_number_of_passes(world: World) -> None:
    leases = [world.grant(number) for number in range(1, MANY + 1)]
    await world.steps(10)
    assert world.leases.till.ids() == leases
    assert world.stock.outstanding("A") == MANY


async def test_comparison_begins_anew_after_a_pass(world: World) -> None:
    leases = [world.grant(number) for number in range(1, MANY + 1)]
    await world.steps(MANY // PIECE + 1)
    world.lose(leases[0])
    world.leases.till.drop(leases[-1])
    await world.steps(2 * MANY // PIECE)
    assert world.leases.till.ids() == leases[1:-1]
    assert world.strays() == 0


async def test_comparison_closes_no_lease_that_comes_to_the_till_while_the_ledger_answers(world: World) -> None:
    lease = world.grant(1, known=False)
    world.control.events = [lambda: None, lambda: world.leases.till.add("A", lease, 1)]
    world.grant(2)
    await world.steps(1)
    assert world.stock.leases[lease].active


async def test_comparison_closes_no_lease_that_was_closed_before_its_second_sighting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = world.grant(1)
    closed: list[bytes] = []

    async def note(active: Iterable[bytes]) -> None:
        closed.extend(active)

    monkeypatch.setattr(world.leases, "close_unknown", note)

    def use_up() -> None:
        world.stock.leases[lease].active = False
        world.leases.till.drop(lease)

    world.control.events = [lambda: None, use_up]
    await world.steps(1)
    assert closed == []


async def test_comparison_drops_no_lease_that_was_granted_while_the_ledger_answers(world: World) -> None:
    world.grant(1)
    world.control.events = [lambda: world.grant(2)]
    await world.steps(1)
    assert len(world.leases.till.ids()) == 2


async def test_comparison_that_the_ledger_does_not_answer_is_made_again(world: World) -> None:
    for number in range(1, MANY + 1):
        world.lose(world.grant(number))
        world.grant(MANY + number, known=False)
    await world.steps(1)
    world.session.away = True
    with pytest.raises(LedgerUnavailableError):
        await world.steps(1)
    world.session.away = False
    await world.steps(MANY // PIECE - 1)
    assert world.leases.till.ids() == []
    assert world.strays() == 0


async def test_comparison_of_a_renewed_owner_closes_what_it_does_not_hold(world: World) -> None:
    for number in range(1, MANY + 1):
        world.grant(number)
    await world.steps(1)
    world.leases.renew()
    world.grant(MANY + 1, known=False)
    kept = world.grant(MANY + 2)
    await world.steps(MANY // PIECE + 2)
    assert not world.stock.leases[(MANY + 1).to_bytes(16)].active
    assert world.leases.till.ids() == [kept]
