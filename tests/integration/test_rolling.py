"""What old and new releases owe each other while both run: a migration makes nobody wait, whoever finds a schema that
is too old says so and takes no orders, and rows in a format that one does not know are left to the other.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from alembic import command

from persistence.errors import LedgerUnavailableError
from persistence.postgres import migrate, schema
from tests.ledger_world import draft, new_id
from tests.ledger_world import open_world as open_ledger
from tests.worker_world import World, code_of, eventually, open_world, order_id_of

BEFORE = "0009"


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        yield world
        await world.assert_clean()


async def to_version(url: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _: upgrade(config, version))
        await migrate.upgrade(url)


async def set_version(world: World, version: str) -> None:
    await world.pool.execute("update schema_version set version_num = $1", version)


def test_schema_that_is_needed_is_the_newest_revision() -> None:
    assert migrate.head() == schema.NEEDED


async def test_upgrade_behind_a_long_reader_lets_others_write_and_goes_on_when_he_is_done(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await to_version(empty_postgres_url, BEFORE, monkeypatch)
    async with open_ledger(empty_postgres_url) as ledger:
        async with ledger.pool.acquire() as reader, reader.transaction():
            await reader.fetch("select count(*) from outbox")
            upgrading = asyncio.create_task(migrate.upgrade(empty_postgres_url))
            waiting = "select count(*) from pg_locks where relation = 'outbox'::regclass and not granted"
            await ledger.until(waiting, 1)
            # A row that waits behind the migration gets through, since that gives up first.
            await ledger.pool.execute("set lock_timeout = 0")
            await ledger.pool.execute(
                "insert into outbox (batch_id, order_ids, versions) values (gen_random_uuid(), '{}', '{}')", timeout=10
            )
            assert not upgrading.done()
        assert await upgrading == (BEFORE, migrate.head())


async def test_upgrade_that_gets_no_lock_keeps_the_steps_it_took_and_names_who_is_in_the_way(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "TRIES", 2)
    await to_version(empty_postgres_url, "0006", monkeypatch)
    async with open_ledger(empty_postgres_url) as ledger:
        async with ledger.pool.acquire() as reader, reader.transaction():
            await reader.fetch("select count(*) from outbox")
            with pytest.raises(LedgerUnavailableError, match="longest transaction is fg-test"):
                await migrate.upgrade(empty_postgres_url)
            assert await ledger.value("select version_num from schema_version") == BEFORE
        assert await migrate.upgrade(empty_postgres_url) == (BEFORE, migrate.head())


async def test_ledger_of_an_older_schema_takes_no_orders(postgres_url: str) -> None:
    async with open_ledger(postgres_url) as ledger:
        await ledger.pool.execute("update schema_version set version_num = '0006'")
        with pytest.raises(LedgerUnavailableError, match=r"is at 0006 and .* is needed: run `floodgate migrate`"):
            await ledger.ledger().commit(new_id(), [draft()])
        assert await ledger.count("orders") == 0


async def test_worker_on_an_older_schema_takes_orders_as_soon_as_it_is_migrated(world: World) -> None:
    await set_version(world, "0006")
    shop = await world.shop(ready=False)
    answer = await shop.place()
    assert (answer.status, code_of(answer)) == (503, "ledger_away")
    await set_version(world, schema.NEEDED)
    order_id_of(await shop.buy("k-2"))


async def test_worker_on_a_newer_schema_takes_orders(world: World) -> None:
    await set_version(world, "9999")
    order_id_of(await (await world.shop()).buy("k-1"))


async def test_steward_on_an_older_schema_does_nothing_until_it_is_migrated(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    await leave_an_event(world)
    await set_version(world, "0006")
    world.steward()
    said = ""

    async def is_said() -> bool:
        nonlocal said
        said += capfd.readouterr().out
        return "run `floodgate migrate`" in said

    await eventually("the steward says what it waits for", is_said)
    assert not await world.outbox_is_empty()
    await set_version(world, schema.NEEDED)
    await eventually("the outbox is empty", world.outbox_is_empty)


async def test_relay_leaves_what_a_newer_release_has_written(world: World) -> None:
    await leave_an_event(world)
    await world.pool.execute("update outbox set format = 2")
    await world.pool.execute("insert into batch (batch_id, outcome) values ($1, 'committed')", other := _uuid())
    await world.pool.execute(
        "insert into outbox (batch_id, order_ids, versions, created_at)"
        " select $1, order_ids, versions, created_at from outbox",
        other,
    )
    events = len(await world.events())
    world.steward()

    async def only_theirs_is_left() -> bool:
        return [row["format"] for row in await world.pool.fetch("select format from outbox")] == [2]

    await eventually("what is known has been sent", only_theirs_is_left)
    assert len(await world.events()) == events


async def test_audit_says_nothing_of_what_a_newer_release_has_written(world: World) -> None:
    await world.pool.execute(
        "insert into outbox (batch_id, order_ids, versions, format) values ($1, array[$1::uuid], '{1}', 2)", _uuid()
    )
    await world.assert_clean()


async def leave_an_event(world: World) -> None:
    """An order whose event the stream has, and the outbox still names."""
    shop = await world.shop()
    order_id_of(await shop.buy("k-1"))
    await eventually("the outbox is empty", world.outbox_is_empty)
    await shop.stop()
    await world.pool.execute(
        "insert into outbox (batch_id, order_ids, versions, created_at)"
        " select b.batch_id, array[o.order_id], '{1}', clock_timestamp() - interval '1 minute' from batch b, orders o"
    )


def _uuid() -> asyncpg.pgproto.pgproto.UUID:
    return asyncpg.pgproto.pgproto.UUID(new_id())
