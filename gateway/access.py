"""The tokens in force, in memory: a request is never answered by asking Postgres who it comes from. The follower
replaces them within a second of a change.

When a token was used last is noted here, and goes to the ledger once a minute; a crash forgets what was not written.
"""

import asyncio
import datetime as dt
from collections.abc import Iterable

import asyncpg
import structlog

from gateway.domain.access import Client, token_hash
from gateway.domain.outcomes import Refusal
from persistence.errors import LedgerUnavailableError
from persistence.postgres import clients
from persistence.postgres.session import Session

SEEN_MAX = 10_000  # remembered headers; more live tokens than that only cost a hash each

log = structlog.get_logger("access")


class Access:
    """Looks clients up by their Authorization header."""

    def __init__(self) -> None:
        self._clients: dict[bytes, Client] = {}
        self._seen: dict[bytes, Client] = {}
        self._used: dict[int, float] = {}
        self.loaded = False

    def replace(self, clients: Iterable[tuple[bytes, Client]]) -> None:
        """From now on these tokens are valid, as (SHA-256 of the token, client), and no others."""
        self._clients = dict(clients)
        self._seen = {}
        self.loaded = True

    async def load(self, connection: asyncpg.Connection) -> int:
        """Take over the ledger's tokens. Returns the revision of the topic `clients`."""
        revision = await clients.revision(connection)
        self.replace([(row["token_hash"], _client(row)) for row in await clients.live_tokens(connection)])
        return revision

    def refusal(self) -> Refusal:
        """What to answer where `find` finds nobody: before the tokens are loaded, none can be called wrong."""
        return Refusal("unauthenticated" if self.loaded else "ledger_away")

    def find(self, header: bytes, now_s: float) -> Client | None:
        """The client of `Bearer <token>`; None when there is none, or its token has expired."""
        client = self._seen.get(header) or self._verify(header)
        if client is None or client.expires_at <= now_s:
            return None
        self._used[client.token_id] = now_s
        return client

    async def run(self, session: Session) -> None:
        """Bring the tokens' last use to the ledger every minute, until cancelled."""
        while True:
            await asyncio.sleep(clients.USE_EVERY_S)
            await self.flush(session)

    async def flush(self, session: Session) -> None:
        """Bring the tokens' last use to the ledger. While it is away, what is noted waits here, a number per token."""
        if not self._used:
            return
        used, self._used = self._used, {}
        try:
            await clients.note_use(
                session, {token: dt.datetime.fromtimestamp(at, dt.UTC) for token, at in used.items()}
            )
        except LedgerUnavailableError as error:
            log.warning("last_use_not_written_yet", error=str(error))
            self._used = used | self._used

    def _verify(self, header: bytes) -> Client | None:
        scheme, _, token = header.partition(b" ")
        if scheme.lower() != b"bearer" or not token.isascii():
            return None
        client = self._clients.get(token_hash(token.strip().decode()))
        if client is not None:
            if len(self._seen) >= SEEN_MAX:
                self._seen = {}
            self._seen[header] = client
        return client


def _client(row: asyncpg.Record) -> Client:
    expires_at = float("inf") if row["expires_at"] is None else row["expires_at"].timestamp()
    scopes, channels = frozenset(row["scopes"]), frozenset(row["channels"])
    return Client(row["client_id"], row["name"], scopes, channels, expires_at, row["token_id"])
