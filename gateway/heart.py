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
from gateway.journaling import Journaling
from gateway.leases import Leases
from persistence.errors import LedgerUnavailableError, OwnerNotAliveError
from persistence.postgres import control
from persistence.postgres.session import Session

HEARTBEATS_MISSED = 3  # before an owner may be taking orders into its journal

log = structlog.get_logger("heart")


class Heart:
    """Beats until cancelled. The first beat registers the owner."""

    def __init__(
        self, session: Session, clock: Clock, leases: Leases, heartbeat_s: float, journaling: Journaling
    ) -> None:
        self._session = session
        self._journaling = journaling
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
        journaling, clock = self._journaling, self._clock
        since_s = max(clock.now_s() - HEARTBEATS_MISSED * self._heartbeat_s, journaling.back_at_s)
        reading, journaling.others_may_hold = await control.heartbeat(
            self._session, self._registered, pinch, self._heartbeat_s, journaling.left, since_s
        )
        clock.observe(*reading)
        await self._tell_journal()
        await self._comparison.step()
        if await control.reap(self._session):
            log.warning("hung_committers_ended")

    async def _ensure_registered(self) -> None:
        if self._registered == self._leases.owner:
            return
        owner, journaling = self._leases.owner, self._journaling
        journal = await journaling.ensure_open(owner) if journaling.wanted else None
        await control.register(self._session, owner, socket.gethostname(), os.getpid(), 0, journal)
        self._registered, journaling.named = owner, owner if journal else ""

    async def _tell_journal(self) -> None:
        """Name the journal once it is wanted, and no more when it is not and has nothing: then this owner is dead when
        it is silent.
        """
        owner, journaling = self._registered, self._journaling
        if journaling.wanted and journaling.named != owner:
            if journal := await journaling.ensure_open(owner):
                await control.name_journal(self._session, owner, journal)
                journaling.named = owner
        elif not journaling.wanted and journaling.owner and journaling.is_empty:
            journaling.named = ""  # First, so that nothing can be appended any more.
            await control.name_journal(self._session, owner, None)
            await journaling.close(remove=True)
