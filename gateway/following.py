"""Keeps the worker's copies of catalogue, clients and whatever else is followed up to date: asks a few times a second
which topics have changed, so that a change takes effect within one.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import structlog
from msgspec import Struct

from persistence.errors import LedgerUnavailableError
from persistence.postgres import revisions
from persistence.postgres.session import Session

POLL_S = 0.2

log = structlog.get_logger("following")


class Topic(Struct):
    """A topic of the table `revision`, and what brings the worker's copy up to date; `load` answers the revision that
    the copy then reflects. None: it could not be brought up to date, and those after it must not be either.
    """

    name: str
    load: Callable[[asyncpg.Connection], Awaitable[int | None]]


class Following:
    """Polls until cancelled, and loads topics in their order. While the ledger is away the copies stay as they were."""

    def __init__(self, session: Session, topics: Sequence[Topic]) -> None:
        self._session = session
        self._topics = topics
        self._known: dict[str, int] = {}
        self._missing: set[str] = set()

    async def run(self) -> None:
        while True:
            with contextlib.suppress(LedgerUnavailableError):  # The heartbeat says so in the log.
                await self._session.run(self._follow)
            await asyncio.sleep(POLL_S)

    async def _follow(self, connection: asyncpg.Connection) -> None:
        values = await revisions.fetch(connection)
        for topic in self._topics:
            if topic.name not in values:
                self._note_missing(topic.name)
            elif values[topic.name] != self._known.get(topic.name):
                revision = await topic.load(connection)
                if revision is None:
                    return
                self._known[topic.name] = revision

    def _note_missing(self, name: str) -> None:
        if name not in self._missing:
            self._missing.add(name)
            log.error("ledger_schema_is_old", topic=name, remedy="floodgate migrate")
