"""The outbox between a worker that removes what the stream has acknowledged and a relay that sends what is old."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres import outbox
from tests.ledger_world import World, draft, new_id, open_world

INSERT = "insert into outbox (batch_id, order_ids, versions) values ($1, $2, array[1])"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def left(world: World) -> set[bytes]:
    return {row["batch_id"].bytes for row in await world.pool.fetch("select batch_id from outbox")}


async def test_remove_leaves_what_a_relay_holds_to_it_and_does_not_wait(world: World) -> None:
    lane, batch_ids = world.ledger(), [new_id(), new_id()]
    for batch_id in batch_ids:
        await lane.commit(batch_id, [draft()])
    async with world.pool.acquire() as relay, outbox.claim(relay, 0.0, 1) as pending:
        async with asyncio.timeout(3):
            await outbox.remove(world.pool, batch_ids)
        assert await left(world) == {batch.batch_id for batch in pending}
        await outbox.remove(relay, [batch.batch_id for batch in pending])
    assert await left(world) == set()


async def test_claim_finds_a_batch_that_was_committed_after_one_with_a_later_id(world: World) -> None:
    """A cursor over the ids would have passed it by."""
    early, late = sorted((new_id(), new_id()))
    async with world.pool.acquire() as other, other.transaction():
        await other.execute(INSERT, UUID(early), [UUID(new_id())])
        await world.ledger().commit(late, [draft()])
        async with world.pool.acquire() as relay, outbox.claim(relay, 0.0, 10) as pending:
            assert [batch.batch_id for batch in pending] == [late]
            await outbox.remove(relay, [late])
    async with world.pool.acquire() as relay, outbox.claim(relay, 0.0, 10) as pending:
        assert [batch.batch_id for batch in pending] == [early]
        await outbox.remove(relay, [early])
    assert await left(world) == set()
