"""Housekeeping removes what has served its purpose, and nothing else."""

import datetime as dt
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from core_ext import ids
from gateway.settings import load
from gateway.steward import Steward
from persistence.postgres import housekeeping, partitions
from persistence.postgres.connect import connect
from persistence.postgres.partitions import DAY_MS
from tests.ledger_world import World, draft, new_id, now_ms, open_world

KEY_DAYS, BATCH_DAYS = 7, 30
PARTITIONS = "select relname::text from pg_class where relname ~ '^batch_p' and relkind = 'r'"
TOKEN = "insert into api_token (token_hash, client_id, revoked_at, expires_at) values ($1, $2, $3, $4)"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(postgres_url, "fg-test")
    yield connection
    connection.terminate()


async def make_partition(connection: asyncpg.Connection, days_ago: int) -> tuple[str, UUID]:
    """A partition of outcomes of one day, with one outcome in it."""
    start = (now_ms() // DAY_MS - days_ago) * DAY_MS
    name = await partitions._make(connection, "batch", start, start + DAY_MS)
    batch_id = UUID(ids.new_id(start + 1))
    await connection.execute("insert into batch (batch_id, outcome) values ($1, 'committed')", batch_id)
    return name, batch_id


async def names(world: World) -> set[str]:
    return {row["relname"] for row in await world.pool.fetch(PARTITIONS)}


async def test_steward_keeps_outcomes_of_batches_as_long_as_the_keys(
    world: World, connection: asyncpg.Connection
) -> None:
    old, _ = await make_partition(connection, 2 * BATCH_DAYS + 2)
    recent, _ = await make_partition(connection, BATCH_DAYS + 5)
    flags = {"postgres.url": world.url, "retention.key_days": 2 * BATCH_DAYS, "retention.batch_days": BATCH_DAYS}
    steward = Steward(load(environ={}, flags=flags))
    await steward._keep_house()
    await steward._sessions["housekeeping"].close()
    assert {old, recent} & await names(world) == {recent}


async def test_outcomes_of_batches_go_with_whole_partitions_once_they_are_old(
    world: World, connection: asyncpg.Connection
) -> None:
    present = await names(world)
    old, _ = await make_partition(connection, BATCH_DAYS + 2)
    recent, batch_id = await make_partition(connection, BATCH_DAYS - 1)
    assert await housekeeping.drop_batches(connection, BATCH_DAYS) == [old]
    assert await names(world) == present | {recent}
    assert await world.value("select outcome from batch where batch_id = $1", batch_id) == "committed"
    assert await housekeeping.drop_batches(connection, BATCH_DAYS) == []


async def test_outcomes_that_the_outbox_names_stay_however_old(world: World, connection: asyncpg.Connection) -> None:
    entry = draft()
    await world.ledger().commit(new_id(), [entry])
    name, batch_id = await make_partition(connection, BATCH_DAYS + 5)
    await connection.execute("update outbox set batch_id = $1", batch_id)
    assert await housekeeping.drop_batches(connection, BATCH_DAYS) == []
    assert name in await names(world)


async def test_drop_of_a_partition_finishes_what_somebody_left_half_done(
    world: World, connection: asyncpg.Connection
) -> None:
    left, _ = await make_partition(connection, BATCH_DAYS + 3)
    pending, _ = await make_partition(connection, BATCH_DAYS + 2)
    await connection.execute(f"alter table batch detach partition {left} concurrently")
    await detach_half(world, connection, pending)
    assert set(await housekeeping.drop_batches(connection, BATCH_DAYS)) == {left, pending}


async def detach_half(world: World, connection: asyncpg.Connection, name: str) -> None:
    """What a steward leaves behind that gives up while it waits for a reader: the partition is being detached."""
    async with world.pool.acquire() as reader, reader.transaction():
        await reader.fetch("select count(*) from batch")
        await connection.execute("set lock_timeout = 100")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await connection.execute(f"alter table batch detach partition {name} concurrently")
        await connection.execute("reset lock_timeout")
    assert await world.value("select count(*) from pg_inherits where inhdetachpending") == 1


async def test_tokens_that_nobody_can_use_are_forgotten_after_a_while(
    world: World, connection: asyncpg.Connection
) -> None:
    client_id = await connection.fetchval(
        "insert into api_client (name, scopes, channels) values ('shop', '{}', '{}') returning client_id"
    )
    now = dt.datetime.now(dt.UTC)
    long_ago, lately = now - dt.timedelta(days=housekeeping.TOKEN_DAYS + 1), now - dt.timedelta(days=1)
    for number, times in enumerate([(long_ago, None), (None, long_ago), (lately, None), (None, lately), (None, None)]):
        await connection.execute(TOKEN, bytes([number]) * 32, client_id, *times)
    assert (await housekeeping.clean(connection, KEY_DAYS))["tokens"] == 2
    assert {bytes(row["token_hash"])[0] for row in await connection.fetch("select token_hash from api_token")} == {
        2,
        3,
        4,
    }


async def test_ids_of_events_that_were_seen_are_forgotten_after_a_while(
    world: World, connection: asyncpg.Connection
) -> None:
    statement = (
        "insert into consumer_event (consumer, event_id, seen_at)"
        " values ('finance', $1, clock_timestamp() - make_interval(days => $2))"
    )
    for event_id, days in (("old", housekeeping.CONSUMED_DAYS + 1), ("new", 1)):
        await connection.execute(statement, event_id, days)
    assert (await housekeeping.clean(connection, KEY_DAYS))["consumed_events"] == 1
    assert await world.value("select event_id from consumer_event") == "new"


async def test_keys_are_forgotten_after_their_days_and_their_orders_stay(
    world: World, connection: asyncpg.Connection
) -> None:
    await partitions._make(connection, "orders", (now_ms() // DAY_MS - 8) * DAY_MS, (now_ms() // DAY_MS - 6) * DAY_MS)
    await world.ledger().commit(new_id(), [draft(key=bytes(16))])
    await connection.execute("update idempotency_key set order_id = $1", UUID(ids.new_id(now_ms() - 8 * DAY_MS)))
    assert (await housekeeping.clean(connection, KEY_DAYS))["keys"] == 1
    assert await world.count("orders") == 1


async def test_leases_and_workers_that_are_gone_are_removed_and_live_ones_stay(
    world: World, connection: asyncpg.Connection
) -> None:
    hand = await world.hand(units=5)
    gone = await world.owner()
    await connection.execute(
        "update worker set state = 'left', seen_at = clock_timestamp() - interval '2 days' where owner = $1",
        uuid.UUID(gone),
    )
    old = UUID(ids.new_id(now_ms() - 2 * housekeeping.LEASE_KEPT_MS))
    await connection.execute(
        "insert into stock_lease (lease_id, owner, sku, units, used, state) values ($1, $2, 'TEA', 1, 1, 'closed')",
        old,
        uuid.UUID(gone),
    )
    removed = await housekeeping.clean(connection, KEY_DAYS)
    assert (removed["leases"], removed["workers"]) == (1, 1)
    assert await world.lease(hand) == (5, 0, "active")
    await connection.execute("delete from stock_lease where lease_id = $1", old)


async def test_outbox_that_is_old_is_told_and_not_touched(world: World, connection: asyncpg.Connection) -> None:
    await world.ledger().commit(new_id(), [draft()])
    assert await housekeeping.old_in_outbox(connection) == (0, 0.0)
    await connection.execute("update outbox set created_at = clock_timestamp() - interval '1 hour'")
    batches, age_s = await housekeeping.old_in_outbox(connection)
    assert (batches, round(age_s / 60)) == (1, 60)
    assert await world.count("outbox") == 1
