"""Shards by rule: spreads the stock of SKUs over as many shards as the live settings say, while orders flow.

A number of shards that was given by command is left alone. Stewards agree because they go by the ledger's version:
before there is one, and while this steward cannot apply the newest, it changes nothing.
"""

import time
from collections.abc import Callable

import structlog

from gateway.live import Live
from persistence.postgres import stock
from persistence.postgres.session import Session

RESHARDED_MAX = 200  # SKUs of one pass; each is a statement of its own, so that orders pass between them
PAGE = 1000  # SKUs of one question
SWEEP_EVERY_S = 60.0  # for SKUs that were set by a worker which knew another version

log = structlog.get_logger("shards")


class Shards:
    """Sweeps over all SKUs, a piece at each pass, whenever another version is in force, and every minute."""

    def __init__(self, session: Session, live: Live, now_s: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._live = live
        self._now_s = now_s
        self._after: str | None = None
        self._version = 0
        self._due_s = 0.0

    async def run_pass(self) -> None:
        """Go on with the sweep, or start one when it is due. Raises LedgerUnavailableError; the next pass then goes on
        where this one stood.
        """
        if self._live.fault or not self._live.version:
            return
        if self._after is None:
            if self._live.version == self._version and self._now_s() < self._due_s:
                return
            self._after, self._version = "", self._live.version
        resharded = await self._go_on(self._after)
        if resharded:
            log.info("stock_resharded", skus=resharded)

    async def _go_on(self, after: str) -> int:
        """Sweep until RESHARDED_MAX SKUs have been spread anew, or to the end. Returns how many have."""
        resharded = 0
        while page := await stock.unfixed_shards(self._session, after, PAGE):
            for sku, shards in page:
                wanted = self._live.shards_of(sku)
                if shards != wanted:
                    resharded += await stock.reshard_by_rule(self._session, sku, wanted)
                after = self._after = sku
                if resharded == RESHARDED_MAX:
                    return resharded
        self._after, self._due_s = None, self._now_s() + SWEEP_EVERY_S
        return resharded
