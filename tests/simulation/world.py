"""One world: the servers, the processes, the buyers, and what happens to them. First with faults, while nothing may go
wrong that cannot be put right; then without, until all is as it should be.

It promises that the same seed makes the same world. What goes wrong is in `violations`, and ends it.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from gateway.settings import Settings
from tests.simulation.buyers import ON_ITS_WAY_S, Buyer
from tests.simulation.disk import Disk
from tests.simulation.events import HAPPENINGS, OFTEN
from tests.simulation.faults import LEADS, PLAIN, TARGETS, Faults, Theme
from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.mirror import Redis
from tests.simulation.parts import settings_of
from tests.simulation.postgres import Postgres
from tests.simulation.steward import StewardProcess
from tests.simulation.stream import Nats
from tests.simulation.worker import Worker

SPANS_S = (1.5, 1.5, 2.5, 4.0, 7.0)
LONG_S = (1.0, 2.5)  # outages that the journal is for
# Units of a SKU.
SIZES = {"contested": (2, 3, 5), "scarce": (2, 5, 9), "limited": (9, 14), "plenty": (90, 400)}
ANY_SIZE = (2, 5, 9, 14, 30, 90, 400)
LIMITED = {"limited": 1.0, "plenty": 0.0}  # the share of SKUs with a limit
SETTLE_S = 60.0  # of virtual time, until everything has to be as it should be
LOOK_S = 0.2
END_S = 10.0  # for the workers to leave
STEPS_MIN = 200  # of a world; the stewards make them, when all has been settled so soon
LIMIT = 2  # units of LIMITED that a buyer may hold
EXPIRING_SHARE = 0.05  # of the worlds, beside those that are after it: orders are due while the world stands
PAYMENTS_S = (1, 1, 2, 3)
LONG_PAYMENT_S = 1800

Coverage = Counter[tuple[str, str]]


class World:
    """Made from a seed by `run`."""

    def __init__(
        self, seed: int, coverage: Coverage, theme: Theme = PLAIN, *, trace: Callable[[str], None] | None = None
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.draw = self.random.random
        self.coverage = coverage
        self.violations: list[str] = []
        self.loop = VirtualLoop(self.random, shuffled=self.draw() < 0.5)
        target = TARGETS[seed % len(TARGETS)]
        self._theme = theme.plus(LEADS.get(target[1], PLAIN))
        self.traits = self._theme.traits
        self.expires = "expiring" in self.traits or self.draw() < EXPIRING_SHARE
        payment_s = self.random.choice(PAYMENTS_S) if self.expires else LONG_PAYMENT_S
        self.settings: Settings = settings_of(self.random, self.traits, payment_s)
        self.faults = Faults(self.random, coverage, self._theme, target)
        self.faults.befall = self._befall
        self.postgres = Postgres(self)
        self.books = self.postgres.books
        self.books.payment_s = payment_s
        self.redis = Redis(self)
        self.nats = Nats(self)
        self.disk = Disk(self)
        self.workers: list[Worker] = []
        self.stewards: list[StewardProcess] = []
        self.buyers: list[Buyer] = []
        self.limited: set[str] = set()
        self.span_s = self.random.choice(SPANS_S[-2:] if "long" in self.traits else SPANS_S)  # with faults
        self.is_over = False  # the faults are
        self.answers: Counter[str] = Counter()
        self._trace = trace
        self._has_ended = False
        self._all: list[Process] = []
        self._names = itertools.count(1)

    def run(self) -> None:
        """Both phases. Stops at the first violation."""
        with self.loop.running():
            try:
                self._begin()
                self._advance(self.span_s)
                if not self.faults.met:  # Hardly ever: so little happened that no fault has met any of it.
                    self.happen("crash")
                self._heal()
                self._settle("after the faults")
                self._sell_out()
                self._settle("after the last unit")
                self._leave()
            finally:
                self._end()

    def fail(self, what: str) -> None:
        """What must never be."""
        if self._has_ended:
            return
        self.note("VIOLATION", what)
        self.violations.append(what)
        self.loop.halted = True

    def note(self, *what: object) -> None:
        """A line of the trace, for whoever looks at one seed."""
        if self._trace is not None:
            process = PROCESS.get()
            who = process.name if process is not None else ""
            self._trace(f"{self.loop.now:9.4f} {who:9} {' '.join(map(str, what))}")

    def told(self, told: str) -> None:
        """An event is in the stream."""
        if told not in self.books.due:
            self.fail(f"I5: the event {told} is in the stream, of no change that was committed")

    def crash(self, process: Process | None) -> None:
        """All that the process has in memory is gone. Somebody starts another one in its place."""
        if process is None or process.is_dead:
            return
        self.note("crash of", process.name)
        process.is_dead = process.is_paused = True
        process.held.clear()
        self.postgres.died(process)
        self.redis.listeners.pop(process, None)
        self.disk.died(process)
        pause_s = self.random.choice((0.05, 0.5, 1.5))
        self.loop.call_later(pause_s, self._replace, process, context=self.loop.base)

    def stop(self, process: Process | None) -> None:
        """As SIGSTOP does. It goes on after a while, and does not know that it was stopped."""
        if process is None or process.is_paused:
            return
        self.note("stop of", process.name)
        process.is_paused = True
        pause_s = self.random.choice((0.3, 1.0, 3.0, 4.5))
        self.loop.call_later(pause_s, self._continue, process, context=self.loop.base)

    async def crash_here(self) -> None:
        """The process that runs this comes no further."""
        self.crash(PROCESS.get())
        await asyncio.sleep(0)

    async def stop_here(self) -> None:
        self.stop(PROCESS.get())
        await asyncio.sleep(0)

    def pick(self, but: Worker | None = None) -> Worker:
        """A worker for a request: another one than before, if there is one."""
        others = [worker for worker in self.workers if worker is not but] or self.workers
        return others[int(self.draw() * len(others))]

    def _begin(self) -> None:
        for at in range(self.random.choice((2, 2, 3))):
            sku = f"S{at}"
            units = self.random.choice(self._sizes())
            self.books.stock(sku, units, self.random.choice((1, 1, 2, 3)))
        limited = next((share for trait, share in LIMITED.items() if trait in self.traits), 0.3)
        self.limited.update(sku for sku, units in self.books.total.items() if self.draw() < limited and units < 20)
        for _ in range(self.random.choice((2, 2, 2, 3))):
            self.workers.append(self._new_worker())
        for _ in range(self.random.choice((1, 1, 2))):
            self.stewards.append(self._new_steward())
        for at in range(self.random.randrange(12, 32)):
            self._add_buyer(at)
        self._plan()

    def _sizes(self) -> Sequence[int]:
        """How many units of a SKU there may be."""
        return next((sizes for trait, sizes in SIZES.items() if trait in self.traits), ANY_SIZE)

    def _plan(self) -> None:
        """What befalls the world; what its theme has comes while the buyers do."""
        for _ in range(self.random.choice((0, 1, 1, 2, 3))):
            event, at_s = self.random.choice(OFTEN), 0.1 + self.span_s * self.draw()
            self.loop.call_later(at_s, self.happen, event, context=self.loop.base)
        for event in self._theme.events:
            at_s = 0.05 + 0.4 * self.span_s * self.draw()
            self.loop.call_later(at_s, self.happen, event, None, LONG_S, context=self.loop.base)

    def _end(self) -> None:
        """What is still there is taken apart, and nobody has to see it."""
        self._has_ended = True
        self._trace = None
        for process in self._all:
            process.is_dead = process.is_paused = True

    def _new_worker(self) -> Worker:
        worker = Worker(self, f"worker-{next(self._names)}")
        self._all.append(worker.process)
        return worker

    def _new_steward(self) -> StewardProcess:
        steward = StewardProcess(self, f"steward-{next(self._names)}")
        self._all.append(steward.process)
        return steward

    def _add_buyer(self, number: int) -> None:
        """Most want little, of one SKU; some as much as nearly all of it, or of two."""
        skus = sorted(self.books.total)
        wanted = self.random.sample(skus, 2) if self.draw() < 0.2 else [self.random.choice(skus)]
        units = {
            sku: min(self.random.choice((1, 1, 1, 2, 3, 5)), LIMIT if sku in self.limited else 9) for sku in wanted
        }
        customers = 3 if "limited" in self.traits else 8
        customer = f"c{int(self.draw() * customers)}"
        buyer = Buyer(self, f"buyer-{number}", customer, units)
        self.buyers.append(buyer)
        at_s = 0.05 + 0.8 * self.span_s * self.draw() * self.draw()
        self.loop.call_later(at_s, buyer.send, context=self.loop.base)
        if self.draw() < (0.6 if "doubling" in self.traits else 0.15):  # Whoever presses twice.
            self.loop.call_later(at_s + 0.3 * self.draw(), buyer.send, context=self.loop.base)

    def happen(self, event: str, to: Process | None = None, spans_s: Sequence[float] = (*LONG_S, 0.1, 0.5)) -> None:
        """What befalls the world whatever it does just then; `to` this process, or to any."""
        if self.is_over:
            return
        span_s = self.random.choice(spans_s)
        named = [worker for worker in self.workers if worker.process is to]
        journaled = [worker for worker in self.workers if worker.journaling.left and not worker.process.is_dead]
        worker = self.random.choice(named or journaled or self.workers)
        self.note("happens:", event, worker.process.name, span_s)
        for step in worker.under_way():
            self.faults.note(event, step)
        HAPPENINGS[event](self, worker, span_s)

    def _befall(self, event: str, pause_s: float) -> None:
        process = PROCESS.get()
        self.later(pause_s, lambda: self.happen(event, process))

    def later(self, seconds: float, call: Callable[[], Any]) -> None:
        self.loop.call_later(seconds, call, context=self.loop.base)

    def _continue(self, process: Process) -> None:
        if not process.is_dead and process.is_paused:
            self.note("goes on:", process.name)
            self.loop.resume(process)

    def _replace(self, process: Process) -> None:
        for at, worker in enumerate(self.workers):
            if worker.process is process:
                self.workers[at] = self._new_worker()
        for at, steward in enumerate(self.stewards):
            if steward.process is process:
                self.stewards[at] = self._new_steward()

    def _heal(self) -> None:
        """From now on nothing fails any more. Whoever is stopped goes on in his time."""
        self.note("the faults are over")
        self.is_over = True
        self.faults.end()
        self.postgres.is_up = self.redis.is_up = self.nats.is_up = True
        self.postgres.slow = 1.0
        self.books.step(0.0)
        for process in self._processes():
            process.cut_until_s = process.wall_step_s = 0.0

    def _processes(self) -> list[Process]:
        return [worker.process for worker in self.workers] + [steward.process for steward in self.stewards]

    def _advance(self, seconds: float) -> None:
        if not self.violations:
            self.loop.advance(self.loop.now + seconds)

    def _settle(self, when: str) -> None:
        end_s = self.loop.now + SETTLE_S
        while not self.violations and (unsettled := self._unsettled()):
            if self.loop.now > end_s:
                self.fail(f"I2: {when} it does not come to rest: {unsettled}")
            self._advance(LOOK_S)
        if not self.violations:
            self.books.check_all()

    def _unsettled(self) -> str:
        """What is not as it should be; empty when all is."""
        waiting = next((buyer for buyer in self.buyers if not buyer.is_final), None)
        if waiting is not None:
            return f"{waiting.name} has no final answer: {waiting.answers[-3:]}"
        if self.books.outbox:
            return f"{len(self.books.outbox)} batches are in the outbox"
        owners = {worker.leases.owner for worker in self.workers if not worker.process.is_dead}
        if any(lease.owner not in owners for of_sku in self.books.active.values() for lease in of_sku.values()):
            return "leases of the dead are active"
        if any(file.has_records or file.holder is None for file in self.disk.journals):
            return "a journal has records"
        return self._due() or next((busy for worker in self.workers if (busy := worker.busy())), "")

    def _due(self) -> str:
        """What is still to come of orders that expire."""
        books = self.books
        if self.expires and books.waiting:
            return f"{len(books.waiting)} orders wait for their payment, and do not expire"
        is_new = books.returned and self.loop.now - books.returned[-1][0] < ON_ITS_WAY_S
        return "units have just come back, and not everybody knows" if is_new else ""

    def _sell_out(self) -> None:
        """Whatever is left can be bought, to the last unit; then nothing more. Who buys now pays at once."""
        for sku, total in self.books.total.items():
            left, number = total - self.books.held[sku], 0
            most = LIMIT if sku in self.limited else 1 << 30
            while left and number < 300:
                units = min(left, most, 99)
                left, number = left - units, number + 1
                self._buy_last(f"last-{sku}-{number}", {sku: units}, "accepted")
        self._settle("while the last units are sold")
        for sku in self.books.total:
            self._buy_last(f"late-{sku}", {sku: 1}, "sold_out")

    def _buy_last(self, name: str, units: dict[str, int], expected: str) -> None:
        if not self.violations:
            buyer = Buyer(self, name, name, units, expected)
            self.buyers.append(buyer)
            buyer.send()

    def _leave(self) -> None:
        """Everybody goes, and nothing is left behind."""
        for worker in self.workers:
            worker.leave()
        end_s = self.loop.now + END_S
        while not self.violations and (
            self.faults.steps < STEPS_MIN or (self.loop.now < end_s and self._is_something_left())
        ):
            self._advance(LOOK_S)
        if self.violations:
            return
        self.books.check_all()
        for sku, total in self.books.total.items():
            if self.books.free(sku) + self.books.held[sku] != total:
                self.fail(f"I2: units of {sku} are in the hands of nobody who is there")
        if self.nats.stored.keys() != self.books.due:
            self.fail("I5: the stream does not tell what the ledger has")
        if self.disk.set_aside:
            self.fail(f"I3: a journal, or a record of one, was put aside: {self.disk.set_aside}")
        for buyer in self.buyers:
            buyer.check_end()
        self._check_tasks()

    def _is_something_left(self) -> bool:
        """Tasks of the workers, or statements of those who are gone, which may still arrive."""
        return any(one.is_left and one.line for one in self.postgres.backends.values()) or any(
            map(self._tasks_of, self.workers)
        )

    def _tasks_of(self, worker: Worker) -> list[str]:
        return [task.get_name() for task in self.loop.tasks if task.process is worker.process and not task.done()]

    def _check_tasks(self) -> None:
        for worker in self.workers:
            if left := self._tasks_of(worker):
                self.fail(f"{worker.process.name} has left tasks behind: {left}")
        if self.loop.unhandled:
            self.fail(f"nobody handled {self.loop.unhandled[0]}")
