"""Stock in the hand of this worker: refills the till ahead of need, finds units for the orders that wait, and gives
back what others call for.

*Sold out* is said only of a quantity that free units and units in anybody's hands cannot cover, as the ledger has just
counted them under its locks. What the mirror says spares a question, and never answers one.
"""

import asyncio
import contextlib
import itertools
import os
import uuid
from collections.abc import Callable, Iterable, Sequence

import structlog
from msgspec import Struct

from core_ext import ids, stock_table
from gateway.bell import Bell
from gateway.clock import Clock
from gateway.domain.outcomes import Refusal
from gateway.live import Live
from gateway.metrics import Counters
from gateway.parking import Demand, Parked, Parking, Parts, Short
from gateway.pinch import Pinch
from persistence.errors import LedgerUnavailableError, OwnerNotAliveError
from persistence.postgres import stock
from persistence.postgres.session import Session
from persistence.redis.mirror import Ring

BOUND_S = 1.0  # how long "free + outstanding" of a SKU is believed after the ledger said it
SIZE_MIN = 16  # units of the first refill of a SKU; the ledger grants no less while it has plenty
RETRY_MIN_S = 0.005  # between two takes of units that are in somebody's hands
RETRY_MAX_S = 0.1
# A take that was refused is not repeated for so long while the mirror shows too few free units. Those who wait have to
# learn in time, too, that what was in other hands is sold: of that the mirror says nothing.
SHIELD_S = 0.05
# Who has waited this long calls by way of the ledger, and again after as long: the mirror may be deaf on either side.
LEDGER_CALL_S = 0.2
GIVE_TRIES = 3
# Who would take units away that workers hold calls them back so often, and waits so long each time: workers that are
# deaf to the mirror hear of it by way of the ledger.
RECALL_WAITS_S = (0.0, 0.02, 0.1, 0.3, 0.5)
WANTS_MAX = 256  # SKUs of one take, save for an order that has more

log = structlog.get_logger("leases")


class Refill(Struct):
    """How much of a SKU one refill asks for, and when the last one was."""

    size: int = SIZE_MIN
    at: float = 0.0


class Leases:
    """The till and its refills, for one owner. After `renew` the owner is another one and the till empty."""

    def __init__(self, session: Session, clock: Clock, live: Live, bell: Bell, counters: Counters) -> None:
        self.till = stock_table.StockTable()
        self.owner = str(uuid.uuid4())
        self.home = int.from_bytes(os.urandom(2), "big")
        self.takes = 0
        self.parking = Parking()
        self.pinch = Pinch()
        self._session = session
        self._clock = clock
        self._live = live
        self._bell = bell
        self._counters = counters
        self._asked: dict[bytes, stock.Want] = {}
        self._asked_at = 0.0
        self._bounds: dict[str, tuple[int, float]] = {}
        self._refused_at: dict[str, float] = {}
        self._refills: dict[str, Refill] = {}
        self._called: dict[str, None] = {}
        self._called_by_ledger_at = 0.0
        self._ahead: dict[str, None] = {}
        self._thirsty: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._closed = False
        self.away = False  # the ledger is: nothing goes back, since nobody would know whether it has
        self.pins: Callable[[bytes], bool] = lambda _: False  # leases that nobody may close
        bell.attach(self.heard)

    @property
    def parked(self) -> int:
        return len(self.parking)

    def renew(self) -> None:
        """The owner has been declared dead: forget what it held, and go on as a new one."""
        self.till.clear()
        self._asked.clear()
        self.owner = str(uuid.uuid4())

    def try_reserve(self, demand: Demand) -> Parts | None:
        """The parts of leases that serve `demand`, at once; None when the order is `short`, or has to `park`. Nobody is
        served who would overtake a parked order.
        """
        if self.parking.holds_back(demand):
            return None
        parts = self.till.try_reserve(demand)
        if self.till.thirsty:
            self._wake.set()
        return parts

    def short(self, demand: Demand) -> Short | None:
        """Whether the ledger has said within the last second that fewer units exist than `demand` asks for."""
        if not self._bounds:
            return None
        now = self._clock.steady_s()
        bounds = ((sku, units, self._bounds.get(sku)) for sku, units in demand)
        available = [
            (sku, bound[0]) for sku, units, bound in bounds if bound is not None and units > bound[0] and now < bound[1]
        ]
        for sku, _ in available:
            self.pinch.refused(sku)
        return Short(available) if available else None

    def park(self, demand: Demand) -> Parked | None:
        """Let an order wait for stock, at most `park_ms_max`. None when too many wait already, or after `close`."""
        if self._closed:
            return None
        wait_s = self._live.stock.park_ms_max / 1000
        parked = self.parking.park(demand, self._clock.steady_s(), wait_s, self._give_up)
        # Whoever only stands behind others changes nothing for now.
        if parked is not None and (
            any(self.parking.skus[sku] == 1 for sku, _ in demand) or not self.till.missing(demand)
        ):
            self._wake.set()
        return parked

    def returned(self) -> None:
        """Units have come back to the till, or left it for good: somebody who waits may be served, or told."""
        if len(self.parking):
            self._wake.set()

    def restocked(self, sku: str) -> None:
        """The merchant has set a new total: what was said before about how many units exist is void, everywhere."""
        self._came_back(sku)
        self._bell.freed(sku)

    def stock_up(self, keys: Iterable[str]) -> None:
        """Ask for units ahead of the first order, of SKUs that the till has none of."""
        self._ahead.update((key, None) for key in keys if not self.till.free(key))
        if self._ahead:
            self._wake.set()

    def heard(self, ring: Ring) -> None:
        """Somebody calls for units, or some have become free."""
        if ring.kind == "freed":
            self._came_back(ring.sku)
        elif self.till.free(ring.sku):
            self._called[ring.sku] = None
            self._wake.set()

    async def run(self) -> None:
        """Serve the parked and refill the till until `close`."""
        pause = RETRY_MIN_S
        while not self._closed:
            self._wake.clear()
            await self._answer_calls()
            self.parking.serve(self.till)
            wants = await self._worth_asking(self._wants())
            granted = bool(wants) and not self._closed and await self._take(wants)
            self.parking.serve(self.till)  # Before anybody's call is answered: what was granted is promised.
            await self._call_by_ledger()
            if granted:
                pause = RETRY_MIN_S
            elif not self._wake.is_set():
                await self._pause(pause if len(self.parking) or self._asked else None)
                pause = min(2 * pause, RETRY_MAX_S)

    def close(self) -> None:
        """No more refills: who waits for stock is told to come back, and `run` ends."""
        self._closed = True
        for parked in self.parking:
            self.parking.release(parked, Refusal("ledger_away"))
        self._wake.set()

    async def give_back(self, sku: str) -> None:
        """Give every unsold and unpromised unit of a SKU back to the ledger. Raises LedgerUnavailableError; leases in
        doubt leave the till.
        """
        if self.away:
            raise LedgerUnavailableError("the ledger is away")
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
            await self._say_freed([sku])
            return

    async def recall(self, sku: str) -> None:
        """Have all workers give back what they have not promised of a SKU. Raises LedgerUnavailableError."""
        await self.give_back(sku)
        self._bell.call(sku)
        await self._bell.call_by_ledger([sku])

    def drop(self, leases: Iterable[bytes]) -> None:
        """These leases are not ours any more, or in doubt. The heartbeat closes what the ledger counts as ours."""
        for lease in leases:
            self.till.drop(lease)

    def unknown(self, leases: Iterable[bytes]) -> list[bytes]:
        """Those that the till does not hold. One that is being asked for is none of them: it may be granted at any
        moment. Nor is one of which the journal has units.
        """
        return [
            lease
            for lease in leases
            if lease not in self._asked and not self.till.holds(lease) and not self.pins(lease)
        ]

    async def close_unknown(self, active: Iterable[bytes]) -> None:
        """Close what the till does not hold of these leases of ours. The ledger has been asked whether they are active
        since they were first found unknown.
        """
        strays = self.unknown(sorted(active))
        if strays:
            units = await stock.close(self._session, self.home, self.owner, strays)
            if units:
                log.warning("stray_leases_closed", leases=len(strays), units=units)

    async def replace(self, leases: Sequence[bytes]) -> None:
        """Close leases from which the ledger refused to sell, so that their units can be taken again."""
        self.drop(leases)
        closed = [lease for lease in sorted(set(leases)) if not self.pins(lease)]
        await stock.close(self._session, self.home, self.owner, closed)

    async def _pause(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # Not wait_for: before Python 3.12 it may swallow a cancellation.
                await self._wake.wait()

    def _came_back(self, sku: str) -> None:
        self._bounds.pop(sku, None)
        self._refused_at.pop(sku, None)
        if sku in self.parking.skus:
            self._wake.set()

    async def _answer_calls(self) -> None:
        """Give back what others have called for. What somebody waits for here as well goes back all the same: two who
        each hold a part of what both need would wait for ever.
        """
        called, self._called = self._called, {}
        for sku in called:
            with contextlib.suppress(LedgerUnavailableError):
                await self.give_back(sku)

    async def _say_freed(self, skus: Sequence[str]) -> None:
        """Units of these SKUs are free again: the mirror is told how many, and those who wait that it is so."""
        with contextlib.suppress(LedgerUnavailableError):
            self._bell.push(await self._session.run(lambda connection: stock.shards(connection, skus)))
        for sku in skus:
            self._bell.freed(sku)

    def _wants(self) -> list[stock.Want]:
        """What to ask for: takes that were not answered, the needs of those who wait, refills ahead of need. An order
        asks for all that it lacks, or for nothing while an earlier one lacks some of the same.
        """
        if self._asked:
            return list(self._asked.values())
        needs: dict[str, tuple[int, int]] = {}
        claimed: set[str] = set()
        for parked in self.parking.walk(claimed):
            if len(needs) >= WANTS_MAX:
                break
            missing = self.till.missing(parked.demand)
            if not any(sku in claimed for sku, _ in missing):
                needs |= {sku: (units, parked.number) for sku, units in missing}
            claimed.update(sku for sku, _ in missing)
        self._thirsty.update((sku, None) for sku in self.till.take_thirsty())
        ahead = (sku for sku in itertools.chain(self._thirsty, self._ahead) if sku not in claimed)
        needs |= dict.fromkeys(itertools.islice(ahead, max(WANTS_MAX - len(needs), 0)), (0, 0))
        return [self._want(sku, units, order) for sku, (units, order) in needs.items()]

    def _want(self, sku: str, units: int, order: int) -> stock.Want:
        refill = self._refills.setdefault(sku, Refill())
        now, settings = self._clock.steady_s(), self._live.stock
        ahead = settings.lease_ahead_ms / 1000
        if sku in self._ahead:
            refill.size = settings.lease_units_max
        elif now - refill.at < ahead:
            refill.size = min(2 * refill.size, settings.lease_units_max)
        elif now - refill.at > 10 * ahead:
            refill.size = max(refill.size // 2, SIZE_MIN)
        refill.at = now
        waiting = self.parking.units[sku] - self.till.free(sku)
        convenient = min(max(refill.size, waiting), max(settings.lease_units_max, SIZE_MIN))
        lease = ids.new_id(self._clock.now_ms())
        return stock.Want(lease, sku, units, max(units, convenient), order)

    async def _worth_asking(self, wants: list[stock.Want]) -> list[stock.Want]:
        """Leave out the orders of which the ledger has refused a part a moment ago, and the mirror shows no more."""
        now = self._clock.steady_s()
        fresh = {want.sku for want in wants if now - self._refused_at.get(want.sku, 0.0) < SHIELD_S}
        if not fresh or self._asked:
            return wants
        free = await self._bell.free(sorted(fresh), self._clock.now_ms())
        hopeless = {
            want.order
            for want in wants
            if want.order and want.sku in fresh and free.get(want.sku, want.units_min) < want.units_min
        }
        return [want for want in wants if want.order not in hopeless]

    async def _take(self, wants: list[stock.Want]) -> bool:
        """Ask the ledger. True when anything was granted."""
        owner = self.owner
        for want in wants:
            self._ahead.pop(want.sku, None)
            self._thirsty.pop(want.sku, None)
        if not self._asked:
            self._asked_at = self._clock.steady_s()
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
        self._counters.lease_refill_seconds.observe(self._clock.steady_s() - self._asked_at)
        needs = {want.lease: want.units_min for want in wants}
        for answer in answers:
            self._received(answer, needs[answer.lease])
        return any(answer.units for answer in answers)

    def _received(self, answer: stock.Taken, needed: int) -> None:
        plenty = answer.free is None
        if answer.units:
            self.till.add(answer.sku, answer.lease, answer.units)
            self._bounds.pop(answer.sku, None)
            self._refused_at.pop(answer.sku, None)
            self.pinch.refilled(answer.sku)
        self.till.set_low_mark(answer.sku, answer.units // 2 if plenty else 0)
        self._bell.push(answer.shards)
        # A SKU of which enough is free was refused for another one that the order lacks.
        if not answer.units and answer.free is not None and answer.free < needed and answer.outstanding is not None:
            self._short(answer.sku, answer.free, answer.outstanding)

    def _short(self, sku: str, free: int, outstanding: int) -> None:
        """Nothing was granted: whoever wants more than exists is told so; the others wait for what is in somebody's
        hands.
        """
        now = self._clock.steady_s()
        self._bounds[sku] = (free + outstanding, now + BOUND_S)
        self._refused_at[sku] = now
        for _ in range(self.parking.refuse_short(sku, free + outstanding)):
            self.pinch.refused(sku)
        if sku in self.parking.skus and outstanding:
            self._bell.call(sku)

    async def _call_by_ledger(self) -> None:
        """Call for what somebody has long waited for by the way that nobody can be deaf to."""
        now = self._clock.steady_s()
        if now - self._called_by_ledger_at < LEDGER_CALL_S:
            return
        late = {
            sku
            for sku, head in self.parking.heads().items()
            if now - head.since_s >= LEDGER_CALL_S
            and any(sku == lacking for lacking, _ in self.till.missing(head.demand))
        }
        if late:
            self._called_by_ledger_at = now
            await self._bell.call_by_ledger(sorted(late))

    def _give_up(self, parked: Parked) -> None:
        # A take is nearly always under way while somebody waits; one without an answer for long is something else.
        away = bool(self._asked) and self._clock.steady_s() - self._asked_at >= RETRY_MAX_S
        self.parking.release(
            parked, Refusal("ledger_away") if away else Refusal("stock_returning", "the units are in other hands")
        )
