"""Keeps the worker's copies of catalogue and clients up to date: asks for what has changed a few times a second, so
that a change takes effect within one.
"""

import asyncio
import contextlib

import asyncpg

from gateway.access import Access
from gateway.catalogue import Catalogue
from gateway.domain.access import Client
from persistence.errors import LedgerUnavailableError
from persistence.postgres import catalogue as products
from persistence.postgres import clients
from persistence.postgres.session import Session

POLL_S = 0.2


class Following:
    """Polls until cancelled. While the ledger is away the copies stay as they were."""

    def __init__(self, session: Session, catalogue: Catalogue, access: Access) -> None:
        self._session = session
        self._catalogue = catalogue
        self._access = access
        self._clients_revision = -1

    async def run(self) -> None:
        while True:
            with contextlib.suppress(LedgerUnavailableError):  # The heartbeat says so in the log.
                await self._session.run(self._follow)
            await asyncio.sleep(POLL_S)

    async def _follow(self, connection: asyncpg.Connection) -> None:
        revision, rows = await products.changes_since(connection, self._catalogue.revision)
        if revision != self._catalogue.revision:
            self._catalogue.apply(revision, rows)
        revision = await clients.revision(connection)
        if revision != self._clients_revision:
            self._access.replace([(row["token_hash"], _client(row)) for row in await clients.live_tokens(connection)])
            self._clients_revision = revision


def _client(row: asyncpg.Record) -> Client:
    expires_at = float("inf") if row["expires_at"] is None else row["expires_at"].timestamp()
    return Client(row["client_id"], row["name"], frozenset(row["scopes"]), frozenset(row["channels"]), expires_at)
