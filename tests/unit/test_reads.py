"""Showing orders: always as the ledger has them now, and an id that it does not know once a second."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from core_ext import ids
from core_ext.shapes import Order
from gateway import lookup, reads
from gateway.domain.outcomes import Refusal
from gateway.domain.personal import VaultError
from gateway.metrics import Counters
from gateway.reads import OrderReads, Shield
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError
from tests.api import ALL, CLIENTS
from tests.unit.fakes import turns

NOBODYS = ids.new_id(1_800_000_000_000)


def order(client_id: int = ALL.client_id) -> Order:
    return Order(
        id=ids.new_id(1_800_000_000_000),
        client_id=client_id,
        channel="app",
        currency="CNY",
        status="paid",
        version=1,
        total=0,
        lines=[],
        created_at=1_800_000_000_000,
    )


class Ledger:
    """The orders that there are; while not `free`, a question waits. `now` is the clock."""

    def __init__(self) -> None:
        self.orders: dict[bytes, Order] = {}
        self.asked: list[list[bytes]] = []
        self.error: Exception | None = None
        self.closed: set[bytes] = set()  # orders that cannot be opened
        self.free = asyncio.Event()
        self.free.set()
        self.now = 100.0

    def put(self, order: Order) -> Order:
        self.orders[order.id] = order
        return order

    def restore(self, stored: Any) -> Order:
        if stored.id in self.closed:
            raise VaultError("planted by the test")
        order: Order = stored
        return order

    async def fetch(self, order_ids: Sequence[bytes]) -> dict[bytes, Any]:
        self.asked.append(list(order_ids))
        found = {order_id: self.orders[order_id] for order_id in order_ids if order_id in self.orders}
        await self.free.wait()
        if self.error:
            raise self.error
        return found


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
async def shown(ledger: Ledger) -> AsyncIterator[OrderReads]:
    tasks, shown = Tasks(), OrderReads(ledger.fetch, ledger.restore, Counters(), lambda: ledger.now)
    tasks.loop("reads", shown.run)
    yield shown
    await tasks.close(wait_s=0)


async def test_find_order_gives_it_as_it_stands_each_time(shown: OrderReads, ledger: Ledger) -> None:
    first = ledger.put(order())
    assert await shown.find(first.id) is first
    second = ledger.orders[first.id] = order()
    assert await shown.find(first.id) is second


async def test_find_orders_together_asks_once(shown: OrderReads, ledger: Ledger) -> None:
    known = [ledger.put(order()) for _ in range(3)]
    assert list(await asyncio.gather(*(shown.find(one.id) for one in known))) == known
    assert ledger.asked == [[one.id for one in known]]


async def test_find_order_while_it_is_being_asked_for_asks_again(shown: OrderReads, ledger: Ledger) -> None:
    stale = ledger.put(order())
    ledger.free.clear()
    first = asyncio.create_task(shown.find(stale.id))
    await turns()
    fresh = ledger.orders[stale.id] = order()
    second = asyncio.create_task(shown.find(stale.id))
    await turns()
    ledger.free.set()
    assert [await first, await second] == [stale, fresh]


async def test_find_unknown_id_asks_once_a_second(shown: OrderReads, ledger: Ledger) -> None:
    for at in (100.0, 100.5, 100.999, 101.0, 101.5):
        ledger.now = at
        assert await shown.find(NOBODYS) is None
    assert ledger.asked == [[NOBODYS]] * 2


async def test_find_unknown_id_while_it_is_being_asked_for_does_not_ask_again(
    shown: OrderReads, ledger: Ledger
) -> None:
    ledger.free.clear()
    first = asyncio.create_task(shown.find(NOBODYS))
    await turns()
    second = asyncio.create_task(shown.find(NOBODYS))
    await turns()
    ledger.free.set()
    assert [await first, await second] == [None, None]
    assert ledger.asked == [[NOBODYS]]


async def test_find_order_that_comes_to_be_is_found_after_a_second(shown: OrderReads, ledger: Ledger) -> None:
    late = order()
    assert await shown.find(late.id) is None
    ledger.put(late)
    ledger.now += reads.UNKNOWN_S
    assert await shown.find(late.id) is late


async def test_find_order_beside_an_unknown_id_is_found(shown: OrderReads, ledger: Ledger) -> None:
    known = ledger.put(order())
    assert list(await asyncio.gather(shown.find(NOBODYS), shown.find(known.id))) == [None, known]
    assert list(await asyncio.gather(shown.find(NOBODYS), shown.find(known.id))) == [None, known]


async def test_find_order_that_cannot_be_opened_keeps_nobody_from_the_others(shown: OrderReads, ledger: Ledger) -> None:
    closed, known = ledger.put(order()), ledger.put(order())
    ledger.closed.add(closed.id)
    found = await asyncio.gather(shown.find(closed.id), shown.find(known.id), return_exceptions=True)
    assert (type(found[0]), found[1]) == (VaultError, known)
    assert ledger.asked == [[closed.id, known.id]]


async def test_find_order_whose_look_up_failed_is_asked_for_again(shown: OrderReads, ledger: Ledger) -> None:
    ledger.error = LedgerUnavailableError("away")
    with pytest.raises(LedgerUnavailableError):
        await shown.find(NOBODYS)
    ledger.error = None
    assert await shown.find(NOBODYS) is None
    assert len(ledger.asked) == 2


async def test_reads_are_counted(ledger: Ledger) -> None:
    counters, tasks = Counters(), Tasks()
    counting = OrderReads(ledger.fetch, ledger.restore, counters, lambda: ledger.now)
    tasks.loop("reads", counting.run)
    for _ in range(3):
        await counting.find(NOBODYS)
    await tasks.close(wait_s=0)
    assert (counters.reads_asked, counters.reads_shielded) == (1, 2)


def test_shield_forgets_the_oldest_beyond_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "UNKNOWN_MAX", 2)
    shield = Shield(lambda: 100.0)
    shield.note([b"a", b"b", b"c"], 100.0)
    assert [shield.holds(key) for key in (b"a", b"b", b"c")] == [False, True, True]


def test_shield_keeps_nothing_that_is_over() -> None:
    shield = Shield(lambda: 101.0)
    shield.note([b"a", b"b"], 100.0)
    shield.note([b"b", b"c"], 101.0)
    assert len(shield) == 2
    assert not shield.holds(b"a")


async def test_show_order_of_the_client_shows_it(shown: OrderReads, ledger: Ledger) -> None:
    known = ledger.put(order())
    assert await shown.show(ALL, ids.format_id(known.id)) is known


async def test_show_order_of_another_client_is_not_found(shown: OrderReads, ledger: Ledger) -> None:
    known = ledger.put(order(client_id=9))
    assert await shown.show(CLIENTS["fg_own"], ids.format_id(known.id)) == Refusal("not_found")
    assert await shown.show(ALL, ids.format_id(known.id)) is known


async def test_show_what_is_no_id_is_not_found_and_asks_nobody(shown: OrderReads, ledger: Ledger) -> None:
    assert await shown.show(ALL, "x" * 36) == Refusal("not_found")
    assert ledger.asked == []


async def test_show_order_while_the_ledger_is_away_says_so(shown: OrderReads, ledger: Ledger) -> None:
    ledger.error = LedgerUnavailableError("away")
    assert await shown.show(ALL, ids.format_id(NOBODYS)) == Refusal("ledger_away")


async def test_show_order_with_too_many_waiting_is_overloaded(
    shown: OrderReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "WAITING_MAX", 0)
    assert await shown.show(ALL, ids.format_id(NOBODYS)) == Refusal("overloaded")
