"""The tokens in force, in memory: a request is never answered by asking Postgres who it comes from. The follower
replaces them within a second of a change.
"""

from collections.abc import Iterable

import asyncpg

from gateway.domain.access import Client, token_hash
from gateway.domain.outcomes import Refusal
from persistence.postgres import clients

SEEN_MAX = 10_000  # remembered headers; more live tokens than that only cost a hash each


class Access:
    """Looks clients up by their Authorization header."""

    def __init__(self) -> None:
        self._clients: dict[bytes, Client] = {}
        self._seen: dict[bytes, Client] = {}
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
        return client

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
    return Client(row["client_id"], row["name"], frozenset(row["scopes"]), frozenset(row["channels"]), expires_at)
