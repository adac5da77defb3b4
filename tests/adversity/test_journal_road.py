"""The ledger away while workers sell: orders are acknowledged from the journal, and each becomes what was promised: a
row, an alias of the order that holds its key, or an order that is cancelled for want of its units. Then the books
balance, and everything that is left can be sold.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from persistence.journal import peek, read_quarantine
from persistence.postgres import journals
from persistence.postgres.session import Session
from tests.cut_proxy import COMMIT, CutProxy, Loss, open_proxy
from tests.worker_world import SKU, Shop, World, code_of, eventually, open_world, order, order_id_of

UNITS = 160
OTHER = "84029E"
TIMES: dict[str, Any] = {"owner__heartbeat_ms": 50, "stock__park_ms_max": 300, "journal__patience_ms": 200}


class Site:
    """A world whose workers reach the ledger through a proxy, and keep their journals in one folder."""

    def __init__(self, world: World, proxy: CutProxy, folder: Path) -> None:
        self.world = world
        self.proxy = proxy
        self.folder = folder

    async def shop(self, **flags: Any) -> Shop:
        """A worker, whose journal the ledger knows of if it has one."""
        shop = await self.world.shop(
            **(TIMES | {"postgres__url": self.proxy.url, "journal__folder": str(self.folder)} | flags)
        )
        journaling = shop.services.journaling
        await eventually("the journal is named", lambda: _is(journaling.usable or not journaling.wanted))
        return shop

    async def stocked(self, **flags: Any) -> Shop:
        """A worker with units in hand."""
        shop = await self.shop(**flags)
        shop.services.leases.stock_up([SKU])
        await eventually("units are in hand", lambda: _is(shop.services.leases.till.free(SKU) > 10))
        return shop

    async def away(self, shop: Shop) -> None:
        """The ledger is away, and the worker knows it."""
        self.proxy.take_away()
        answer = await shop.place("the-first")
        assert answer.status == 202, answer.body

    async def all_rows(self, shop: Shop, orders: int) -> None:
        self.proxy.bring_back()
        await eventually("the journal is drained", lambda: _is(shop.services.journaling.is_empty))
        await eventually(f"there are {orders} orders", lambda: self._has(orders))

    async def _has(self, orders: int) -> bool:
        return await self.world.count("orders") == orders

    async def end(self, sold: int) -> None:
        """Whoever is left sells everything that is left, to the last unit; then the books balance."""
        self.world.steward(**TIMES)
        shop = await self.shop()
        left = UNITS - sold
        answers = await asyncio.gather(*(shop.buy(f"left-{number}") for number in range(left + 3)))
        assert sorted(answer.status for answer in answers) == [201] * left + [409] * 3
        await eventually("every event is sent", self.world.outbox_is_empty)
        await self.world.assert_clean()


async def _is(so: bool) -> bool:  # noqa: FBT001 - by position
    return so


@pytest.fixture
async def site(postgres_url: str, nats_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with open_world(postgres_url, nats_url) as world, open_proxy(postgres_url) as proxy:
        await world.product(units=UNITS)
        yield Site(world, proxy, tmp_path / "journal")
        proxy.bring_back()


def promised(shop: Shop) -> int:
    """Units that a commit under way, or a leak, has."""
    return sum(lease.promised for lease in shop.services.leases.till.leases())


def header(answer: Any, name: bytes) -> bytes | None:
    return dict(answer.headers).get(name)


async def test_worker_without_ledger_gives_receipts_that_become_rows(site: Site) -> None:
    shop = await site.stocked()
    assert (await shop.place("before")).status == 201
    await site.away(shop)
    answers = await asyncio.gather(*(shop.place(f"away-{number}") for number in range(10)))
    assert {answer.status for answer in answers} == {202}
    receipt = await shop.place('"a b/c?%"'.replace(" ", "_"))
    assert msgspec.json.decode(receipt.body) == {"status": "accepted", "idempotency_key": "a_b/c?%"}
    assert header(receipt, b"location") == b"/v1/orders?idempotency_key=a_b%2Fc%3F%25"
    assert header(receipt, b"retry-after") == b"1"
    assert shop.services.takes_orders
    await site.all_rows(shop, 13)
    assert (await shop.place("after")).status == 201
    again = await shop.place("away-3")
    assert (again.status, header(again, b"idempotency-replayed")) == (201, b"true")
    await site.end(sold=14)
    assert {event.id.rpartition(".")[2] for event in await site.world.events()} == {"1"}


async def test_receipt_asked_for_again_is_the_same_and_another_body_is_refused(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    assert [(await shop.place("k-1")).status for _ in range(3)] == [202, 202, 202]
    other = await shop.place("k-1", order(quantity=2))
    assert (other.status, code_of(other)) == (422, "key_reused")
    await site.all_rows(shop, 2)
    await site.end(sold=2)


async def test_one_key_over_two_workers_without_ledger_is_one_order_and_an_alias(site: Site) -> None:
    shops = [await site.stocked(stock__lease_units_max=16), await site.stocked(stock__lease_units_max=16)]
    await site.away(shops[0])
    for shop in shops:
        assert (await shop.place("twice")).status == 202
    assert (await shops[0].place("other-body")).status == 202
    assert (await shops[1].place("other-body", order(quantity=2))).status == 202
    for shop in shops:
        await site.all_rows(shop, 3)
    aliases = await site.world.pool.fetch(
        "select a.*, o.order_id is not null as lives from order_alias a left join orders o on o.order_id = a.of_order"
    )
    assert sorted((row["same_body"], row["lives"]) for row in aliases) == [(False, True), (True, True)]
    assert len({order_id_of(await shop.place("twice")) for shop in shops}) == 1
    units = await site.world.value("select sum(quantity) from order_lines")
    await site.end(sold=units)


async def test_worker_without_ledger_refuses_what_only_the_ledger_can_tell(site: Site) -> None:
    await site.world.product(OTHER, units=5)
    shop = await site.stocked()
    await site.away(shop)
    hand = shop.services.leases.till.free(SKU)
    for key, body in (
        ("empty-hand", order(OTHER)),
        ("more-than-in-hand", order(quantity=hand + 1)),
        ("unknown-sku", order("NOTHING")),
    ):
        answer = await shop.place(key, body)
        assert (answer.status, code_of(answer)) == (503, "ledger_away"), key
        assert header(answer, b"retry-after") == b"1"
    broken = await shop.place("broken", b"{")
    assert (broken.status, code_of(broken)) == (400, "malformed_json")
    await site.all_rows(shop, 1)
    await site.end(sold=1)


async def test_sku_with_a_limit_is_refused_without_ledger_also_under_way(site: Site) -> None:
    """Those admitted before anybody knew that the ledger is away are not promised either."""
    shop = await site.stocked(limits__rule=[{"sku": SKU, "units": 3}])
    body = order(customer_id="u-1")
    site.proxy.take_away()
    first = await shop.place("k-1", body)
    assert (first.status, code_of(first)) == (503, "ledger_away")
    second = await shop.place("k-2", body)
    assert (second.status, code_of(second)) == (503, "ledger_away")
    site.proxy.bring_back()
    await eventually("it is back", lambda: _is(shop.services.admission.open))
    assert (await shop.buy("k-1", body)).status == 201
    await eventually("nothing is promised", lambda: _is(not promised(shop)))
    await site.world.assert_clean()


@pytest.mark.parametrize("loss", list(Loss))
async def test_commit_in_doubt_goes_to_the_journal_and_is_one_order(site: Site, loss: Loss) -> None:
    shop = await site.stocked()
    site.proxy.arm(COMMIT, loss)
    placed = asyncio.ensure_future(shop.place("k-1"))
    await site.proxy.cut.wait()
    site.proxy.take_away()
    assert (await placed).status == 202
    await site.all_rows(shop, 1)
    assert (await shop.place("k-1")).status == 201
    await eventually("nothing is promised", lambda: _is(not promised(shop)))
    await site.end(sold=1)


async def test_commit_that_is_not_answered_keeps_nobody_waiting(site: Site) -> None:
    """The ledger is there, and silent: nobody resets a connection."""
    shop = await site.stocked()
    site.proxy.arm(COMMIT, Loss.SILENCE)
    assert (await shop.place("k-1")).status == 202
    await site.all_rows(shop, 1)
    await site.end(sold=1)


async def test_connection_that_breaks_once_needs_no_journal(site: Site) -> None:
    shop = await site.stocked(journal__patience_ms=10_000)
    site.proxy.arm(COMMIT, Loss.REPLY)
    assert (await shop.place("k-1")).status == 201
    assert shop.services.counters.journaled == 0
    await site.end(sold=1)


async def test_journal_of_a_killed_worker_is_adopted(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    assert {(await shop.place(f"away-{number}")).status for number in range(9)} == {202}
    await shop.kill()
    site.proxy.bring_back()
    next_one = await site.shop()
    await eventually("the journal is adopted", lambda: _is(next_one.services.counters.journals_adopted == 1))
    await eventually("its orders are rows", lambda: site._has(10))
    await eventually("the file is gone", lambda: _is(len(peek(site.folder)) == 1))
    assert (await next_one.place("away-3")).status == 201
    await site.end(sold=10)


async def test_worker_that_stops_without_ledger_leaves_its_journal_to_the_next(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    await shop.stop()
    assert len(peek(site.folder)) == 1
    site.proxy.bring_back()
    await site.shop()
    await eventually("its order is a row", lambda: site._has(1))
    await site.end(sold=1)


async def test_worker_that_stops_with_an_empty_journal_leaves_nothing(site: Site) -> None:
    shop = await site.stocked()
    assert (await shop.place("k-1")).status == 201
    await shop.stop()
    assert peek(site.folder) == []
    assert await site.world.active_leases() == 0
    await site.end(sold=1)


async def test_journal_given_up_whose_disk_comes_back_finds_other_units(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    assert (await shop.place("k-2")).status == 202
    await site_abandons(site, shop)
    await site.all_rows(shop, 2)
    assert await site.world.value("select count(*) from orders where status = 'pending_payment'") == 2
    await site.end(sold=2)


async def test_journal_given_up_whose_units_are_sold_is_cancelled_with_its_events(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    await site_abandons(site, shop)
    other = await site.world.shop(**TIMES)
    assert {(await other.buy(f"k-{number}")).status for number in range(UNITS)} == {201}
    site.proxy.bring_back()
    await eventually("it is cancelled", lambda: _count(site, "orders where status = 'cancelled'", 1))
    lost = await site.world.value("select order_id from orders where status = 'cancelled'")
    history = await site.world.pool.fetch(
        "select version, event, status, reason from order_history where order_id = $1 order by version", lost
    )
    assert [tuple(row) for row in history] == [
        (1, "created", "pending_payment", None),
        (2, "cancelled", "cancelled", "units_lost"),
    ]
    site.world.steward(**TIMES)
    await eventually("every event is sent", site.world.outbox_is_empty)
    assert {f"{lost}.1", f"{lost}.2"} <= {event.id for event in await site.world.events()}
    again = await other.place("the-first")
    assert (again.status, order_id_of(again)) == (201, str(lost))
    await site.world.assert_clean()


async def test_key_that_may_be_in_a_journal_is_not_said_to_be_unknown(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    book = shop.services.book
    await shop.kill()
    site.proxy.bring_back()
    reader = await site.world.shop(**TIMES)
    now_s = reader.services.clock.now_s()
    book = reader.services.book
    assert await book.may_be_journaled(reader.services.journaling.owner, now_s - 0.01)
    await site.shop()
    await eventually("the order is a row", lambda: site._has(1))
    await eventually("nobody may have any", lambda: _no_journals(reader))


async def _no_journals(reader: Shop) -> bool:
    since_s = reader.services.clock.now_s() - 1.0
    return not await reader.services.book.may_be_journaled(reader.services.journaling.owner, since_s)


async def test_record_that_the_ledger_refuses_is_put_aside_and_the_rest_goes_on(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    assert {(await shop.place(f"away-{number}")).status for number in range(3)} == {202}
    await site.world.pool.execute("alter table order_lines add constraint poisoned check (quantity <> 7) not valid")
    assert (await shop.place("poisoned", order(quantity=7))).status == 202
    assert (await shop.place("last")).status == 202
    await site.all_rows(shop, 5)
    assert shop.services.counters.journal_put_aside == 1
    (put_aside,) = [one for path in site.folder.glob("*.quarantine") for one in read_quarantine(path)]
    assert "poisoned" in put_aside.reason
    await site.end(sold=5)


async def test_mode_reject_answers_503_and_a_silent_owner_is_buried_by_the_steward(site: Site) -> None:
    shop = await site.stocked(journal__mode="reject")
    site.proxy.take_away()
    answer = await shop.place("k-1")
    assert (answer.status, code_of(answer)) == (503, "ledger_away")
    assert not shop.services.takes_orders
    await shop.kill()
    site.proxy.bring_back()
    site.world.steward(**TIMES)
    await eventually("its leases are closed", lambda: _count(site, "stock_lease where state = 'active'", 0))
    assert not site.folder.exists()


async def test_silent_owner_with_a_journal_is_left_to_who_holds_it(site: Site) -> None:
    shop = await site.stocked()
    await site.away(shop)
    await shop.kill()
    await site.world.pool.execute("update worker set seen_at = seen_at - interval '1 day'")
    site.world.steward(**TIMES)
    looks = 40  # of a steward that would bury it four times over
    for _ in range(looks):
        await asyncio.sleep(0.1)
        assert await site.world.value("select state from worker limit 1") == "alive"
    assert await site.world.active_leases() > 0
    site.proxy.bring_back()
    await site.end(sold=1)


async def _count(site: Site, what: str, count: int) -> bool:
    return await site.world.count(what) == count


async def site_abandons(site: Site, shop: Shop) -> None:
    """What `floodgate journal abandon` does."""
    session = Session(site.world.postgres_url, "fg-test-journal")
    try:
        await journals.bury(session, shop.services.leases.owner, 0)
    finally:
        await session.close()
