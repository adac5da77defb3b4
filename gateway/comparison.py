"""Brings till and ledger together, some leases at each heartbeat: what the ledger has closed leaves the till, and what
it counts as ours without the till's knowing is closed, so that its units can be sold.

A step costs COMPARED_MAX leases at most, however many there are; with fewer, each step compares all. Nothing is closed
on one sighting: a lease may come to the till, or be used up, while the ledger answers.
"""

from gateway.leases import Leases
from persistence.postgres import control
from persistence.postgres.session import Session

COMPARED_MAX = 1000  # leases of the till, and of the ledger, of one step: 2 ms of CPU here and 2 ms there (2026-11-23)
FIRST = bytes(16)  # below every lease's id


class Comparison:
    """Two walks beside each other, through the till and through the ledger, each begun anew at its end. A step that the
    ledger does not answer is made again.
    """

    def __init__(self, session: Session, leases: Leases) -> None:
        self._session = session
        self._leases = leases
        self._left: list[bytes] = []  # of the till, as it was at the beginning of its walk
        self._compared = FIRST  # the last of the ledger's

    async def step(self) -> None:
        """Compare the next leases of both. Raises LedgerUnavailableError."""
        await self._drop_closed()
        await self._close_strays()

    async def _drop_closed(self) -> None:
        if not self._left:
            self._left = self._leases.till.ids()
        known = self._left[-COMPARED_MAX:]
        if known:
            self._leases.drop(set(known) - await control.still_active(self._session, known))
            del self._left[-COMPARED_MAX:]

    async def _close_strays(self) -> None:
        active = await control.active_after(self._session, self._leases.owner, self._compared, COMPARED_MAX)
        unknown = self._leases.unknown(active)
        if unknown:  # Most have been used up meanwhile, and are closed by the time of the second sighting.
            await self._leases.close_unknown(await control.still_active(self._session, unknown))
        self._compared = active[-1] if len(active) == COMPARED_MAX else FIRST
