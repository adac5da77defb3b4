"""`floodgate events resend`: the same ids and bytes as at first, from the tables, whatever the stream still has."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import nats
import pytest
from asyncpg.pgproto.pgproto import UUID
from click.testing import CliRunner, Result

from core_ext import ids
from deploy.contracts.schemas import FOLDER
from gateway import resend
from gateway.api.event_examples import examples, order
from gateway.cli import main
from gateway.domain.recall import KEY_HEADER
from persistence.nats.stream import NAME, RESENT, STOCK, Stream, StreamSettings
from persistence.postgres import event_history
from tests.worker_world import SKU, StoredEvent, World, eventually, open_world, order_id_of

AFTER = event_history.after
TABLES = ("orders", "order_lines", "order_history")


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        yield world
        await world.assert_clean()


async def sold(world: World, count: int) -> list[StoredEvent]:
    """So many orders, and their events as they were sent at first."""
    await world.product(units=100)
    shop = await world.shop()
    for number in range(count):
        order_id_of(await shop.buy(f"k-{number}"))
    await eventually("the outbox is empty", world.outbox_is_empty)
    return await world.events()


async def forget(world: World) -> None:
    """The stream has lost everything, and knows no id."""
    await world.remove_stream()
    await world.make_stream()


async def run(world: World, *arguments: str) -> Result:
    environment = {"FLOODGATE_NATS__URL": world.nats_url, "FLOODGATE_POSTGRES__URL": world.postgres_url}
    runner = CliRunner(env=environment)
    return await asyncio.to_thread(runner.invoke, main, ["events", "resend", *arguments])


async def resent(world: World, *arguments: str) -> dict[str, Any]:
    result = await run(world, *arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


async def test_resend_stores_what_the_stream_has_forgotten_to_the_byte(world: World) -> None:
    before = await sold(world, 5)
    await forget(world)
    assert await resent(world, "--since", "1h") == {"sent": 5, "stored": 5, "duplicates": 0, "to": None}
    assert sorted(await world.events()) == sorted(before)


async def test_resend_of_what_the_stream_has_stores_nothing(world: World) -> None:
    before = await sold(world, 3)
    assert await resent(world, "--type", "order.created") == {"sent": 3, "stored": 0, "duplicates": 3, "to": None}
    assert await world.events() == before


async def test_resend_of_one_order_sends_its_events_alone(world: World) -> None:
    before = await sold(world, 3)
    await forget(world)
    order_id = json.loads(before[1].payload)["subject"]
    assert (await resent(world, "--order", order_id))["sent"] == 1
    assert await world.events() == [before[1]]


@pytest.mark.parametrize("arguments", [("--since", "2100-01-01"), ("--type", "order.cancelled")])
async def test_resend_of_what_never_was_sends_nothing(world: World, arguments: tuple[str, str]) -> None:
    await sold(world, 2)
    assert (await resent(world, *arguments))["sent"] == 0


async def test_resend_goes_through_more_than_one_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await sold(world, 7)
    await forget(world)
    monkeypatch.setattr(resend, "PAGE_CHANGES", 3)
    monkeypatch.setattr(resend, "PAGE_ORDERS", 2)
    assert (await resent(world, "--since", "1h"))["stored"] == 7
    assert sorted(await world.events()) == sorted(before)


async def test_resend_of_new_orders_begins_with_those_placed_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await sold(world, 4)
    placed = {event.payload: ids.time_of(UUID(json.loads(event.payload)["subject"]).bytes) for event in before}
    since = dt.datetime.fromtimestamp(sorted(placed.values())[2] / 1000, dt.UTC).isoformat()
    newer = [payload for payload, at in placed.items() if at >= sorted(placed.values())[2]]
    await forget(world)
    looked_at: list[bytes] = []

    async def after(connection: Any, order_id: bytes, version: int, limit: int) -> list[event_history.Told]:
        found = await AFTER(connection, order_id, version, limit)
        looked_at.extend(told.order_id for told in found)
        return found

    monkeypatch.setattr(event_history, "after", after)
    assert (await resent(world, "--since", since, "--type", "order.created"))["sent"] == len(newer)
    assert sorted(event.payload for event in await world.events()) == sorted(newer)
    assert len(looked_at) == len(newer)


async def test_resend_says_in_a_header_that_it_is_one(world: World) -> None:
    await sold(world, 1)
    await forget(world)
    await resent(world, "--since", "1h")
    client = await nats.connect(world.nats_url)
    message = await client.jetstream().get_msg(NAME, 1)
    await client.close()
    assert (message.headers or {})[RESENT] == "true"
    assert KEY_HEADER in (message.headers or {})


async def test_resend_to_a_subject_sends_there_and_stores_nothing(world: World) -> None:
    before = await sold(world, 3)
    client = await nats.connect(world.nats_url)
    heard = await client.subscribe("finance.again")
    await client.flush()
    result = await resent(world, "--since", "1h", "--to", "finance.again")
    assert result == {"sent": 3, "stored": None, "duplicates": None, "to": "finance.again"}
    messages = [await heard.next_msg(timeout=5) for _ in range(3)]
    assert sorted(message.data for message in messages) == sorted(event.payload for event in before)
    assert {(message.headers or {})["Content-Type"] for message in messages} == {"application/cloudevents+json"}
    assert await world.events() == before
    await client.close()


async def test_resend_of_stock_sends_levels_and_products_that_were_told(world: World) -> None:
    await world.product(units=0)
    world.steward()

    async def all_told() -> bool:
        told = await world.count("product_history") + await world.count("stock_history")
        return told == 2 and await world.count("product_event") + await world.count("stock_event") == 0

    await eventually("both are told", all_told)
    before = await stock_events(world)
    assert await resent(world, "--type", "stock.sold_out") == {"sent": 1, "stored": 0, "duplicates": 1, "to": None}
    assert (await resent(world, "--since", "1h"))["duplicates"] == 2
    await forget_stock(world)
    assert (await resent(world, "--since", "1h"))["stored"] == 2
    assert sorted(await stock_events(world)) == sorted(before)
    assert {json.loads(payload)["subject"] for payload in before} == {SKU}


async def forget_stock(world: World) -> None:
    stream = Stream(world.nats_url, "test", 5.0)
    await (await stream.ensure_open()).jetstream().delete_stream(STOCK)
    await stream.ensure_stream(StreamSettings(1, 604800, 600), STOCK)
    await stream.close()


async def stock_events(world: World) -> list[bytes]:
    client = await nats.connect(world.nats_url)
    jetstream = client.jetstream()
    state = (await jetstream.stream_info(STOCK)).state
    messages = [await jetstream.get_msg(STOCK, at) for at in range(max(state.first_seq, 1), state.last_seq + 1)]
    await client.close()
    return [message.data or b"" for message in messages]


async def test_resend_from_the_tables_gives_the_golden_bytes(world: World) -> None:
    await put_example(world.pool)
    await resent(world, "--order", str(UUID(order().id)))
    stored = {event.id: event for event in await world.events()}
    for name in ("order.created", "order.cancelled"):
        event = examples("/floodgate/local")[name]
        assert stored[event.id].payload == (FOLDER / f"{name}.v1.golden.json").read_bytes()
        assert stored[event.id].subject == event.subject
    for table in TABLES:
        await world.pool.execute(f"drop table {table}_golden")


async def put_example(pool: asyncpg.Pool) -> None:
    """The order of the golden events as the ledger holds it once it is cancelled."""
    for table in TABLES:
        await pool.execute(
            f"create table {table}_golden partition of {table}"
            " for values from ('01990000-0000-0000-0000-000000000000') to ('019a0000-0000-0000-0000-000000000000')"
        )
    example, line = order(), order().lines[0]
    at = "to_timestamp({} / 1000.0)".format
    await pool.execute(
        "insert into orders (order_id, client_id, channel, currency, customer_id, external_id, sale_id, status,"
        " version, total, metadata, adjustments, placed_at, created_at, expires_at) values ($1, 7, 'app', 'CNY',"
        f" 'u-1', 'A-77', 'double-11', 'cancelled', 2, 1430, $2, $3, {at('$4::bigint')}, {at('$5::bigint')},"
        f" {at('$6::bigint')})",
        UUID(example.id),
        (example.metadata or b"").decode(),
        (example.adjustments or b"").decode(),
        example.placed_at,
        example.created_at,
        example.expires_at,
    )
    await pool.execute(
        "insert into order_lines (order_id, line, sku, title, quantity, unit_price, amount, stocked)"
        " values ($1, 1, $2, $3, 6, 255, 1530, true)",
        UUID(example.id),
        line.sku,
        line.title,
    )
    history = (
        "insert into order_history (order_id, version, at, event, status, previous_status, actor, reason, changed,"
        f" traceparent) values ($1, $2, {at('$3::bigint')}, $4, $5, $6, 'client:7', $7, $8, $9)"
    )
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    first: tuple[Any, ...] = (1, example.created_at, "created", "pending_payment", None, None, [], trace)
    second = (2, example.created_at + 60_000, "cancelled", "cancelled", "pending_payment", "changed my mind")
    await pool.execute(history, UUID(example.id), *first)
    await pool.execute(history, UUID(example.id), *second, ["status"], None)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name which events"),
        (("--order", "x"), "has to be the id of an order"),
        (("--since", "soon"), "it has to be like"),
        (("--since", "1h", "--to", "orders.created.app.00"), "belongs to the streams"),
        (("--since", "1h", "--to", "$JS.API.STREAM.PURGE.ORDERS"), "belongs to the streams"),
        (("--since", "1h", "--to", "a.>"), "a subject is words"),
    ],
)
def test_resend_of_what_cannot_be_says_so(arguments: tuple[str, ...], says: str) -> None:
    result = CliRunner().invoke(main, ["events", "resend", *arguments])
    assert result.exit_code == 2
    assert says in result.output


async def test_resend_of_an_order_that_is_not_there_fails(world: World) -> None:
    result = await run(world, "--order", "0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f52")
    assert result.exit_code == 1
    assert "there is no such event" in result.output
