"""Keys asked of the ledger on the connection that is theirs alone: right answers, by the primary key whatever the table
held when the statement was planned, and again after the connection was lost.
"""

from collections.abc import AsyncIterator
from typing import NamedTuple, cast

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from gateway.domain.personal import Vault
from gateway.orders import OrderBook
from persistence.errors import LedgerUnavailableError
from persistence.postgres.connect import connect
from persistence.postgres.orders import KEYS_SESSION, StoredKey
from persistence.postgres.session import Session
from tests.ledger_world import key_of, new_id

OTHERS = 20_000  # keys that lie about
FINGERPRINT = bytes(range(16))


class World(NamedTuple):
    """A book, the connection that it asks for keys on, and another one."""

    book: OrderBook
    session: Session
    other: asyncpg.Connection

    async def store(self, number: int) -> StoredKey:
        stored = StoredKey(new_id(), FINGERPRINT)
        values = [UUID(value) for value in (key_of(number), *stored)]
        await self.other.execute("insert into idempotency_key values ($1, $2, $3)", *values)
        return stored

    async def scans(self) -> tuple[int, int]:
        """Sequential scans of the keys, and the rows that were read of them."""
        await self.session.run(lambda connection: connection.execute("select pg_stat_force_next_flush()"))
        read = (
            "select seq_scan, seq_tup_read + idx_tup_fetch from pg_stat_user_tables where relname = 'idempotency_key'"
        )
        return cast("tuple[int, int]", tuple(await self.other.fetchrow(read)))


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    session = Session(postgres_url, "test-keys", session=KEYS_SESSION)
    unused_pool = cast("asyncpg.Pool", None)
    other = await connect(postgres_url, "test")
    yield World(OrderBook(unused_pool, session, Vault({1: bytes(32)})), session, other)
    await session.close()
    await other.close()


async def test_keys_gives_what_the_known_ones_belong_to_and_nothing_for_others(world: World) -> None:
    stored = [await world.store(number) for number in range(2)]
    found = await world.book.keys([key_of(number) for number in range(4)])
    assert found == {key_of(0): stored[0], key_of(1): stored[1]}


async def test_keys_planned_on_an_empty_table_read_only_their_own_rows_of_a_full_one(world: World) -> None:
    keys = [key_of(number) for number in range(40)]
    await world.other.execute("vacuum analyze idempotency_key")  # Now the server knows that it is empty.
    for _ in range(7):  # Until the server is content with generic plans, whatever it is told.
        assert await world.book.keys(keys) == {}
    stored = await world.store(0)
    others = "insert into idempotency_key select gen_random_uuid(), gen_random_uuid(), gen_random_uuid() from "
    await world.other.execute(others + "generate_series(1, $1)", OTHERS)
    scans, rows = await world.scans()
    assert await world.book.keys(keys) == {key_of(0): stored}
    scans_after, rows_after = await world.scans()
    assert (scans_after, rows_after - rows) == (scans, 1)


async def test_keys_on_a_connection_that_was_ended_are_unavailable_at_most_once(world: World) -> None:
    stored = await world.store(0)
    assert await world.book.keys([key_of(0)]) == {key_of(0): stored}
    end = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'test-keys'"
    assert await world.other.fetchval(end)
    try:
        found = await world.book.keys([key_of(0)])
    except LedgerUnavailableError:
        found = await world.book.keys([key_of(0)])
    assert found == {key_of(0): stored}
