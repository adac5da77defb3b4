"""Clients in the ledger: two live tokens at most whoever asks at once, and a last use that is written to the minute."""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.domain.access import token_hash
from persistence.postgres import clients
from persistence.postgres.connect import open_pool
from persistence.postgres.session import Session

NOON = dt.datetime(2026, 11, 11, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[asyncpg.Pool]:
    pool = await open_pool(postgres_url, "test", 8, 5.0)
    async with pool.acquire() as connection:
        await clients.add(connection, "shop", ["orders:read"], ["app"], token_hash("first"), None)
    yield pool
    pool.terminate()


async def rotate(pool: asyncpg.Pool, token: str, if_version: int | None = None) -> int | None:
    async with pool.acquire() as connection:
        return await clients.rotate(connection, "shop", token_hash(token), None, if_version)


async def last_uses(pool: asyncpg.Pool) -> list[dt.datetime | None]:
    return [row["last_used_at"] for row in await pool.fetch("select last_used_at from api_token order by token_id")]


async def note(postgres_url: str, used: dict[int, dt.datetime]) -> None:
    session = Session(postgres_url, "test")
    await clients.note_use(session, used)
    await session.close()


async def test_rotate_by_many_at_once_leaves_two_live_tokens(pool: asyncpg.Pool) -> None:
    found = await asyncio.gather(*(rotate(pool, str(at)) for at in range(8)), return_exceptions=True)
    assert [isinstance(one, clients.TokensFullError) for one in found].count(False) == 1


async def test_rotate_for_another_version_makes_no_token(pool: asyncpg.Pool) -> None:
    assert await rotate(pool, "second", if_version=2) is None
    assert len(await last_uses(pool)) == 1


async def test_change_of_another_version_changes_nothing(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        assert await clients.change(connection, "shop", ["bulk"], ["*"], 2) is False
        assert await clients.change(connection, "shop", ["bulk"], ["*"], 1) is True
    stored = await clients.get(pool, "shop")
    assert stored is not None
    assert (stored.client["scopes"], stored.client["channels"], stored.client["version"]) == (["bulk"], ["*"], 2)


async def test_every_change_of_what_is_in_force_is_told_to_the_followers(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        before = await clients.revision(connection)
        await clients.change(connection, "shop", ["bulk"], ["*"], 1)
        await clients.rotate(connection, "shop", token_hash("second"), None)
        await clients.revoke(connection, "shop", token_id=1)
        assert await clients.revision(connection) == before + 3


async def test_last_use_is_written_once_a_minute(pool: asyncpg.Pool, postgres_url: str) -> None:
    (number,) = [token["token_id"] for token in (await clients.page(pool, "", None))[0].tokens]
    for at, wanted in (
        (NOON, NOON),
        (NOON + MINUTE / 2, NOON),
        (NOON - MINUTE, NOON),
        (NOON + MINUTE, NOON + MINUTE),
    ):
        await note(postgres_url, {number: at, number + 99: at})
        assert await last_uses(pool) == [wanted]


async def test_last_use_noted_by_many_workers_at_once_is_the_latest_minute(
    pool: asyncpg.Pool, postgres_url: str
) -> None:
    await rotate(pool, "second")
    numbers = [token["token_id"] for token in (await clients.page(pool, "", None))[0].tokens]
    for _ in range(3):
        await asyncio.gather(
            *(note(postgres_url, dict.fromkeys(order, NOON)) for order in (numbers, numbers[::-1]) * 4)
        )
    assert await last_uses(pool) == [NOON, NOON]


async def test_last_use_tells_no_follower(pool: asyncpg.Pool, postgres_url: str) -> None:
    async with pool.acquire() as connection:
        before = await clients.revision(connection)
        await note(postgres_url, {1: NOON})
        assert await clients.revision(connection) == before
