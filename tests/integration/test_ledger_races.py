"""The race for the books: everything that moves units or claims keys at once, with connections cut and killed, and then
an audit that has to be clean.

Four committers share keys and leases; takers, givers, a steward who closes leases, a merchant and a resharder work
beside them; answers are lost, backends are ended. A history kept outside the ledger says what was promised. The choices
are seeded; the interleaving is PostgreSQL's.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import pytest

from persistence.errors import LedgerUnavailableError
from persistence.postgres import control, stock
from persistence.postgres.ledger import AmbiguousError, BatchFencedError, Entry, Refusal
from persistence.postgres.session import Session
from tests.cut_proxy import COMMIT, COPY_DATA, Loss, open_proxy
from tests.ledger_world import Hand, World, draft, key_of, new_id, open_world

SKUS = {"POT": 2, "TEA": 3, "茶": 1}  # with their shards
UNITS = 900  # of each SKU
KEYS = 500  # shared by all committers, so that many of them meet
COMMITTERS = 4
# Of a committer, and as many more, up to BATCHES_MAX, as it takes to meet everything more than MET_MIN times.
BATCHES = 60
BATCHES_MAX = 300
MET_MIN = 5
TRIES = 100
KILL = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = current_database() and (application_name like 'fg-commit:%' or application_name = 'fg-race')
order by random() limit 1
"""
KEYS_HELD = "select key_hash, order_id from idempotency_key"
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"

T = TypeVar("T")


class Race:
    """What all share: the leases they sell from, and the history of what the ledger has promised."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.hands: list[tuple[str, Hand]] = []
        self.promised: dict[bytes, bytes] = {}  # key -> the order that it belongs to
        self.refused: set[bytes] = set()  # orders of which nothing may remain
        self.committing = COMMITTERS
        self.duplicates = self.fenced = self.aborted = self.ambiguous = self.deadlocks = 0

    @property
    def running(self) -> bool:
        return self.committing > 0

    @property
    def met(self) -> int:
        """How often the rarest of what should happen has happened."""
        return min(self.duplicates, self.fenced, self.aborted, self.ambiguous, len(self.promised))

    async def insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """The answer to a call that is safe to ask again, however often its connection is cut."""
        for _ in range(TRIES):
            try:
                return await call()
            except LedgerUnavailableError:
                await asyncio.sleep(0)
        raise AssertionError("no answer")

    def promise(self, entries: list[Entry], refusals: list[Refusal]) -> None:
        """A batch is committed: note who lives, and check that a key never changes its order."""
        verdicts = {refusal.entry.order_id: refusal for refusal in refusals}
        for entry in entries:
            refusal = verdicts.get(entry.order_id)
            if refusal is not None:
                self.refused.add(entry.order_id)
            if refusal is None or refusal.verdict == "duplicate":
                order_id = entry.order_id if refusal is None else refusal.stored_order
                assert self.promised.setdefault(entry.key_hash, order_id) == order_id
        self.duplicates += sum(refusal.verdict == "duplicate" for refusal in refusals)
        self.fenced += sum(refusal.verdict == "fenced" for refusal in refusals)

    def batch(self) -> list[Entry]:
        """Orders with keys that others use too, from leases that others use too; some of them ask for too much."""
        entries = []
        for key in self.random.sample(range(KEYS), self.random.randint(1, 12)):
            hands = self.random.sample(self.hands, min(len(self.hands), self.random.randint(1, 3)))
            parts = [(hand, self.random.choice((1, 1, 2, 9))) for _, hand in hands]
            entries.append(draft(*parts, key=key_of(key), fingerprint=key_of(key)))
        return entries

    async def commit(self) -> None:
        """A committer: its batches one after the other, each until its fate is known."""
        owner = await self.world.owner()
        session = self.world.session("fg-race")
        async with open_proxy(self.world.url) as proxy:
            lane = self.world.ledger(owner, proxy.url, command_timeout_s=1.0)
            for number in range(BATCHES_MAX):
                if number >= BATCHES and self.met > MET_MIN:
                    break
                if self.random.random() < 0.15:
                    trigger = self.random.choice((COMMIT, COMMIT, COPY_DATA))
                    proxy.arm(trigger, self.random.choice((Loss.REPLY, Loss.REQUEST)))
                batch_id, entries = new_id(), self.batch()
                try:
                    self.promise(entries, await lane.commit(batch_id, entries))
                except LedgerUnavailableError as error:
                    self.deadlocks += isinstance(error.__cause__, asyncpg.DeadlockDetectedError)
                    self.aborted += 1
                    self.refused.update(entry.order_id for entry in entries)
                except AmbiguousError as error:
                    self.ambiguous += 1
                    await self.resolve(session, owner, batch_id, entries, error)
                proxy.disarm()
        await session.close()
        self.committing -= 1

    async def resolve(
        self, session: Session, owner: str, batch_id: bytes, entries: list[Entry], error: AmbiguousError
    ) -> None:
        answers = [
            await self.insist(lambda: control.resolve(session, batch_id, error.backend_pid, owner)) for _ in range(2)
        ]
        assert answers[0] == answers[1]
        if answers[0]:
            self.promise(entries, error.refusals)
            return
        self.refused.update(entry.order_id for entry in entries)
        with pytest.raises((BatchFencedError, LedgerUnavailableError, AmbiguousError)):  # It may be cut as well.
            await self.world.ledger(owner).commit(batch_id, [draft()])

    async def take(self) -> None:
        """A taker: several SKUs in one call, asked again under the same lease ids when there is no answer."""
        owner, session = await self.world.owner(), self.world.session("fg-race")
        while self.running:
            skus = self.random.sample(sorted(SKUS), self.random.randint(1, 3))
            wants = [stock.Want(new_id(), sku, self.random.choice((0, 1, 7)), 20) for sku in skus]
            home = self.random.randrange(16)
            for taken in await self.insist(lambda: stock.take(session, owner, home, wants)):  # noqa: B023 - awaited here
                if taken.units:
                    self.hands.append((owner, Hand(taken.lease, taken.sku, taken.units)))
            del self.hands[:-12]
            await asyncio.sleep(0.004)
        await session.close()

    async def give(self) -> None:
        """Somebody gives units back, believing what may have stopped being true."""
        session = self.world.session("fg-race")
        while self.running:
            hands = self.random.sample(self.hands, min(len(self.hands), 2))
            gives = [stock.Give(hand.lease, hand.units, 3) for _, hand in hands]
            await self.insist(lambda: stock.give(session, self.random.randrange(16), gives))  # noqa: B023 - awaited here
            await asyncio.sleep(0.006)
        await session.close()

    async def close(self) -> None:
        """A steward closes leases under the feet of those who sell from them."""
        session = self.world.session("fg-race")
        while self.running:
            owner, hand = self.random.choice(self.hands)
            await self.insist(lambda: stock.close(session, self.random.randrange(16), owner, [hand.lease]))  # noqa: B023 - awaited here
            await asyncio.sleep(0.01)
        await session.close()

    async def trade(self) -> None:
        """The merchant changes totals and the number of shards."""
        while self.running:
            sku = self.random.choice(sorted(SKUS))
            if self.random.random() < 0.5:
                await stock.reshard(self.world.pool, sku, self.random.randint(1, 9))
            else:
                await stock.set_total(
                    self.world.pool, sku, UNITS + self.random.randint(-150, 150), 1, "merchant", None, None
                )
            await asyncio.sleep(0.008)

    async def kill(self) -> None:
        while self.running:
            await asyncio.sleep(self.random.uniform(0.02, 0.06))
            await self.world.value(KILL)


async def run_race(world: World, seed: int) -> Race:
    race = Race(world, seed)
    for sku, shards in SKUS.items():
        await world.stock(sku, UNITS, shards)
        race.hands.append((owner := await world.owner(), await world.take(owner, sku, 50)))
    async with asyncio.TaskGroup() as group:
        for _ in range(COMMITTERS):
            group.create_task(race.commit())
        for work in (race.take, race.take, race.take, race.give, race.close, race.close, race.trade, race.kill):
            group.create_task(work())
    return race


@pytest.mark.parametrize(
    ("seed", "pipelined"),
    [(1, True), (2, True), (3, True), (4, False)],
    ids=["1-pipelined", "2-pipelined", "3-pipelined", "4-stepwise"],
)
async def test_ledger_under_everything_at_once_keeps_every_promise(
    postgres_url: str, seed: int, *, pipelined: bool
) -> None:
    async with open_world(postgres_url, pipelined=pipelined) as world:
        race = await run_race(world, seed)
        await control.bury(world.control, 3600.0)
        held = {row["key_hash"].bytes: row["order_id"].bytes for row in await world.pool.fetch(KEYS_HELD)}
        assert held == race.promised
        assert await world.order_ids() == set(race.promised.values())
        assert not race.refused & set(race.promised.values())
        assert (race.deadlocks, await world.value(DEADLOCKS)) == (0, 0)
        await world.assert_clean()
        assert race.met > MET_MIN


async def test_commit_of_the_same_keys_in_any_order_never_deadlocks(postgres_url: str) -> None:
    async with open_world(postgres_url) as world:
        lanes = [world.ledger() for _ in range(COMMITTERS)]
        choose = random.Random(7)
        for round_number in range(15):
            keys = [key_of(100 * round_number + number) for number in range(100)]
            batches = [[draft(key=key) for key in choose.sample(keys, len(keys))] for _ in lanes]
            answers = await asyncio.gather(
                *(lane.commit(new_id(), batch) for lane, batch in zip(lanes, batches, strict=True))
            )
            assert sum(len(refusals) for refusals in answers) == (COMMITTERS - 1) * len(keys)
        assert await world.value(DEADLOCKS) == 0
        await world.assert_clean()
