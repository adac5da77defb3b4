"""The worker's pulse: tells the ledger that this owner lives, learns the ledger's clock, compares some leases, and ends
committers that hang. A beat costs the same however many leases there are.

An owner that hears it has been declared dead drops what it holds and goes on under a new id: nothing sold from a dead
owner's leases can be committed.
"""

import asyncio
import os
import socket

import structlog

from gateway.clock import Clock
from gateway.comparison import Comparison
from gateway.leases import Leases
from persistence.errors import LedgerUnavailableError, OwnerNotAliveError
from persistence.postgres import control
from persistence.postgres.session import Session

log = structlog.get_logger("heart")


class Heart:
    """Beats until cancelled. The first beat registers the owner."""

    def __init__(self, session: Session, clock: Clock, leases: Leases, heartbeat_s: float) -> None:
        self._session = session
        self._clock = clock
        self._leases = leases
        self._comparison = Comparison(session, leases)
        self._heartbeat_s = heartbeat_s
        self._registered = ""
        self.missed = 0

    async def run(self) -> None:
        while True:
            await self.beat()
            await asyncio.sleep(self._heartbeat_s)

    async def beat(self) -> None:
        """One heartbeat. A ledger that is away is noted in `missed` and asked again at the next beat."""
        try:
            await self._ensure_registered()
            try:
                await self._beat()
            except OwnerNotAliveError:
                log.warning("owner_declared_dead", owner=self._registered)
                self._leases.renew()
                await self._ensure_registered()  # Until the ledger knows the new owner, it gets no units.
            self.missed = 0
        except LedgerUnavailableError as error:
            self.missed += 1
            log.warning("heartbeat_missed", error=str(error))

    async def _beat(self) -> None:
        # What was counted for a beat that the ledger does not hear is lost: it says how things are, and no more.
        pinch = self._leases.pinch.take(self._leases.parking.skus)
        reading = await control.heartbeat(self._session, self._registered, pinch, self._heartbeat_s)
        self._clock.observe(*reading)
        await self._comparison.step()
        if await control.reap(self._session):
            log.warning("hung_committers_ended")

    async def _ensure_registered(self) -> None:
        if self._registered == self._leases.owner:
            return
        owner = self._leases.owner
        await control.register(self._session, owner, socket.gethostname(), os.getpid(), 0)
        self._registered = owner
