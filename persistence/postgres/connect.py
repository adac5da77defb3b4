"""Opens connections to the ledger: every one carries a name, time-outs and keepalives, and refuses a server that is not
durable.

`fg-commit:<owner>` is the name of a committer's connection; the control connections end those that hang (see
`control`).
"""

import asyncio
from typing import Any

import asyncpg

from persistence.errors import LedgerUnavailableError, NotDurableError

CONNECT_TIMEOUT_S = 5.0
# What every session of ours runs under. Seconds or milliseconds as PostgreSQL takes them; a stopped peer is noticed
# after about 9 s.
SESSION = {
    "timezone": "UTC",
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    "idle_in_transaction_session_timeout": "10000",
    "lock_timeout": "5000",
}
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}

# The errors of a driver or socket that mean "cannot be reached", as against "said no".
UNREACHABLE = (
    OSError,
    asyncio.TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.InternalClientError,
)


async def connect(
    url: str, name: str, command_timeout_s: float = 10.0, session: dict[str, str] | None = None
) -> asyncpg.Connection:
    """A connection of its own. Raises LedgerUnavailableError when the server cannot be reached in time."""
    settings = SESSION | {"application_name": name} | (session or {})
    try:
        return await asyncpg.connect(
            url, timeout=CONNECT_TIMEOUT_S, command_timeout=command_timeout_s, server_settings=settings
        )
    except UNREACHABLE as error:
        raise LedgerUnavailableError(f"PostgreSQL cannot be reached: {error}") from error


async def open_pool(url: str, name: str, size_max: int, command_timeout_s: float) -> asyncpg.Pool:
    """A pool for reading and for cold writes. It connects on use, so it opens while the server is away."""
    settings = SESSION | {"application_name": name, "statement_timeout": str(int(command_timeout_s * 1000))}
    return await asyncpg.create_pool(
        url,
        min_size=0,
        max_size=size_max,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings=settings,
    )


async def ensure_durable(connection: asyncpg.Connection) -> None:
    """Raises NotDurableError unless the server keeps what it has acknowledged: its word is what every 201 rests on."""
    settings: dict[str, Any] = {name: await connection.fetchval("select current_setting($1)", name) for name in DURABLE}
    wrong = [f"{name} = {settings[name]}" for name, wanted in DURABLE.items() if settings[name] != wanted]
    if wrong:
        raise NotDurableError(f"PostgreSQL would lose acknowledged orders: {', '.join(wrong)}; set each to on")
