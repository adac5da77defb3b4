"""Who may do what: API clients, their scopes and channels, and what a token looks like. Pure: the tokens in force are
kept by `gateway.access`.
"""

import hashlib
import secrets
from typing import NamedTuple

# Scope -> what it allows; the README's table and `client add --help` are made from it.
SCOPES = {
    "orders:write": "place orders",
    "orders:read": "read the client's own orders",
    "orders:read:all": "read the orders of every client",
    "orders:price": "name prices and adjustments in an order, and say that orders have been paid",
    "orders:manage": "change orders",
    "bulk": "place orders in bulk",
    "stock:read": "read stock",
    "stock:write": "change stock",
    "catalogue:write": "change products and sales",
    "clients:admin": "read, make, change, rotate and revoke clients, with no more scopes and channels than its own",
    "config:write": "change live settings",
    "metrics:read": "read metrics",
    "pii:read": "read names, addresses and notes",
}
ANY_CHANNEL = "*"
TOKEN_PREFIX = "fg_"  # noqa: S105 - the mark by which a leaked token is recognised


class Client(NamedTuple):
    """A client as a token shows it. `expires_at` in seconds since 1970, infinite when the token does not expire;
    `token_id` is the token's public number.
    """

    client_id: int
    name: str
    scopes: frozenset[str]
    channels: frozenset[str]
    expires_at: float = float("inf")
    token_id: int = 0

    def may(self, scope: str) -> bool:
        return scope in self.scopes

    def sells_on(self, channel: str) -> bool:
        return channel in self.channels or ANY_CHANNEL in self.channels

    @property
    def actor(self) -> str:
        """How the client is named in histories and events."""
        return f"client:{self.name}"


def new_token() -> str:
    """A token of 256 random bits. Only its hash is stored, so it is shown once."""
    return TOKEN_PREFIX + secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """SHA-256: a token has too many random bits to be guessed from it."""
    return hashlib.sha256(token.encode()).digest()
