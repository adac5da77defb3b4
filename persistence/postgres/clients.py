"""API clients and their tokens. A token stands here as its SHA-256 only; every change raises the topic `clients`."""

import datetime as dt
from collections.abc import Sequence

import asyncpg

from persistence.postgres.revisions import RAISE

TOPIC = "clients"
TOKENS_MAX = 2  # live tokens of a client: the one in use and the next

_LIVE = """
select t.token_hash, t.expires_at, c.client_id, c.name, c.scopes, c.channels
from api_token t join api_client c using (client_id)
where t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())
"""
_LIST = """
select c.name, c.scopes, c.channels, c.created_at,
    count(t.token_hash) filter (
        where t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())) as tokens
from api_client c left join api_token t using (client_id) group by c.client_id order by c.name
"""


class ClientError(Exception):
    """What was asked for cannot be done; the message says why."""


async def revision(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select value from revision where topic = $1", TOPIC))


async def live_tokens(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """token_hash, expires_at, client_id, name, scopes, channels of every token that is valid now."""
    return list(await connection.fetch(_LIVE))


async def list_clients(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """name, scopes, channels, created_at, tokens (live ones)."""
    return list(await connection.fetch(_LIST))


async def exists(connection: asyncpg.Connection, name: str) -> bool:
    return bool(await connection.fetchval("select exists (select from api_client where name = $1)", name))


async def add(
    connection: asyncpg.Connection,
    name: str,
    scopes: Sequence[str],
    channels: Sequence[str],
    token_hash: bytes,
    expires_at: dt.datetime | None,
) -> None:
    """Make a client with its first token. Raises ClientError when the name is taken."""
    async with connection.transaction():
        await connection.fetchval(RAISE, TOPIC)
        client_id = await connection.fetchval(
            "insert into api_client (name, scopes, channels) values ($1, $2, $3) on conflict do nothing "
            "returning client_id",
            name,
            list(scopes),
            list(channels),
        )
        if client_id is None:
            raise ClientError(f"there is a client {name} already")
        await _insert_token(connection, client_id, token_hash, expires_at)


async def rotate(connection: asyncpg.Connection, name: str, token_hash: bytes, expires_at: dt.datetime | None) -> None:
    """Give a client one more token. Raises ClientError for an unknown client, or one with two live tokens."""
    async with connection.transaction():
        await connection.fetchval(RAISE, TOPIC)
        client_id = await _client_id(connection, name)
        live = await connection.fetchval(
            "select count(*) from api_token where client_id = $1 and revoked_at is null", client_id
        )
        if live >= TOKENS_MAX:
            raise ClientError(f"{name} has {live} live tokens; revoke one first")
        await _insert_token(connection, client_id, token_hash, expires_at)


async def revoke(connection: asyncpg.Connection, name: str, token_hash: bytes | None) -> int:
    """End one token of a client, or all of them. Returns how many. Raises ClientError for an unknown client."""
    async with connection.transaction():
        await connection.fetchval(RAISE, TOPIC)
        client_id = await _client_id(connection, name)
        rows = await connection.fetch(
            "update api_token set revoked_at = clock_timestamp() "
            "where client_id = $1 and revoked_at is null and ($2::bytea is null or token_hash = $2) "
            "returning 1",
            client_id,
            token_hash,
        )
        return len(rows)


async def _client_id(connection: asyncpg.Connection, name: str) -> int:
    client_id = await connection.fetchval("select client_id from api_client where name = $1 for update", name)
    if client_id is None:
        raise ClientError(f"there is no client {name}")
    return int(client_id)


async def _insert_token(
    connection: asyncpg.Connection, client_id: int, token_hash: bytes, expires_at: dt.datetime | None
) -> None:
    await connection.execute(
        "insert into api_token (token_hash, client_id, expires_at) values ($1, $2, $3)",
        token_hash,
        client_id,
        expires_at,
    )
