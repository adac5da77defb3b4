"""Workers whose PostgreSQL stops in the middle, deadlocks or refuses a row, and whose stream loses its answers: nobody
waits for ever, no neighbour suffers, and in the end each order is one row and one event.
"""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from bench.faults import wire
from persistence.postgres import control
from tests.cut_proxy import COPY_DATA, CutProxy, Loss, Trigger, open_proxy
from tests.worker_world import SKU, Shop, World, code_of, eventually, open_world, order, order_id_of

UNITS = 400
TIMES: dict[str, Any] = {"owner__heartbeat_ms": 50, "stock__park_ms_max": 300, "journal__patience_ms": 200}
EVENT = Trigger(re.compile(wire.EVENT.request), re.compile(wire.EVENT.reply))
WAITING = "select pid from pg_stat_activity where application_name like 'fg-commit:%' and wait_event_type = 'Lock'"


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=UNITS)
        yield world
        await world.assert_clean()


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[CutProxy]:
    async with open_proxy(postgres_url) as proxy:
        yield proxy


async def stocked(world: World, **flags: Any) -> Shop:
    """A worker with units in hand."""
    shop = await world.shop(**(TIMES | flags))
    shop.services.leases.stock_up([SKU])
    await eventually("units are in hand", lambda: _is(shop.services.leases.till.free(SKU) > 10))
    return shop


async def with_journal(world: World, folder: Path, **flags: Any) -> Shop:
    shop = await stocked(world, journal__folder=str(folder), **flags)
    await eventually("the journal is named", lambda: _is(shop.services.journaling.usable))
    return shop


async def _is(so: bool) -> bool:  # noqa: FBT001 - by position
    return so


@asynccontextmanager
async def locking(world: World, *statements: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that holds what these statements lock."""
    async with world.pool.acquire() as connection, connection.transaction():
        for statement in statements:
            await connection.execute(statement)
        yield connection


async def waiting_backend(world: World) -> int:
    """The committer's backend, once it waits for a lock."""
    await eventually("the commit waits", lambda: world.value(WAITING))
    return int(await world.value(WAITING))


async def until_settled(world: World, shop: Shop, orders: int) -> None:
    """Every order is one row and one event, and no units are kept for any."""
    await eventually("the journal is drained", lambda: _is(shop.services.journaling.is_empty))
    world.steward(**TIMES)
    await eventually("the outbox is empty", world.outbox_is_empty)
    assert await world.count("orders") == orders
    assert Counter(event.id for event in await world.events()) == dict.fromkeys(
        (f"{order_id}.1" for order_id in await world.order_ids()), 1
    )
    await eventually("nothing is promised", lambda: _is(not promised(shop)))


def promised(shop: Shop) -> int:
    return sum(lease.promised for lease in shop.services.leases.till.leases())


async def test_backend_stopped_inside_its_transaction_keeps_no_buyer_and_every_order_is_one_row(
    world: World, tmp_path: Path
) -> None:
    """It holds its locks, hears no time-out and cannot be ended, until it goes on."""
    shop = await with_journal(world, tmp_path / "journal")
    async with locking(world, "lock table orders in share mode"):
        placing = [asyncio.create_task(shop.place(f"first-{number}")) for number in range(5)]
        pid = await waiting_backend(world)
        os.kill(pid, signal.SIGSTOP)
    try:
        answers = await asyncio.gather(*placing)
        assert [answer.status for answer in answers] == [202] * 5
        later = [await shop.place(f"later-{number}") for number in range(5)]
        assert {answer.status for answer in later} <= {201, 202}
        again = await shop.place("first-0")
        assert (again.status, again.body) == (202, answers[0].body)
    finally:
        os.kill(pid, signal.SIGCONT)
    await until_settled(world, shop, 10)


async def test_commit_that_stalls_inside_copy_keeps_no_buyer_and_is_one_order(
    world: World, proxy: CutProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever gives it up ends its backend, and leaves that to nobody: it holds what the next orders need."""
    monkeypatch.setattr(control, "HUNG_S", 3600)
    shop = await with_journal(world, tmp_path / "journal", postgres__url=proxy.url)
    proxy.arm(COPY_DATA, Loss.SILENCE)
    assert (await shop.place("k-1")).status == 202
    assert proxy.cut.is_set()
    await until_settled(world, shop, 1)
    order_id_of(await shop.place("k-1"))
    order_id_of(await shop.place("k-2"))


async def test_commit_that_is_reset_inside_copy_is_tried_again_and_nobody_hears_of_it(
    world: World, proxy: CutProxy
) -> None:
    shop = await stocked(world, postgres__url=proxy.url)
    proxy.arm(COPY_DATA, Loss.REQUEST)
    order_id_of(await shop.place("k-1"))
    assert proxy.cut.is_set()
    await until_settled(world, shop, 1)


async def test_commit_that_loses_a_deadlock_is_tried_again_and_nobody_hears_of_it(world: World) -> None:
    shop = await stocked(world)
    ours = "set local deadlock_timeout = '1min'"  # The other side finds it first, and is the one that loses.
    async with locking(world, ours, "select from stock_lease for update") as other:
        placing = asyncio.create_task(shop.place("k-1"))
        await waiting_backend(world)
        await other.execute("lock table batch in exclusive mode")
    order_id_of(await placing)
    assert await world.value("select deadlocks from pg_stat_database where datname = current_database()") >= 1
    await until_settled(world, shop, 1)


async def test_row_that_the_ledger_refuses_fails_alone_in_its_batch(world: World) -> None:
    shop = await stocked(world)
    await world.pool.execute("alter table order_lines add constraint poisoned check (quantity <> 7) not valid")
    async with locking(world, "lock table batch in exclusive mode"):
        placing = [asyncio.create_task(shop.place("first"))]
        await waiting_backend(world)
        bodies = [order(quantity=7 if number == 13 else 1) for number in range(30)]
        placing += [asyncio.create_task(shop.place(f"k-{number}", body)) for number, body in enumerate(bodies)]
        await eventually("they wait together", lambda: _is(len(shop.services.queue) == len(bodies)))
    answers = await asyncio.gather(*placing)
    refused = [answer for answer in answers if answer.status != 201]
    assert [(answer.status, code_of(answer)) for answer in refused] == [(500, "internal")]
    assert answers[1 + 13] is refused[0]
    await until_settled(world, shop, 30)


async def test_worker_whose_acks_are_lost_has_each_event_in_the_stream_once(world: World, nats_url: str) -> None:
    async with open_proxy(nats_url) as proxy:
        shop = await stocked(world, nats__url=proxy.url)
        for number in range(5):
            proxy.arm(EVENT, Loss.REPLY)
            order_id_of(await shop.place(f"k-{number}"))
            await eventually("an ack is lost", lambda: _is(proxy.cut.is_set()))
        await eventually("they are left", lambda: _is(shop.services.counters.events_left > 0))
        await until_settled(world, shop, 5)
        await shop.stop()


async def test_worker_whose_stream_falls_silent_takes_orders_and_each_event_is_stored_once(
    world: World, nats_url: str
) -> None:
    async with open_proxy(nats_url) as proxy:
        shop = await stocked(world, nats__url=proxy.url)
        proxy.arm(EVENT, Loss.SILENCE)
        for number in range(20):
            order_id_of(await shop.place(f"k-{number}"))
        await eventually("events are left", lambda: _is(shop.services.counters.events_left > 0))
        await until_settled(world, shop, 20)
        await shop.stop()
