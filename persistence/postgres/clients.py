"""API clients and their tokens. A token stands here as its SHA-256 only, and is spoken of by its number. Every change
of what is in force raises the topic `clients`.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import asyncpg

from persistence.postgres.revisions import RAISE
from persistence.postgres.session import Session

TOPIC = "clients"
TOKENS_MAX = 2  # live tokens of a client: the one in use and the next
USE_EVERY_S = 60  # between two writings of a token's last use, by whichever worker

_IS_LIVE = "t.revoked_at is null and (t.expires_at is null or t.expires_at > clock_timestamp())"
_LIVE = f"""
select t.token_hash, t.token_id, t.expires_at, c.client_id, c.name, c.scopes, c.channels
from api_token t join api_client c using (client_id) where {_IS_LIVE}
"""
_CLIENT = "select client_id, name, scopes, channels, version, created_at from api_client"
_TOKENS = f"""
select t.client_id, t.token_id, t.created_at, t.expires_at, t.last_used_at, t.revoked_at, {_IS_LIVE} as is_live
from api_token t where t.client_id = any($1::int[]) order by t.token_id desc
"""
# Who finds a token locked leaves it to the other worker, so no two wait for each other.
_USED = """
update api_token t set last_used_at = u.at from unnest($1::bigint[], $2::timestamptz[]) u(token_id, at)
where t.token_id = u.token_id and t.token_id in (
    select x.token_id from api_token x where x.token_id = any($1::bigint[]) for no key update skip locked)
and (t.last_used_at is null or t.last_used_at <= u.at - make_interval(secs => $3))
"""


class ClientError(Exception):
    """What was asked for cannot be done; the message says why."""


class NameTakenError(ClientError):
    """There is a client of this name already."""


class UnknownClientError(ClientError):
    """There is no client of this name."""


class TokensFullError(ClientError):
    """The client has as many live tokens as it may have."""


class StoredClient(NamedTuple):
    """A client's row (client_id, name, scopes, channels, version, created_at) and those of its tokens, newest first
    (token_id, created_at, expires_at, last_used_at, revoked_at, is_live).
    """

    client: asyncpg.Record
    tokens: list[asyncpg.Record]


async def revision(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("select value from revision where topic = $1", TOPIC))


async def live_tokens(connection: asyncpg.Connection) -> list[asyncpg.Record]:
    """token_hash, token_id, expires_at, client_id, name, scopes, channels of every token that is valid now."""
    return list(await connection.fetch(_LIVE))


async def page(connection: asyncpg.Connection | asyncpg.Pool, after: str, limit: int | None) -> list[StoredClient]:
    """Clients in the order of their names, those after `after`; all of them without a limit."""
    return await _complete(
        connection, await connection.fetch(f"{_CLIENT} where name > $1 order by name limit $2", after, limit)
    )


async def get(connection: asyncpg.Connection | asyncpg.Pool, name: str) -> StoredClient | None:
    found = await _complete(connection, await connection.fetch(f"{_CLIENT} where name = $1", name))
    return found[0] if found else None


async def exists(connection: asyncpg.Connection, name: str) -> bool:
    return bool(await connection.fetchval("select exists (select from api_client where name = $1)", name))


async def add(
    connection: asyncpg.Connection,
    name: str,
    scopes: Sequence[str],
    channels: Sequence[str],
    token_hash: bytes,
    expires_at: dt.datetime | None,
) -> int:
    """Make a client with its first token, whose number it answers. Raises NameTakenError."""
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
            raise NameTakenError(f"there is a client {name} already")
        return await _insert_token(connection, client_id, token_hash, expires_at)


async def change(
    connection: asyncpg.Connection, name: str, scopes: Sequence[str], channels: Sequence[str], if_version: int
) -> bool:
    """Give a client other scopes and channels. False when it has not the version `if_version`: nothing was changed."""
    async with connection.transaction():
        await connection.fetchval(RAISE, TOPIC)
        changed = await connection.fetchval(
            "update api_client set scopes = $3, channels = $4, version = version + 1 "
            "where name = $1 and version = $2 returning true",
            name,
            if_version,
            list(scopes),
            list(channels),
        )
        return bool(changed)


async def rotate(
    connection: asyncpg.Connection,
    name: str,
    token_hash: bytes,
    expires_at: dt.datetime | None,
    if_version: int | None = None,
) -> int | None:
    """Give a client one more token, whose number it answers; None when the client has not the version `if_version`.
    Raises UnknownClientError, TokensFullError.
    """
    async with connection.transaction():
        await connection.fetchval(RAISE, TOPIC)
        client_id, version = await _lock(connection, name)
        if if_version not in (None, version):
            return None
        live = await connection.fetchval(
            f"select count(*) from api_token t where t.client_id = $1 and {_IS_LIVE}", client_id
        )
        if live >= TOKENS_MAX:
            raise TokensFullError(f"{name} has {live} live tokens; revoke one first")
        return await _insert_token(connection, client_id, token_hash, expires_at)


async def revoke(
    connection: asyncpg.Connection, name: str, token_hash: bytes | None = None, token_id: int | None = None
) -> int:
    """End the token of a client that the hash or the number names, or all of them. Returns how many. Raises
    UnknownClientError.
    """
    async with connection.transaction():
        await connection.fetchval(RAISE, TOPIC)
        client_id, _ = await _lock(connection, name)
        rows = await connection.fetch(
            "update api_token set revoked_at = clock_timestamp() where client_id = $1 and revoked_at is null "
            "and token_hash = coalesce($2, token_hash) and token_id = coalesce($3, token_id) returning 1",
            client_id,
            token_hash,
            token_id,
        )
        return len(rows)


async def note_use(session: Session, used: Mapping[int, dt.datetime]) -> None:
    """Write when tokens were used, by their numbers, unless that was written less than USE_EVERY_S before. Raises
    LedgerUnavailableError.
    """
    await session.run(lambda c: c.execute(_USED, list(used), list(used.values()), USE_EVERY_S))


async def _complete(
    connection: asyncpg.Connection | asyncpg.Pool, rows: Sequence[asyncpg.Record]
) -> list[StoredClient]:
    found = {row["client_id"]: StoredClient(row, []) for row in rows}
    for token in await connection.fetch(_TOKENS, list(found)):
        found[token["client_id"]].tokens.append(token)
    return list(found.values())


async def _lock(connection: asyncpg.Connection, name: str) -> tuple[int, int]:
    """A client's id and version; its row is ours until the end of the transaction."""
    row = await connection.fetchrow("select client_id, version from api_client where name = $1 for update", name)
    if row is None:
        raise UnknownClientError(f"there is no client {name}")
    return row["client_id"], row["version"]


async def _insert_token(
    connection: asyncpg.Connection, client_id: int, token_hash: bytes, expires_at: dt.datetime | None
) -> int:
    number = await connection.fetchval(
        "insert into api_token (token_hash, client_id, expires_at) values ($1, $2, $3) returning token_id",
        token_hash,
        client_id,
        expires_at,
    )
    return int(number)
