"""A ledger that was restored from a backup takes back what the streams know: orders, changes, units, limits, keys."""

import asyncio
import datetime as dt
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nats
import pytest

from core_ext import ids
from gateway import api, projector, recovery
from persistence.nats import stream as room
from persistence.nats.stream import NAME, STOCK, Stream, StreamSettings
from persistence.postgres import catalogue, stock
from persistence.postgres.recovery import StillRunningError
from tests.api import call
from tests.restored import Backup, recovered
from tests.sale_world import followed, of_sale, put_sale
from tests.worker_world import SKU, Shop, World, code_of, eventually, open_world, order, order_id_of

UNITS = 40
SALE_UNITS = 10
LIMITED, LIMIT = "LIMITED", 3
TABLES = ("orders", "order_lines", "order_history", "idempotency_key", "buyer_taken", "stock_shard", "stock_sku")
RICH = order(
    quantity=2,
    customer_id="u-1",
    external_id="A-77",
    note="请放门口",
    ship_to={"name": "王芳", "city": "上海"},
    metadata={"第": "一", "b": "\u2028"},
    adjustments=[{"type": "discount", "amount": -10, "label": "券"}],
    placed_at="2026-11-11T00:00:00.5Z",
    paid={"reference": "P-1", "at": "2026-11-11T00:00:01Z"},
)


@pytest.fixture
async def world(postgres_url, nats_url) -> AsyncIterator[World]:
    """A shop with a SKU, one with a limit for each buyer, and a sale."""
    async with open_world(postgres_url, nats_url) as world:
        stream = Stream(nats_url, "test", 5.0)
        await stream.ensure_streams(StreamSettings(1, 604800, 600))
        await stream.close()
        await world.product(units=UNITS)
        await world.product(LIMITED, units=UNITS)
        row = catalogue.ProductRow(LIMITED, "One each", 100, "CNY", stocked=True, active=True, limit=LIMIT)
        await catalogue.put(world.pool, [row])
        await put_sale(world, SALE_UNITS)
        yield world


@pytest.fixture
def backup(world, postgres_server) -> Backup:
    return Backup(world, postgres_server)


async def cancel(shop: Shop, order_id: str) -> None:
    path = f"/v1/orders/{order_id}/cancel"
    reply = await call(api.create(shop.services), "POST", path, b'{"reason":"twice"}', {"if-match": '"1"'}, shop.token)
    assert reply.status == 200, reply.body


async def closed(world: World, shop: Shop) -> None:
    """Everything is in the stream, and the shop is shut. On a busy machine an ack may come too late for the worker: the
    steward sends the event then.
    """
    end = world.steward()
    await eventually("the outbox is empty", world.outbox_is_empty)
    await end()
    await shop.stop()


async def contents(world: World) -> dict[str, list[str]]:
    """All that the tables say, apart from what changes with each write."""
    found = {}
    for table in TABLES:
        rows = await world.pool.fetch(f"select to_jsonb(t) - 'version' as row from {table} t")
        found[table] = sorted(row["row"] for row in rows)
    return found


async def sold_out(shop: Shop, sku: str, run: str) -> int:
    """Buy single units until there are none. Returns how many there were."""
    bought = 0
    while (answer := await shop.buy(f"{run}-{bought}", order(sku))).status == 201:
        bought += 1
    assert code_of(answer) == "sold_out"
    return bought


async def test_recover_takes_back_every_order_with_its_units_limits_and_key(world: World, backup: Backup) -> None:
    shop = await world.shop()
    await followed(world, shop)
    early = {f"early-{n}": order() for n in range(3)}
    placed = {key: order_id_of(await shop.place(key, body)) for key, body in early.items()}
    backup.take()
    late = {
        "rich": RICH,
        "limited": order(LIMITED, 2, customer_id="u-1"),
        "sale": of_sale(4),
        "given-up": order(quantity=5),
        **{f"late-{n}": order() for n in range(3)},
    }
    placed |= {key: order_id_of(await shop.place(key, body)) for key, body in late.items()}
    for key in ("early-0", "given-up"):
        await cancel(shop, placed[key])
    await closed(world, shop)
    events = await world.events()

    async with backup.restored() as restored:
        trial = await recovered(restored, dry_run=True)
        assert (trial.done.orders, await restored.count("orders")) == (7, 3)
        report = await recovered(restored)
        assert report.whole, report
        assert (report.done.orders, report.done.changes, report.done.keys) == (7, 2, 7)
        assert (report.inexact, report.done.orders_without_key, report.done.orders_guessed) == (0, 0, 0)
        # Cancelled: one unit of the backup's, and one order that was placed and given up between the two.
        assert (report.done.units_held, report.done.units_released) == (2 + 2 + 4 + 3 - 1, 0)
        before = await contents(restored)
        again = await recovered(restored)
        assert again.whole
        assert (again.done.orders, again.done.changes, again.done.known) == (0, 0, 12)
        assert await contents(restored) == before

        shop = await restored.shop()
        await followed(restored, shop)
        for key, body in (early | late).items():
            answer = await shop.place(key, body)
            assert (order_id_of(answer), (b"idempotency-replayed", b"true") in answer.headers) == (placed[key], True)
        statuses = await restored.pool.fetch("select order_id::text, status from orders where version = 2")
        assert {tuple(row) for row in statuses} == {(placed[key], "cancelled") for key in ("early-0", "given-up")}
        assert code_of(await shop.buy("over", order(LIMITED, 2, customer_id="u-1"))) == "limit_reached"
        assert (await shop.buy("over-1", order(LIMITED, 1, customer_id="u-1"))).status == 201
        assert await sold_out(shop, SKU, "rest") == UNITS - 2 - 2 - 3
        await closed(restored, shop)
        await restored.assert_clean()
        assert (await world.events())[: len(events)] == events


async def test_recover_of_a_cancelled_order_of_the_backup_gives_back_what_counts_against_its_buyers_limit(
    world: World, backup: Backup
) -> None:
    shop = await world.shop()
    await followed(world, shop)
    given_up = order_id_of(await shop.buy("k-1", order(LIMITED, LIMIT, customer_id="u-1")))
    backup.take()
    await cancel(shop, given_up)
    await closed(world, shop)
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert (report.whole, report.done.changes, report.done.units_released) == (True, 1, LIMIT)
        assert await restored.value("select taken from buyer_taken where customer = 'u-1'") == 0


async def test_recover_of_an_order_whose_key_alone_is_in_the_backup_forgets_the_key(
    world: World, backup: Backup
) -> None:
    shop = await world.shop()
    kept = order_id_of(await shop.buy("k-1", RICH))
    backup.take()
    order_id = order_id_of(await shop.buy("k-2", RICH))
    await closed(world, shop)
    key = await world.pool.fetchrow("select * from order_key where order_id = $1", order_id)
    async with backup.restored() as restored:
        await restored.pool.execute("insert into order_key select $1, $2, $3", *key)
        report = await recovered(restored)
        assert (report.whole, report.keys_of_nothing) == (True, 1)
        assert await restored.value("select order_id::text from order_key") == kept


async def test_recover_of_orders_from_before_the_first_partition_makes_theirs(world: World, backup: Backup) -> None:
    shop = await world.shop()
    backup.take()
    order_id = order_id_of(await shop.buy("k-1"))
    await closed(world, shop)
    async with backup.restored() as restored:
        await _without_partitions_until_tomorrow(restored)
        report = await recovered(restored)
        assert (report.whole, report.done.orders) == (True, 1)
        assert await restored.order_ids() == {order_id}


async def _without_partitions_until_tomorrow(world: World) -> None:
    """As if the ledger had been made anew, of no backup, after the orders were placed."""
    rows = await world.pool.fetch(
        "select relname from pg_class where relkind = 'r' and relispartition and relname ~ '^order.*_p[0-9]{8}$'"
        " and to_date(right(relname, 8), 'YYYYMMDD') <= (clock_timestamp() at time zone 'UTC')::date"
    )
    for row in rows:
        await world.pool.execute(f"drop table {row['relname']}")


async def test_recover_from_a_stream_that_was_lost_too_says_so(world: World, backup: Backup) -> None:
    shop = await world.shop()
    order_id_of(await shop.buy("k-1"))
    await closed(world, shop)
    backup.take()
    await world.remove_stream()
    await world.make_stream()
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert (report.whole, report.empty) == (False, True)


async def test_recover_from_a_stream_that_was_made_anew_says_that_it_begins_late(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "OVERLAP", dt.timedelta(0))
    shop = await world.shop()
    order_id_of(await shop.buy("k-1"))
    await closed(world, shop)
    backup.take()
    await world.remove_stream()
    await world.make_stream()
    shop = await world.shop()
    order_id_of(await shop.buy("k-2"))
    await closed(world, shop)
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert (report.whole, report.done.orders, report.begins_late is None) == (False, 1, False)


async def test_recover_of_stock_that_was_raised_after_the_backup_owes_until_it_is_raised_again(
    world: World, backup: Backup
) -> None:
    shop = await world.shop()
    backup.take()
    await stock.set_total(world.pool, SKU, UNITS + 20, 4, "test", None, None)
    assert (await shop.buy("all", order(quantity=UNITS + 15))).status == 201
    await closed(world, shop)
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert report.whole
        assert dict(report.done.owed) == {SKU: 15}
        shop = await restored.shop()
        assert await sold_out(shop, SKU, "none") == 0
        await stock.set_total(restored.pool, SKU, UNITS + 20, 4, "test", None, None)
        assert await restored.value("select owed from stock_sku where sku = $1", SKU) == 0
        await eventually("the last units can be bought", lambda: _bought(shop))
        assert await sold_out(shop, SKU, "rest") == 4
        await restored.assert_clean()


async def test_recover_lets_the_read_models_count_what_they_have_not_counted(world: World, backup: Backup) -> None:
    shop = await world.shop()
    order_id_of(await shop.buy("early"))
    async with projecting(world):
        await eventually("the order is counted", lambda: _counted(world, 1))
        backup.take()
        order_id_of(await shop.buy("late"))
        await eventually("both are counted", lambda: _counted(world, 2))
    await closed(world, shop)
    async with backup.restored() as restored:
        await recovered(restored)
        async with projecting(restored):
            await eventually("both are counted", lambda: _counted(restored, 2))


@asynccontextmanager
async def projecting(world: World) -> AsyncIterator[None]:
    """A projector meanwhile."""
    stop = asyncio.Event()
    task = asyncio.create_task(projector.run(world.settings(), stop))
    yield
    stop.set()
    await task


async def _counted(world: World, orders: int) -> bool:
    return bool(await world.value("select coalesce(sum(orders), 0) = $1 from order_feed", orders))


async def _bought(shop: Shop) -> bool:
    return (await shop.place("one-more")).status == 201


async def test_recover_after_a_retry_has_made_a_second_order_keeps_both_and_says_so(
    world: World, backup: Backup
) -> None:
    shop = await world.shop()
    backup.take()
    order_id = order_id_of(await shop.buy("k-1"))
    await closed(world, shop)
    async with backup.restored() as restored:
        too_early = await restored.shop()
        second = order_id_of(await too_early.buy("k-1"))
        await too_early.stop()
        report = await recovered(restored)
        assert (report.done.orders, report.done.keys, report.done.keys_taken) == (1, 0, 1)
        assert await restored.order_ids() == {order_id, second}
        await restored.assert_clean()


async def test_recover_while_a_gateway_runs_refuses_and_names_it(world: World) -> None:
    shop = await world.shop()
    with pytest.raises(StillRunningError, match=shop.services.leases.owner):
        await recovered(world)


async def test_recover_while_a_steward_runs_refuses_and_names_it(world: World) -> None:
    world.steward()

    async def is_named() -> bool:
        try:
            await recovered(world)
        except StillRunningError as error:
            return "a steward is connected" in str(error)
        return False  # It has not connected yet.

    await eventually("the steward is named", is_named)


async def test_recover_of_events_of_an_earlier_release_says_what_it_had_to_guess(
    world: World, backup: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers_of = room._headers
    monkeypatch.setattr(room, "_headers", lambda event: headers_of(event._replace(headers={})))
    shop = await world.shop()
    backup.take()
    assert (await shop.buy("old", order(quantity=3))).status == 201
    await closed(world, shop)
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert report.whole
        assert (report.done.orders, report.done.orders_without_key, report.done.orders_guessed) == (1, 1, 1)
        assert report.done.units_held == 3
        await restored.assert_clean()


async def test_recover_of_an_order_of_a_client_that_is_missing_keeps_it_from_others(
    world: World, backup: Backup
) -> None:
    shop = await world.shop()
    backup.take()
    token = await world.client("newcomer")
    await eventually("the client is known", lambda: _placed(shop, token))
    await closed(world, shop)
    number = await world.value("select client_id from api_client where name = 'newcomer'")
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert report.done.clients == [("newcomer", number)]
        row = await restored.pool.fetchrow("select scopes, channels from api_client where client_id = $1", number)
        assert tuple(row) == ([], [])
        assert await restored.value("select client_id from orders") == number
        await restored.client("another")
        assert await restored.value("select client_id from api_client where name = 'another'") > number


async def _placed(shop: Shop, token: str) -> bool:
    return (await shop.place("k-1", token=token)).status == 201


async def test_recover_without_the_first_version_of_an_order_leaves_it_out_and_says_so(
    world: World, backup: Backup, nats_url: str
) -> None:
    shop = await world.shop()
    backup.take()
    order_id = order_id_of(await shop.buy("k-1"))
    order_id_of(await shop.buy("k-2"))
    await cancel(shop, order_id)
    await closed(world, shop)
    events = [event.id for event in await world.events()]
    client = await nats.connect(nats_url)
    await client.jetstream().delete_msg(NAME, events.index(f"{order_id}.1") + 1)
    await client.close()
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert (report.whole, report.incomplete, report.done.orders) == (False, [order_id], 1)
        await restored.assert_clean()


async def test_recover_tells_no_change_of_stock_under_an_id_that_the_stream_has(
    world: World, backup: Backup, nats_url: str
) -> None:
    shop, end = await world.shop(), world.steward()
    backup.take()
    parsed = ids.parse_id(order_id_of(await shop.buy("all", order(quantity=UNITS))))
    assert parsed is not None
    await eventually("it is told that all is sold", lambda: _told(nats_url, ["sold_out"]))
    await world.price(SKU, 999)
    await eventually("products are told", lambda: _nothing_waits(world))
    await end()
    await closed(world, shop)
    async with backup.restored() as restored:
        report = await recovered(restored)
        assert (report.levels, report.products > 0) == (2, True)  # The everyday stock, and the sale's.
        assert await restored.value("select price from product where sku = $1", SKU) == 999
        restored.steward()
        shop = await restored.shop()
        await cancel(shop, ids.format_id(parsed))
        await eventually("it is told that it is back", lambda: _told(nats_url, ["sold_out", "back_in_stock"]))
        await eventually("all is told", lambda: _nothing_waits(restored))
    told = await stock_events(nats_url)
    assert max(Counter(event["id"] for event in told).values()) == 1


async def _told(nats_url: str, wanted: list[str]) -> bool:
    told = [event for event in await stock_events(nats_url) if event["data"].get("level")]
    everyday = [event for event in told if event["subject"] == SKU and "sale_id" not in event["data"]]
    return [event["type"].split(".")[3] for event in everyday] == wanted


async def _nothing_waits(world: World) -> bool:
    return await world.count("product_event") + await world.count("stock_event") == 0


async def stock_events(nats_url: str) -> list[dict[str, Any]]:
    client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(STOCK)).state
        numbers = range(state.first_seq, state.last_seq + 1) if state.messages else ()
        messages = [await jetstream.get_msg(STOCK, number) for number in numbers]
    finally:
        await client.close()
    return [json.loads(message.data or b"") for message in messages]
