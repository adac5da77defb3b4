"""The worker's pulse: registered once, the clock learnt, leases compared, and a new owner when it was declared dead."""

from pathlib import Path

import pytest

from gateway.clock import Clock
from gateway.heart import Heart
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.metrics import Counters
from persistence.errors import LedgerUnavailableError
from persistence.postgres import control
from tests.unit.fake_ledger import START_S, FakeControl, FakeLease, FakeStock
from tests.unit.fakes import NO_SETTINGS, SKU, FakeBell, FakeSession

LEASE, STRAY = b"\x01" * 16, b"\x02" * 16


class World:
    def __init__(self) -> None:
        self.stock = FakeStock(**{SKU: 100})
        self.control = FakeControl(self.stock)
        self.session = FakeSession(self.control)
        self.clock = Clock()
        self.live, counters = Live(NO_SETTINGS), Counters()
        self.leases = Leases(FakeSession(self.stock), self.clock, self.live, FakeBell(), counters)
        self.journaling = Journaling(NO_SETTINGS.journal, self.live, self.clock, counters)
        self.heart = Heart(self.session, self.clock, self.leases, 1.0, self.journaling)

    def grant(self, lease: bytes, units: int = 5) -> None:
        self.stock.leases[lease] = FakeLease(self.leases.owner, SKU, units)


@pytest.fixture
def world() -> World:
    return World()


async def test_heart_registers_the_owner_once(world: World) -> None:
    await world.heart.beat()
    await world.heart.beat()
    assert world.control.registered == [world.leases.owner]


async def test_heart_teaches_the_clock_the_time_of_the_ledger(world: World) -> None:
    await world.heart.beat()
    assert world.clock.now_s() == pytest.approx(START_S, abs=1)


async def test_heart_ledger_away_is_counted_until_it_is_back(world: World) -> None:
    world.session.away = True
    await world.heart.beat()
    await world.heart.beat()
    assert world.heart.missed == 2
    world.session.away = False
    await world.heart.beat()
    assert world.heart.missed == 0
    assert world.control.registered == [world.leases.owner]


async def test_heart_of_an_owner_declared_dead_drops_the_till_and_goes_on_as_another(world: World) -> None:
    await world.heart.beat()
    dead = world.leases.owner
    world.grant(LEASE)
    world.leases.till.add(SKU, LEASE, 5)
    world.stock.dead.add(dead)
    await world.heart.beat()
    assert world.leases.till.free(SKU) == 0
    assert world.leases.owner != dead


async def test_heart_of_an_owner_declared_dead_registers_the_new_one_within_the_same_beat(world: World) -> None:
    await world.heart.beat()
    dead = world.leases.owner
    world.stock.dead.add(dead)
    await world.heart.beat()
    assert world.control.registered == [dead, world.leases.owner]
    await world.heart.beat()
    assert len(world.control.registered) == 2


async def test_heart_ledger_goes_away_before_the_new_owner_is_registered_does_so_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.heart.beat()
    dead = world.leases.owner
    world.stock.dead.add(dead)
    renew = world.leases.renew

    def renew_and_lose_the_ledger() -> None:
        renew()
        world.session.away = True

    monkeypatch.setattr(world.leases, "renew", renew_and_lose_the_ledger)
    await world.heart.beat()
    assert world.heart.missed == 1
    world.session.away = False
    await world.heart.beat()
    assert world.control.registered == [dead, world.leases.owner]
    assert world.heart.missed == 0


async def test_heart_closes_leases_that_the_till_does_not_know(world: World) -> None:
    world.grant(STRAY, units=5)
    await world.heart.beat()
    assert not world.stock.leases[STRAY].active
    assert world.stock.free[SKU] == 105


async def test_heart_drops_leases_that_the_ledger_does_not_know(world: World) -> None:
    world.leases.till.add(SKU, LEASE, 5)
    await world.heart.beat()
    assert world.leases.till.leases() == []


async def test_heart_leaves_leases_alone_that_both_know(world: World) -> None:
    world.grant(LEASE)
    world.leases.till.add(SKU, LEASE, 5)
    await world.heart.beat()
    assert world.leases.till.free(SKU) == 5
    assert world.stock.leases[LEASE].active


async def test_heart_tells_where_stock_pinches_and_counts_anew(world: World) -> None:
    world.leases.pinch.refilled(SKU)
    world.leases.pinch.refused(SKU)
    await world.heart.beat()
    await world.heart.beat()
    assert world.control.pinches == [f'{{"{SKU}":[1,1,0]}}', None]


async def test_heart_tells_whether_others_may_have_orders_in_their_journals(world: World) -> None:
    found = []
    for held in (False, True, False):
        world.control.others_may_hold = held
        await world.heart.beat()
        found.append(world.journaling.others_may_hold)
    assert found == [False, True, False]


async def test_heart_that_is_back_does_not_know_of_others_before_its_next_beat(world: World) -> None:
    found = []
    for _ in range(2):
        world.journaling.note_open()
        found.append(world.journaling.others_may_hold)
        await world.heart.beat()
        found.append(world.journaling.others_may_hold)
    assert found == [False, False, True, False]


async def test_heart_withdraws_the_name_of_a_journal_that_is_not_wanted_however_often_it_must_ask(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str | None] = []
    away = [True]

    async def name(_session: object, _owner: str, journal: str | None) -> None:
        if away and away.pop():
            raise LedgerUnavailableError("away")
        named.append(journal)

    monkeypatch.setattr(control, "name_journal", name)
    world.journaling.folder = tmp_path / "journal"
    await world.heart.beat()
    world.live.journal_mode = "reject"
    await world.heart.beat()
    assert (named, world.journaling.named, world.heart.missed) == ([], "", 1)
    await world.heart.beat()
    assert (named, world.journaling.owner) == ([None], "")
    assert not list(world.journaling.folder.iterdir())
