"""Owners of leases: they live by their heartbeat, leave with empty hands, and are buried with their units taken back.

None of it sells a unit twice.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from persistence.errors import OwnerNotAliveError
from persistence.postgres import control
from tests.cut_proxy import COPY_DATA, Loss, open_proxy
from tests.ledger_world import World, draft, new_id, open_world

SILENT_FOR_LONG = "update worker set seen_at = seen_at - interval '1 hour' where owner = $1"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


async def test_heartbeat_answers_the_servers_clock(world: World) -> None:
    reading, _ = await control.heartbeat(world.control, await world.owner())
    assert reading.asked_at <= reading.answered_at
    now_s = float(await world.value("select extract(epoch from clock_timestamp())"))
    assert now_s - 5 < reading.ledger_time_s <= now_s


async def test_active_leases_are_walked_in_order_without_those_of_others(world: World) -> None:
    await world.stock("TEA", 100)
    owner, other = await world.owner(), await world.owner()
    hands = [await world.take(owner, "TEA", 5) for _ in range(5)]
    await world.take(other, "TEA", 5)
    await world.close_lease(hands[1])
    leases = sorted(hand.lease for hand in hands if hand is not hands[1])
    first = await control.active_after(world.control, owner, bytes(16), 3)
    assert first == leases[:3]
    assert await control.active_after(world.control, owner, first[-1], 3) == leases[3:]
    assert await control.active_after(world.control, owner, leases[-1], 3) == []


async def test_still_active_are_leases_that_nobody_has_closed(world: World) -> None:
    await world.stock("TEA", 20)
    owner = await world.owner()
    kept, closed = await world.take(owner, "TEA", 5), await world.take(owner, "TEA", 5)
    await world.close_lease(closed)
    assert await control.still_active(world.control, [kept.lease, closed.lease, new_id()]) == {kept.lease}


async def test_heartbeat_moves_the_owners_time(world: World) -> None:
    owner = await world.owner()
    await world.pool.execute(SILENT_FOR_LONG, uuid.UUID(owner))
    await control.heartbeat(world.control, owner)
    assert await control.bury(world.control, 60.0) == []
    assert await world.value("select state from worker") == "alive"


@pytest.mark.parametrize(
    ("journal", "records", "silent_s", "state", "held"),
    [
        ("x.journal", 0, 0, "alive", False),
        ("x.journal", 1, 0, "alive", True),
        ("x.journal", 0, 5, "alive", True),
        ("x.journal", 0, 700, "alive", False),
        ("x.journal", 3, 700, "alive", False),
        ("x.journal", 3, 0, "dead", False),
        (None, 0, 5, "alive", False),
    ],
)
async def test_heartbeat_tells_whether_another_owner_may_have_orders_in_its_journal(
    world: World,
    journal: str | None,
    records: int,
    silent_s: int,
    state: str,
    held: bool,  # noqa: FBT001 - by position
) -> None:
    """Not for ever: after ten minutes somebody has been called to look after it."""
    owner, other = await world.owner(), await world.owner()
    await world.pool.execute(
        "update worker set journal = $2, journal_records = $3, state = $4, "
        "seen_at = clock_timestamp() - make_interval(secs => $5) where owner = $1",
        uuid.UUID(other),
        journal,
        records,
        state,
        silent_s,
    )
    now_s = float(await world.value("select extract(epoch from clock_timestamp())"))
    beat = await control.heartbeat(world.control, owner, heard_since_s=now_s - 3)
    assert beat.others_may_hold is held
    await world.pool.execute("update worker set state = 'dead', journal = null where owner = $1", uuid.UUID(other))


async def test_heartbeat_tells_others_of_the_owners_own_journal_and_not_itself(world: World) -> None:
    owner, other = await world.owner(), await world.owner()
    await control.name_journal(world.control, owner, "x.journal")
    assert not (await control.heartbeat(world.control, owner, journal_records=2)).others_may_hold
    assert (await control.heartbeat(world.control, other)).others_may_hold
    await control.name_journal(world.control, owner, None)
    assert not (await control.heartbeat(world.control, other)).others_may_hold


@pytest.mark.parametrize("state", ["dead", "left"])
async def test_heartbeat_of_an_owner_that_is_not_alive_raises(world: World, state: str) -> None:
    owner = await world.owner()
    await world.pool.execute("update worker set state = $1", state)
    with pytest.raises(OwnerNotAliveError):
        await control.heartbeat(world.control, owner)


async def test_leave_gives_back_what_is_unsold(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    await world.ledger(owner).commit(new_id(), [draft((hand, 3))])
    assert await control.leave(world.control, owner, 0) == 7
    assert await world.value("select state from worker where owner = $1", uuid.UUID(owner)) == "left"


async def test_leave_asked_twice_gives_back_once(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    assert [await control.leave(world.control, owner, 0) for _ in range(2)] == [10, 0]
    assert await world.free("TEA") == 10


async def test_bury_declares_a_silent_owner_dead_and_frees_its_units(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    await world.pool.execute(SILENT_FOR_LONG, uuid.UUID(owner))
    assert await control.bury(world.control, 60.0) == [owner]
    assert await world.free("TEA") == 10
    assert await world.value("select state from worker") == "dead"


async def test_bury_leaves_the_living_alone(world: World) -> None:
    hand = await world.hand(units=10)
    assert await control.bury(world.control, 60.0) == []
    assert await world.lease(hand) == (10, 0, "active")


async def test_bury_leaves_an_owner_with_a_journal_alone(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    await world.pool.execute("update worker set journal = '/journal'")
    await world.pool.execute(SILENT_FOR_LONG, uuid.UUID(owner))
    assert await control.bury(world.control, 60.0) == []
    assert await world.lease(hand) == (10, 0, "active")


async def test_bury_finds_leases_that_an_earlier_one_left_behind(world: World) -> None:
    hand = await world.hand(units=10)
    await world.pool.execute("update worker set state = 'dead'")
    assert await control.bury(world.control, 60.0) == [await world.owner_of(hand)]
    assert await world.free("TEA") == 10


async def test_bury_by_several_stewards_at_once_frees_units_once(world: World) -> None:
    hand = await world.hand(units=10)
    await world.pool.execute(SILENT_FOR_LONG, uuid.UUID(await world.owner_of(hand)))
    stewards = [world.session("fg-steward") for _ in range(4)]
    await asyncio.gather(*(control.bury(steward, 60.0) for steward in stewards))
    for steward in stewards:
        await steward.close()
    assert await world.free("TEA") == 10


async def test_bury_ends_the_dead_owners_committer_first(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    async with open_proxy(world.url) as proxy:
        proxy.arm(COPY_DATA, Loss.SILENCE)
        commit = asyncio.create_task(world.ledger(owner, proxy.url).commit(new_id(), [draft((hand, 3))]))
        await proxy.cut.wait()
        await world.pool.execute(SILENT_FOR_LONG, uuid.UUID(owner))
        assert await control.bury(world.control, 60.0) == [owner]
        commit.cancel()
        await asyncio.gather(commit, return_exceptions=True)
    assert await world.free("TEA") == 10


async def test_commit_by_a_buried_owner_is_fenced(world: World) -> None:
    hand = await world.hand(units=10)
    owner = await world.owner_of(hand)
    await world.pool.execute(SILENT_FOR_LONG, uuid.UUID(owner))
    await control.bury(world.control, 60.0)
    (refusal,) = await world.ledger(owner).commit(new_id(), [draft((hand, 3))])
    assert refusal.verdict == "fenced"
