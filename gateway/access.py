"""The tokens in force, in memory: a request is never answered by asking Postgres who it comes from. The follower
replaces them within a second of a change.
"""

from collections.abc import Iterable

from gateway.domain.access import Client, token_hash
from gateway.domain.outcomes import Refusal

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
