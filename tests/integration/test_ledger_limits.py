"""Limits per buyer: no customer ever holds more units of a SKU in live orders than he may, whoever commits what at
once, and a refused order leaves nothing behind.
"""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from persistence.postgres.ledger import Entry, Limit, Refusal
from tests.ledger_world import Hand, World, draft, key_of, new_id, open_world

NOBODY = Hand(b"\x01" * 16, "TEA", 5)  # a lease that no ledger knows
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


@pytest.fixture(params=[True, False], ids=["pipelined", "stepwise"])
async def world(postgres_url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Once for each way that a batch can go."""
    async with open_world(postgres_url, pipelined=request.param) as world:
        yield world
        await world.assert_clean()


def verdicts(refusals: list[Refusal]) -> dict[bytes, str]:
    return {refusal.entry.order_id: refusal.verdict for refusal in refusals}


async def test_commit_within_the_limit_counts_the_units(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    assert await ledger.commit(new_id(), [draft((hand, 1), customer="u-1", limit=3)]) == []
    assert await ledger.commit(new_id(), [draft((hand, 2), customer="u-1", limit=3)]) == []
    assert await world.taken() == {("TEA", "u-1"): 3}


async def test_commit_beyond_the_limit_is_refused_with_what_the_buyer_holds(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    await ledger.commit(new_id(), [draft((hand, 2), customer="u-1", limit=3)])
    over = draft((hand, 2), customer="u-1", limit=3)
    assert await ledger.commit(new_id(), [over]) == [Refusal(over, "limit", b"", b"", (("TEA", 2),))]


async def test_commit_beyond_the_limit_leaves_nothing_of_the_order(world: World) -> None:
    hand = await world.hand()
    await world.ledger().commit(new_id(), [draft((hand, 4), customer="u-1", limit=3, personal=b"sealed")])
    tables = await world.tables()
    assert tables == dict.fromkeys(tables, 0) | {"batch": 1}
    assert await world.lease(hand) == (10, 0, "active")
    assert set((await world.taken()).values()) <= {0}


async def test_commit_beyond_one_of_two_limits_names_that_one_and_counts_neither(world: World) -> None:
    one, other = await world.hand("A"), await world.hand("B")
    over = draft((one, 1), (other, 3), customer="u-1", limit=2)
    (refusal,) = await world.ledger().commit(new_id(), [over])
    assert (refusal.verdict, refusal.taken) == ("limit", (("B", 0),))
    assert set((await world.taken()).values()) <= {0}


async def test_commit_of_lines_of_one_sku_counts_their_sum(world: World) -> None:
    hand = await world.hand()
    over = draft((hand, 2), (hand, 2), customer="u-1", limit=3)
    assert verdicts(await world.ledger().commit(new_id(), [over])) == {over.order_id: "limit"}


async def test_commit_of_another_customer_or_sku_has_a_limit_of_its_own(world: World) -> None:
    tea, pot = await world.hand("TEA"), await world.hand("POT")
    orders = [draft((hand, 2), customer=customer, limit=2) for hand in (tea, pot) for customer in ("u-1", "u-2", "用")]
    assert await world.ledger().commit(new_id(), orders) == []
    assert sorted((await world.taken()).values()) == [2] * 6


async def test_commit_under_a_lowered_limit_refuses_who_holds_more_already(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    await ledger.commit(new_id(), [draft((hand, 5), customer="u-1", limit=5)])
    over = draft((hand, 1), customer="u-1", limit=2)
    assert verdicts(await ledger.commit(new_id(), [over])) == {over.order_id: "limit"}
    assert await ledger.commit(new_id(), [draft((hand, 1), customer="u-1", limit=6)]) == []


async def test_commit_of_a_known_key_is_a_duplicate_although_the_limit_is_reached(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    first = draft((hand, 2), key=key_of(1), customer="u-1", limit=2)
    await ledger.commit(new_id(), [first])
    again = draft((hand, 2), key=key_of(1), customer="u-1", limit=2)
    (refusal,) = await ledger.commit(new_id(), [again])
    assert (refusal.verdict, refusal.stored_order) == ("duplicate", first.order_id)
    assert await world.taken() == {("TEA", "u-1"): 2}


async def test_commit_with_every_verdict_tells_them_apart(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    await ledger.commit(new_id(), [draft((hand, 1), key=key_of(1), customer="old", limit=1)])
    orders = {
        "duplicate": draft((hand, 1), key=key_of(1), customer="old", limit=9),
        "limit": draft((hand, 3), customer="greedy", limit=2),
        "fenced": draft((NOBODY, 1), customer="unlucky", limit=2),
        "new": draft((hand, 2), customer="new", limit=2),
        "free": draft((hand, 4)),
    }
    found = verdicts(await ledger.commit(new_id(), list(orders.values())))
    assert {name: found.get(order.order_id) for name, order in orders.items()} == {
        "duplicate": "duplicate",
        "limit": "limit",
        "fenced": "fenced",
        "new": None,
        "free": None,
    }
    assert {buyer: units for buyer, units in (await world.taken()).items() if units} == {
        ("TEA", "old"): 1,
        ("TEA", "new"): 2,
    }
    assert await world.lease(hand) == (10, 7, "active")


async def test_commit_of_a_buyer_twice_in_one_batch_is_a_bug(world: World) -> None:
    hand = await world.hand()
    orders = [draft((hand, 1), customer="u-1", limit=2) for _ in range(2)]
    with pytest.raises(AssertionError):
        await world.ledger().commit(new_id(), orders)


async def test_commit_of_units_that_came_back_finds_room_again(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    first = draft((hand, 2), customer="u-1", limit=2)
    await ledger.commit(new_id(), [first])
    assert (await world.cancel(first)).outcome == "cancelled"
    assert await ledger.commit(new_id(), [draft((hand, 2), customer="u-1", limit=2)]) == []


async def test_commits_of_one_buyer_over_three_ledgers_at_once_give_him_his_limit(world: World) -> None:
    hand = await world.hand(units=100)
    lanes = [world.ledger() for _ in range(3)]
    living: list[Entry] = []

    async def buy(lane: int) -> None:
        for _ in range(17):
            entry = draft((hand, 1), customer="u-1", limit=2)
            if not await lanes[lane].commit(new_id(), [entry]):
                living.append(entry)

    await asyncio.gather(*(buy(lane) for lane in range(3)))
    assert (len(living), await world.count("orders")) == (2, 2)
    assert await world.taken() == {("TEA", "u-1"): 2}
    await world.cancel(living[0])
    assert await world.ledger().commit(new_id(), [draft((hand, 1), customer="u-1", limit=2)]) == []


class Race:
    """Four committers with few buyers, shared keys, and leases that are closed under their feet; cancellers beside."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.hands: list[Hand] = []
        self.living: list[Entry] = []
        self.seen: set[str] = set()
        self.committing = 4

    async def prepare(self) -> None:
        owner = await self.world.owner()
        for sku in ("A", "B", "C"):
            await self.world.stock(sku, 2000)
            self.hands.append(await self.world.take(owner, sku, 400))

    def batch(self) -> list[Entry]:
        entries = []
        for number in self.random.sample(range(12), self.random.randint(1, 6)):
            hands = self.random.sample(self.hands, self.random.randint(1, 3))
            parts = [(hand, self.random.randint(1, 2)) for hand in hands]
            key = key_of(self.random.randrange(60)) if self.random.random() < 0.3 else None
            entries.append(draft(*parts, key=key, customer=f"u-{number}", limit=5))
        return list({entry.key_hash: entry for entry in entries}.values())

    async def commit(self) -> None:
        lane = self.world.ledger()
        for _ in range(40):
            entries = self.batch()
            refused = verdicts(await lane.commit(new_id(), entries))
            self.seen.update(refused.values())
            self.living.extend(entry for entry in entries if entry.order_id not in refused)
            assert max((await self.world.taken()).values()) <= 5
        self.committing -= 1

    async def cancel(self) -> None:
        while self.committing:
            if self.living:
                entry = self.living.pop(self.random.randrange(len(self.living)))
                assert (await self.world.cancel(entry)).outcome == "cancelled"
            await asyncio.sleep(0)

    async def close(self) -> None:
        while self.committing:
            at = self.random.randrange(len(self.hands))
            old = self.hands[at]
            owner = await self.world.owner_of(old)
            await self.world.close_lease(old)
            self.hands[at] = await self.world.take(owner, old.sku, 400)
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_limits_under_commits_cancellations_and_closed_leases_at_once_hold(world: World, seed: int) -> None:
    race = Race(world, seed)
    await race.prepare()
    async with asyncio.TaskGroup() as group:
        for work in (race.commit, race.commit, race.commit, race.commit, race.cancel, race.cancel, race.close):
            group.create_task(work())
    assert race.seen == {"duplicate", "limit", "fenced"}
    assert await world.value(DEADLOCKS) == 0


def test_limit_of_a_buyer_is_named_by_stock_key_and_customer() -> None:
    assert Limit("TEA", "u-1", 1, 2).buyer == ("TEA", "u-1")
