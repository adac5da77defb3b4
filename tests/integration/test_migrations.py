"""The schema comes from numbered SQL files: made once, by whoever is first, and found complete by everybody else."""

import asyncio

import pytest
from alembic import command
from asyncpg.pgproto.pgproto import UUID

from persistence.errors import LedgerUnavailableError
from persistence.postgres import migrate, partitions
from tests.ledger_world import draft, new_id, open_world

UNUSED = "postgresql://floodgate@127.0.0.1:1/none"


async def test_upgrade_of_an_empty_database_makes_a_ledger_that_commits(empty_postgres_url: str) -> None:
    assert await migrate.upgrade(empty_postgres_url) == (None, migrate.head())
    async with open_world(empty_postgres_url) as world:
        assert await world.ledger().commit(new_id(), [draft()]) == []
        await world.assert_clean()


async def test_upgrade_again_changes_nothing(empty_postgres_url: str) -> None:
    await migrate.upgrade(empty_postgres_url)
    async with open_world(empty_postgres_url) as world:
        await world.ledger().commit(new_id(), [draft()])
        before = await world.tables()
        assert await migrate.upgrade(empty_postgres_url) == (migrate.head(), migrate.head())
        assert await world.tables() == before


async def test_upgrade_by_several_at_once_is_done_by_one(empty_postgres_url: str) -> None:
    versions = await asyncio.gather(*(migrate.upgrade(empty_postgres_url) for _ in range(3)))
    assert sorted(versions, key=str) == sorted(
        [(None, migrate.head()), *[(migrate.head(), migrate.head())] * 2], key=str
    )


async def test_upgrade_makes_partitions_of_the_days_asked_for(empty_postgres_url: str) -> None:
    await migrate.upgrade(empty_postgres_url, days=7, ahead=2)
    async with open_world(empty_postgres_url) as world:
        now = int(await world.value("select extract(epoch from clock_timestamp()) * 1000"))
        async with world.pool.acquire() as connection:
            ends = await partitions.ends(connection)
    assert set(ends) == set(partitions.TABLES)
    assert all(end > now + 14 * partitions.DAY_MS for end in ends.values())


async def test_upgrade_keeps_the_shards_that_somebody_gave_a_sku_from_the_rules(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _: upgrade(config, "0004"))
        await migrate.upgrade(empty_postgres_url)
    async with open_world(empty_postgres_url) as world:
        await world.stock("USUAL", 10, shards=4)
        await world.stock("CHOSEN", 10, shards=8)
        await migrate.upgrade(empty_postgres_url)
        assert await world.value("select array_agg(sku) from stock_sku where shards_fixed") == ["CHOSEN"]
        await world.assert_clean()


async def test_upgrade_of_an_unreachable_server_raises() -> None:
    with pytest.raises((LedgerUnavailableError, OSError)):
        await migrate.upgrade(UNUSED)


async def test_schema_has_no_default_partition(postgres_url: str) -> None:
    async with open_world(postgres_url) as world:
        assert await world.value("select count(*) from pg_partitioned_table where partdefid <> 0") == 0


async def test_schema_finds_an_order_by_id_in_one_partition(postgres_url: str) -> None:
    async with open_world(postgres_url) as world:
        entry = draft()
        await world.ledger().commit(new_id(), [entry])
        plan = await world.pool.fetch("explain select * from orders where order_id = $1", UUID(entry.order_id))
        assert sum("orders_p" in row[0] for row in plan) <= 2  # The scan of one partition, and its condition.


INDEXES = """
select count(*) filter (where x.indisvalid) as valid, count(*) as found, (select count(*) from pg_inherits
    where inhparent = 'orders'::regclass) as partitions
from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_index x on x.indexrelid = c.oid
where i.inhparent = 'orders_due'::regclass
"""


@pytest.mark.parametrize("left", ["nothing", "one half-built"])
async def test_upgrade_gives_every_partition_of_a_ledger_in_use_its_index(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    with monkeypatch.context() as patched:
        upgrade = command.upgrade
        patched.setattr(command, "upgrade", lambda config, _: upgrade(config, "0014"))
        await migrate.upgrade(empty_postgres_url)
    async with open_world(empty_postgres_url) as world:
        await world.pool.execute("update schema_version set version_num = '0015'")  # So that orders are taken.
        await world.ledger().commit(new_id(), [draft() for _ in range(50)])
        await world.pool.execute("update schema_version set version_num = '0014'")
        if left == "one half-built":
            partition = await world.value("select tableoid::regclass::text from orders limit 1")
            due = "(expires_at) where status = 'pending_payment'"
            await world.pool.execute(f"create index {partition}_due on {partition} {due}")
            await world.pool.execute(
                "update pg_index set indisvalid = false where indexrelid = $1::regclass", f"{partition}_due"
            )
        await migrate.upgrade(empty_postgres_url)
        row = await world.pool.fetchrow(INDEXES)
        assert row["valid"] == row["found"] == row["partitions"] > 1
        await world.assert_clean()
