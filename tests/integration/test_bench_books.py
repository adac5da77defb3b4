"""The books of a bench see what is lost, doubled, unheard of, or without its event."""

import time
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from bench import books as bench_books
from bench.books import Books
from core_ext import ids
from persistence.nats.stream import Event, Stream, StreamSettings

CUSTOMER = "u-0000beef"
CONNECTIONS = 4


class World:
    """Orders of one run, put straight into the stores."""

    def __init__(self, ledger: asyncpg.Connection, stream: Stream, books: Books) -> None:
        self._ledger = ledger
        self._stream = stream
        self.books = books

    async def place(self, *, keyed: bool = True, told: bool = True) -> str:
        """An order with its key and its event; gives its id."""
        order_id = ids.new_id(time.time_ns() // 1_000_000)
        await self._ledger.execute(
            "insert into orders (order_id, client_id, channel, currency, customer_id, status, version, total,"
            " created_at) values ($1, 1, 'app', 'CNY', $2, 'pending_payment', 1, 100, now())",
            UUID(order_id),
            CUSTOMER,
        )
        if keyed:
            await self._ledger.execute("insert into idempotency_key values ($1, $2, $1)", uuid.uuid4(), UUID(order_id))
        if told:
            text = ids.format_id(order_id)
            await self._stream.publish([Event("orders.created.app.00", text, b"{}")])
        return ids.format_id(order_id)


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    stream = Stream(nats_url, "test", 5.0)
    await stream.ensure_stream(StreamSettings(1, 604800, 600))
    await stream.publish([Event("orders.created.app.00", "from before", b"{}")])
    ledger = await asyncpg.connect(postgres_url)
    books = await Books.open(postgres_url, nats_url)
    yield World(ledger, stream, books)
    await books.close()
    await ledger.close()
    await stream.close()


async def resting() -> bool:
    return True


async def test_books_of_a_clean_run_balance(world: World) -> None:
    told = [await world.place() for _ in range(3)]
    found = await world.books.verify(CUSTOMER, told, CONNECTIONS)
    assert found.faults() == []
    assert (found.acknowledged, found.rows, found.events) == (3, 3, 3)


async def test_books_see_an_acknowledged_order_that_the_ledger_lacks(world: World) -> None:
    told = [await world.place(), str(uuid.uuid4())]
    found = await world.books.verify(CUSTOMER, told, CONNECTIONS)
    assert found.lost == 1
    assert found.faults() != []


async def test_books_see_a_loss_that_an_order_nobody_heard_of_would_hide(world: World) -> None:
    told = [await world.place(), str(uuid.uuid4())]
    await world.place()
    found = await world.books.verify(CUSTOMER, told, CONNECTIONS)
    assert (found.acknowledged, found.rows, found.lost, found.orphans) == (2, 2, 1, 1)


async def test_books_see_two_answers_with_one_order(world: World) -> None:
    order_id = await world.place()
    assert (await world.books.verify(CUSTOMER, [order_id, order_id], CONNECTIONS)).lost == 1


async def test_books_see_a_second_order_of_a_key(world: World) -> None:
    told = [await world.place(), await world.place(keyed=False)]
    found = await world.books.verify(CUSTOMER, told, CONNECTIONS)
    assert found.doubled == 1
    assert found.faults() != []


async def test_books_see_an_order_without_its_event(world: World) -> None:
    told = [await world.place(), await world.place(told=False)]
    found = await world.books.verify(CUSTOMER, told, CONNECTIONS)
    assert (found.rows, found.events) == (2, 1)
    assert found.faults() != []


async def test_books_count_orders_in_flight_as_unheard(world: World) -> None:
    told = [await world.place()]
    for _ in range(CONNECTIONS):
        await world.place()
    found = await world.books.verify(CUSTOMER, told, CONNECTIONS)
    assert (found.orphans, found.faults()) == (CONNECTIONS, [])
    await world.place()
    assert (await world.books.verify(CUSTOMER, told, CONNECTIONS)).faults() != []


async def test_drain_waits_for_the_event_of_the_last_order(world: World) -> None:
    await world.place()
    last = await world.place(told=False)

    async def late() -> bool:
        if await world.books.created() < 2:
            await world._stream.publish([Event("orders.created.app.00", last, b"{}")])
        return True

    stopped_at = time.monotonic()
    drained = await world.books.drain(CUSTOMER, stopped_at, late)
    assert drained.at > stopped_at
    assert drained.waiting == 1


async def test_drain_of_what_is_through_ends_with_the_load(world: World) -> None:
    await world.place()
    stopped_at = time.monotonic()
    assert await world.books.drain(CUSTOMER, stopped_at, resting) == (stopped_at, 0)


async def test_drain_goes_on_while_the_gateway_has_orders_under_way(world: World) -> None:
    answers = iter([False, False, True])

    async def rests() -> bool:
        return next(answers)

    await world.books.drain(CUSTOMER, time.monotonic(), rests)
    assert list(answers) == []


async def test_drain_of_an_event_that_never_comes_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_books, "DRAIN_TIMEOUT_S", 0.5)
    told = [await world.place(told=False)]
    await world.books.drain(CUSTOMER, time.monotonic(), resting)
    assert (await world.books.verify(CUSTOMER, told, CONNECTIONS)).faults() != []
