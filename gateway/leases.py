"""Stock in the hand of this worker: refills the till ahead of need, and lets orders wait that the till cannot serve
(parked).

A parked order holds nothing and has a deadline; those of a SKU are served in order of arrival, and nobody who comes
later overtakes them. *Sold out* is said only of a quantity that free units and units in anybody's hands cannot cover,
as the ledger has just counted them under its locks.
"""

import asyncio
import contextlib
import os
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence

import structlog
from msgspec import Struct

from core_ext import ids, stock_table
from gateway.clock import Clock
from gateway.domain.outcomes import Refusal
from gateway.settings import Stock
from persistence.errors import LedgerUnavailableError, OwnerNotAliveError
from persistence.postgres import stock
from persistence.postgres.session import Session

Demand = list[tuple[str, int]]
Parts = list[tuple[bytes, int]]

PARKED_MAX = 10_000  # orders that may wait for stock in one worker
BOUND_S = 1.0  # how long "free + outstanding" of a SKU is believed after the ledger said it
SIZE_MIN = 16  # units of the first refill of a SKU; the ledger grants no less while it has plenty
RETRY_MIN_S = 0.005  # between two takes of units that are in somebody's hands
RETRY_MAX_S = 0.1
GIVE_TRIES = 3

log = structlog.get_logger("leases")


class Short(Struct):
    """An order asks for more than exists: the SKUs, each with the units that do exist."""

    available: list[tuple[str, int]]


class Parked(Struct, eq=False):
    """An order that waits for stock. The future gives its parts of leases, or why it gets none."""

    demand: Demand
    result: asyncio.Future[Parts | Short | Refusal]
    deadline: asyncio.TimerHandle | None = None


class Refill(Struct):
    """How much of a SKU one refill asks for, and when the last one was."""

    size: int = SIZE_MIN
    at: float = 0.0


class Leases:
    """The till and its refills, for one owner. After `renew` the owner is another one and the till empty."""

    def __init__(self, session: Session, clock: Clock, settings: Stock) -> None:
        self.till = stock_table.StockTable()
        self.owner = str(uuid.uuid4())
        self.home = int.from_bytes(os.urandom(2), "big")
        self.takes = 0
        self._session = session
        self._clock = clock
        self._settings = settings
        self._asked: dict[bytes, stock.Want] = {}
        self._asked_at = 0.0
        self._parked: dict[int, Parked] = {}
        self._parked_skus: Counter[str] = Counter()
        self._bounds: dict[str, tuple[int, float]] = {}
        self._refills: dict[str, Refill] = {}
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def parked(self) -> int:
        return len(self._parked)

    def renew(self) -> None:
        """The owner has been declared dead: forget what it held, and go on as a new one."""
        self.till.clear()
        self._asked.clear()
        self.owner = str(uuid.uuid4())

    def try_reserve(self, demand: Demand) -> Parts | None:
        """The parts of leases that serve `demand`, at once, or None. Nobody is served who would overtake a parked
        order.
        """
        if self._parked_skus and any(sku in self._parked_skus for sku, _ in demand):
            return None
        parts = self.till.try_reserve(demand)
        if parts is None or self.till.thirsty:
            self._wake.set()
        return parts

    def short(self, demand: Demand) -> Short | None:
        """Whether the ledger has said within the last second that fewer units exist than `demand` asks for."""
        if not self._bounds:
            return None
        now = self._clock.now_s()
        bounds = ((sku, units, self._bounds.get(sku)) for sku, units in demand)
        available = [
            (sku, bound[0]) for sku, units, bound in bounds if bound is not None and units > bound[0] and now < bound[1]
        ]
        return Short(available) if available else None

    def park(self, demand: Demand) -> Parked | None:
        """Let an order wait for stock, at most `park_ms_max`. None when too many wait already, or after `close`."""
        if self._closed or len(self._parked) >= PARKED_MAX:
            return None
        loop = asyncio.get_running_loop()
        parked = Parked(demand, loop.create_future())
        parked.deadline = loop.call_later(self._settings.park_ms_max / 1000, self._give_up, parked)
        self._parked[id(parked)] = parked
        self._parked_skus.update(sku for sku, _ in demand)
        self._wake.set()
        return parked

    def returned(self) -> None:
        """Units have come back to the till, or left it for good: somebody who waits may be served, or told."""
        if self._parked:
            self._wake.set()

    def restocked(self, sku: str) -> None:
        """The merchant has set a new total: what the ledger said before about how many units exist is void."""
        self._bounds.pop(sku, None)
        self._wake.set()

    async def run(self) -> None:
        """Serve the parked and refill the till until `close`."""
        pause = RETRY_MIN_S
        while not self._closed:
            self._wake.clear()
            self._serve()
            wants = self._wants()
            if wants and await self._take(wants):
                pause = RETRY_MIN_S
                continue
            if not self._wake.is_set():
                await self._pause(pause if self._parked or self._asked else None)
                pause = min(2 * pause, RETRY_MAX_S)

    def close(self) -> None:
        """No more refills: who waits for stock is told to come back, and `run` ends."""
        self._closed = True
        for parked in list(self._parked.values()):
            self._unpark(parked, Refusal("ledger_away"))
        self._wake.set()

    async def give_back(self, sku: str) -> None:
        """Give every unsold and unpromised unit of a SKU back to the ledger. Raises LedgerUnavailableError; leases in
        doubt leave the till.
        """
        gives = [stock.Give(lease, before, units) for lease, before, units in self.till.try_give(sku, 1 << 62)]
        if not gives:
            return
        for attempt in range(GIVE_TRIES):
            try:
                given = await stock.give(self._session, self.home, gives)
            except LedgerUnavailableError:
                if attempt == GIVE_TRIES - 1:
                    self.drop([give.lease for give in gives])
                    raise
                continue
            self.drop([give.lease for give in gives if give.lease not in given])
            return

    def drop(self, leases: Iterable[bytes]) -> None:
        """These leases are not ours any more, or in doubt. The heartbeat closes what the ledger counts as ours."""
        for lease in leases:
            self.till.drop(lease)

    def known(self) -> set[bytes]:
        """The leases in the till. One that is being asked for is not known yet: it may be granted at any moment."""
        return {view.lease for view in self.till.leases()}

    async def reconcile(self, known_before: set[bytes], active: set[bytes]) -> None:
        """Bring till and ledger together: `active` are our leases in the ledger, read after `known_before` was."""
        self.drop(known_before - active)
        strays = active - self.known() - known_before - self._asked.keys()
        if strays:
            # Most are used up by now and closed in the ledger, too; then nothing comes back, and nothing is said.
            units = await stock.close(self._session, self.home, self.owner, sorted(strays))
            if units:
                log.warning("stray_leases_closed", leases=len(strays), units=units)

    async def replace(self, leases: Sequence[bytes]) -> None:
        """Close leases from which the ledger refused to sell, so that their units can be taken again."""
        self.drop(leases)
        await stock.close(self._session, self.home, self.owner, sorted(set(leases)))

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _serve(self) -> None:
        """Serve the parked in order of arrival. One that stays short keeps those behind it from what it lacks."""
        if not self._parked:
            return
        short: set[str] = set()
        for parked in list(self._parked.values()):
            if any(sku in short for sku, _ in parked.demand):
                continue
            parts = self.till.try_reserve(parked.demand)
            if parts is None:
                short.update(sku for sku, _ in self.till.missing(parked.demand))
            else:
                self._unpark(parked, parts)

    def _wants(self) -> list[stock.Want]:
        """What to ask for: takes that were not answered, the needs of those who wait, refills ahead of need."""
        if self._asked:
            return list(self._asked.values())
        needs: dict[str, int] = {}
        waiting: Counter[str] = Counter()
        for parked in self._parked.values():
            for sku, units in self.till.missing(parked.demand):
                needs.setdefault(sku, units)
                waiting[sku] += units
        for sku in self.till.take_thirsty():
            needs.setdefault(sku, 0)
        return [self._want(sku, units, waiting[sku]) for sku, units in needs.items()]

    def _want(self, sku: str, units: int, waiting: int) -> stock.Want:
        refill = self._refills.setdefault(sku, Refill())
        now = self._clock.now_s()
        ahead = self._settings.lease_ahead_ms / 1000
        if now - refill.at < ahead:
            refill.size = min(2 * refill.size, self._settings.lease_units_max)
        elif now - refill.at > 10 * ahead:
            refill.size = max(refill.size // 2, SIZE_MIN)
        refill.at = now
        convenient = min(max(refill.size, waiting), max(self._settings.lease_units_max, SIZE_MIN))
        lease = ids.new_id(self._clock.now_ms())
        return stock.Want(lease, sku, units, max(units, convenient))

    async def _take(self, wants: list[stock.Want]) -> bool:
        """Ask the ledger. True when anything was granted."""
        owner = self.owner
        if not self._asked:
            self._asked_at = self._clock.now_s()
        self._asked = {want.lease: want for want in wants}
        self.takes += len(wants)
        try:
            answers = await stock.take(self._session, owner, self.home, wants)
        except LedgerUnavailableError:
            return False  # Asked again, with the same lease ids.
        except OwnerNotAliveError:
            self._asked.clear()  # The heartbeat finds out too, and renews the owner.
            return False
        if owner != self.owner:
            return False
        self._asked.clear()
        for answer in answers:
            self._received(answer)
        return any(answer.units for answer in answers)

    def _received(self, answer: stock.Taken) -> None:
        plenty = answer.free is None
        if answer.units:
            self.till.add(answer.sku, answer.lease, answer.units)
            self._bounds.pop(answer.sku, None)
        self.till.set_low_mark(answer.sku, answer.units // 2 if plenty else 0)
        if not answer.units and answer.free is not None and answer.outstanding is not None:
            self._short(answer.sku, answer.free + answer.outstanding)

    def _short(self, sku: str, bound: int) -> None:
        """Nothing was granted: whoever wants more than exists is told so; the others wait for what is in somebody's
        hands.
        """
        self._bounds[sku] = (bound, self._clock.now_s() + BOUND_S)
        for parked in list(self._parked.values()):
            if any(wanted == sku and units > bound for wanted, units in parked.demand):
                self._unpark(parked, Short([(sku, bound)]))

    def _give_up(self, parked: Parked) -> None:
        # A take is nearly always under way while somebody waits; one without an answer for long is something else.
        away = bool(self._asked) and self._clock.now_s() - self._asked_at >= RETRY_MAX_S
        self._unpark(
            parked, Refusal("ledger_away") if away else Refusal("stock_returning", "the units are in other hands")
        )

    def _unpark(self, parked: Parked, result: Parts | Short | Refusal) -> None:
        if self._parked.pop(id(parked), None) is None:
            return
        assert parked.deadline is not None
        parked.deadline.cancel()
        for sku, _ in parked.demand:
            self._parked_skus[sku] -= 1
            if not self._parked_skus[sku]:
                del self._parked_skus[sku]
        parked.result.set_result(result)
