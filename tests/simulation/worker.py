"""A worker of the gateway: the product's own parts, put together and taken apart as gateway/app.py does it, between the
simulated servers.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from core_ext import stock_table
from core_ext.shapes import Order
from gateway.admission import Admission
from gateway.batch import BatchQueue
from gateway.bell import Bell
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.committer import Committer
from gateway.domain.outcomes import Promise, Refusal
from gateway.draining import Drainer
from gateway.following import Following, Topic
from gateway.heart import Heart
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.lookup import KeyLookup
from gateway.metrics import Counters
from gateway.orders import OrderBook
from gateway.parking import Demand, Parked, Parking, Parts, Short
from gateway.publisher import Publisher
from gateway.sales import Sales
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError
from persistence.postgres import control, stock
from persistence.postgres.connect import UNREACHABLE
from persistence.postgres.ledger import Ledger
from persistence.postgres.session import Session
from tests.simulation.buyers import Try
from tests.simulation.connection import Pool
from tests.simulation.loop import Process
from tests.simulation.mirror import SimulatedMirror
from tests.simulation.parts import COMMAND_S, HASHER, VAULT, products_of
from tests.simulation.stream import SimulatedStream

if TYPE_CHECKING:
    from tests.simulation.world import World

LIMIT = 2


class WatchedParking(Parking):
    """Parking of which it is known whether anybody is overtaken: an order that lacked units of a SKU when a turn began,
    by one that came later and gets some.
    """

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self._lacking: dict[int, set[str]] = {}

    def park(self, demand: Demand, now_s: float, wait_s: float, give_up: Callable[[Parked], None]) -> Parked | None:
        self._world.faults.draw("park")
        return super().park(demand, now_s, wait_s, give_up)

    def serve(self, till: stock_table.StockTable) -> None:
        self._lacking = self.lacking(till)
        super().serve(till)

    def release(self, parked: Parked, result: Parts | Short | Refusal) -> None:
        if isinstance(result, list):
            self.check(parked.number, parked.demand, self._lacking)
        super().release(parked, result)

    def lacking(self, till: stock_table.StockTable) -> dict[int, set[str]]:
        """By the number of each order, the SKUs that it lacks units of."""
        return {parked.number: {sku for sku, _ in till.missing(parked.demand)} for parked in self}

    def check(self, number: int, demand: Demand, lacking: dict[int, set[str]]) -> None:
        """An order is served that came as the `number`th."""
        for before, skus in lacking.items():
            if before < number and any(sku in skus for sku, _ in demand):
                self._world.fail(f"order {number} overtakes order {before}, which is parked for {sorted(skus)}")


class WatchedLeases(Leases):
    """Leases, the same: whoever has just come is behind all who are parked."""

    parking: WatchedParking

    def try_reserve(self, demand: Demand) -> Parts | None:
        lacking = self.parking.lacking(self.till) if len(self.parking) else {}
        parts = super().try_reserve(demand)
        if parts is not None and lacking:
            self.parking.check(1 << 62, demand, lacking)
        return parts


class Book(OrderBook):
    """Orders are looked up as ever; what they look like is no part of the simulation."""

    async def as_created(self, order_ids: Any) -> dict[bytes, Order]:
        try:
            async with self._pool.acquire() as connection:
                found: dict[bytes, Order] = await connection.fetch("select orders", order_ids)
        except UNREACHABLE as error:
            raise LedgerUnavailableError("PostgreSQL did not answer") from error
        return found


class Worker:
    """One process, from its start to its end."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process = Process(name)
        self._is_leaving = False
        self._at: Counter[bytes] = Counter()  # requests that it is at, by key
        self.process.context.run(self._start)

    def receive(self, call: Try) -> None:
        """A request has come. The answer is the buyer's at once, if the process lives to give it."""
        key = call.buyer.key_hash
        call.was_known = key in self.world.books.keys and not self._at[key]
        self._at[key] += 1

        def tell(promise: Promise) -> None:
            self._at[key] -= 1
            if not self.process.is_dead:
                call.is_of_leaving = self._is_leaving
                call.buyer.answered(call, promise.result())

        self.admission.begin(call.request).add_done_callback(tell)

    def leave(self) -> None:
        """Stop as after SIGTERM."""
        if not self._is_leaving and not self.process.is_dead:
            self._is_leaving = True
            self.process.context.run(self.world.loop.create_task, self._stop())

    def _end_soon(self) -> None:
        """Its successor adopts what can be read."""
        world = self.world
        world.loop.call_soon(self.leave, context=world.loop.base)
        world.loop.call_later(4.0, world.crash, self.process, context=world.loop.base)

    def busy(self) -> str:
        """What keeps it from being at rest."""
        promised = sum(lease.promised for lease in self.leases.till.leases())
        busy = {
            "dead or stopped": self.process.is_paused,
            "leaving": self._is_leaving,
            "closed": not self.admission.open and not self._is_leaving,
            "parked": self.leases.parked,
            "queued": len(self.queue),
            "in flight": self.admission.in_flight,
            "backlog": self.publisher.backlog,
            "journaled": self.journaling.left,
            "promised": promised,
        }
        found = {name: what for name, what in busy.items() if what}
        return f"{self.process.name} has {found}" if found else ""

    def under_way(self) -> list[str]:
        """The steps that it is at, for the coverage of what happens to it then."""
        steps = {
            "parked": self.leases.parked,
            "taking": self.leases._asked,
            "committing": self.committer._under_way,
            "publishing": self.publisher.backlog,
            "journaled": self.journaling.left,
        }
        return [name for name, what in steps.items() if what] or ["idle"]

    def _start(self) -> None:
        world, settings = self.world, self.world.settings
        sessions = {
            name: Session("", f"fg-{name}", COMMAND_S) for name in ("control", "stock", "bell", "keys", "follow")
        }
        self._sessions = sessions
        pool: Any = Pool(world.postgres, COMMAND_S)
        clock, catalogue, counters = Clock(), Catalogue(), Counters()
        self.tasks = Tasks()
        catalogue.revision = 0
        catalogue.products = products_of(list(world.books.total), world.limited, LIMIT)
        self.queue = BatchQueue(settings.batch)
        book, live = Book(pool, sessions["keys"], VAULT), Live(settings)
        self.live = live
        self.bell = Bell(sessions["bell"], SimulatedMirror(world.redis))
        self.leases = WatchedLeases(sessions["stock"], clock, live, self.bell, counters)
        self.leases.parking = WatchedParking(world)
        sales = Sales(sessions["follow"], clock, catalogue, self.leases)
        sales.revision = 0
        self.journaling = Journaling(settings.journal, live, clock, counters)
        self.leases.pins = self.journaling.pins
        self.journaling.on_poisoned = self._end_soon
        lookup = KeyLookup(book.keys)
        self.admission = Admission(
            settings,
            clock,
            catalogue,
            self.leases,
            self.queue,
            book,
            lookup,
            VAULT,
            HASHER,
            self.tasks,
            sales,
            self.journaling,
        )
        self.publisher = Publisher(SimulatedStream(world.nats, "publish"), pool, counters)
        self.committer = Committer(
            _open_ledger,
            sessions["control"],
            self.queue,
            self.leases,
            self.admission,
            self.publisher,
            clock,
            self.tasks,
            counters,
            settings.orders.reply_ms_max / 1000,
            self.journaling,
        )
        heart = Heart(sessions["control"], clock, self.leases, settings.owner.heartbeat_ms / 1000, self.journaling)
        drainer = Drainer(
            self.journaling,
            _open_ledger,
            sessions["control"],
            self.leases,
            clock,
            counters,
            7,
            lambda: self.admission.open,
        )
        following = Following(sessions["follow"], [Topic(stock.BELL, self.bell.load)])
        self._start_loops(heart, drainer, following, lookup)

    def _start_loops(self, heart: Heart, drainer: Drainer, following: Following, lookup: KeyLookup) -> None:
        self._beating = self.tasks.loop("heart", heart.run)
        self._draining = self.tasks.loop("drain", drainer.run)
        self.tasks.loop("following", following.run)
        self.tasks.loop("lookup", lookup.run)
        self.tasks.loop("bell", self.bell.run)
        self.tasks.loop("listening", self.bell.listen)
        self._leasing = self.tasks.loop("leases", self.leases.run)
        self._committing = self.tasks.loop("committer", self.committer.run)
        self.tasks.loop("watch", self.committer.watch)
        self._publishing = self.tasks.loop("publisher", self.publisher.run)

    async def _stop(self) -> None:
        self.world.note("leaves")
        self.admission.draining = True
        self.leases.close()
        self.queue.close()
        await asyncio.wait([self._committing], timeout=3.0)
        await asyncio.wait([self._leasing], timeout=1.0)
        await self._give_up()
        self.publisher.close()
        await asyncio.wait([self._publishing], timeout=1.0)
        await self.tasks.close(wait_s=1.0)
        for session in self._sessions.values():
            await session.close()

    async def _give_up(self) -> None:
        self._beating.cancel()
        self._draining.cancel()
        await asyncio.wait([self._draining], timeout=1.0)
        left = not self.journaling.is_empty
        try:
            if not left:
                await control.leave(self._sessions["control"], self.leases.owner, self.leases.home)
        except LedgerUnavailableError:
            left = True
        await self.journaling.close(remove=not left)


def _open_ledger(owner: str) -> Ledger:
    return Ledger("", owner, COMMAND_S)
