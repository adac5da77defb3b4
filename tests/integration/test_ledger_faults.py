"""What the ledger says when PostgreSQL or the way to it fails: did not happen, or nobody knows yet; and how `resolve`
settles the latter for good.

Each fault is made at an exact message, and each test ends with books that balance and a ledger that commits again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
from asyncpg.pgproto.pgproto import UUID

from persistence.errors import LedgerUnavailableError, PoisonError
from persistence.postgres import control, ledger
from persistence.postgres.connect import connect
from tests.cut_proxy import COMMIT, COPY_DATA, CutProxy, Loss, open_proxy
from tests.ledger_world import World, draft, key_of, new_id, open_world

END_BACKENDS = """
select count(pg_terminate_backend(pid)) from pg_stat_activity
where application_name like 'fg-commit:%' and pid <> pg_backend_pid()
"""
OPEN_TRANSACTIONS = """
select count(*) from pg_stat_activity where application_name like 'fg-commit:%' and xact_start is not null
"""


@pytest.fixture(params=[True, False], ids=["pipelined", "stepwise"])
async def world(postgres_url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Once for each way that a batch can go."""
    async with open_world(postgres_url, pipelined=request.param) as world:
        yield world
        await world.assert_clean()
        assert await world.ledger().commit(new_id(), [draft()]) == []


stepwise = pytest.mark.parametrize("world", [False], indirect=True, ids=["stepwise"])
IN_DOUBT = (LedgerUnavailableError, ledger.AmbiguousError)  # According to whether COMMIT was on its way.


@pytest.fixture
async def proxy(world: World) -> AsyncIterator[CutProxy]:
    async with open_proxy(world.url) as proxy:
        yield proxy


async def commit_ambiguously(
    world: World, proxy: CutProxy, loss: Loss, batch_id: bytes, entry: ledger.Entry
) -> tuple[str, ledger.AmbiguousError]:
    """The owner and the error of a commit whose COMMIT, or the answer to it, is lost."""
    owner = await world.owner()
    proxy.arm(COMMIT, loss)
    with pytest.raises(ledger.AmbiguousError) as caught:
        await world.ledger(owner, proxy.url).commit(batch_id, [entry])
    return owner, caught.value


async def is_committed(
    world: World, owner: str, lane: ledger.Ledger, batch_id: bytes, entries: list[ledger.Entry]
) -> bool:
    """Whether the batch is committed in the end, as the error says or the ledger when it is asked."""
    try:
        await lane.commit(batch_id, entries)
    except LedgerUnavailableError:
        return False
    except ledger.AmbiguousError as error:
        return await control.resolve(world.control, batch_id, error.backend_pid, owner)
    return True


async def test_commit_whose_answer_is_lost_is_ambiguous_and_resolves_to_committed(
    world: World, proxy: CutProxy
) -> None:
    hand = await world.hand()
    batch_id, entry = new_id(), draft((hand, 2))
    owner, error = await commit_ambiguously(world, proxy, Loss.REPLY, batch_id, entry)
    assert await control.resolve(world.control, batch_id, error.backend_pid, owner) is True
    assert await world.order_ids() == {entry.order_id}
    assert await world.lease(hand) == (10, 2, "active")


async def test_commit_that_never_arrives_is_ambiguous_and_resolves_to_fenced(world: World, proxy: CutProxy) -> None:
    hand = await world.hand()
    batch_id, entry = new_id(), draft((hand, 2))
    owner, error = await commit_ambiguously(world, proxy, Loss.REQUEST, batch_id, entry)
    assert await control.resolve(world.control, batch_id, error.backend_pid, owner) is False
    assert await world.order_ids() == set()
    assert await world.lease(hand) == (10, 0, "active")


async def test_commit_that_is_not_answered_in_time_is_ambiguous(world: World, proxy: CutProxy) -> None:
    proxy.arm(COMMIT, Loss.SILENCE)
    owner, batch_id = await world.owner(), new_id()
    with pytest.raises(ledger.AmbiguousError) as caught:
        await world.ledger(owner, proxy.url, command_timeout_s=0.3).commit(batch_id, [draft()])
    assert await control.resolve(world.control, batch_id, caught.value.backend_pid, owner) is False


async def test_commit_that_is_cancelled_while_it_waits_for_the_answer_ends_and_can_be_resolved(
    world: World, proxy: CutProxy
) -> None:
    """Whoever cancels is going: nobody is left who could ask what became of the batch."""
    proxy.arm(COMMIT, Loss.SILENCE)
    owner, batch_id = await world.owner(), new_id()
    lane = world.ledger(owner, proxy.url)
    task = asyncio.create_task(lane.commit(batch_id, [draft()]))
    await proxy.cut.wait()
    pid = await world.value("select pid from pg_stat_activity where application_name = $1", ledger.COMMIT_NAME + owner)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await control.resolve(world.control, batch_id, pid, owner) is False


@stepwise
async def test_ambiguous_error_carries_the_refusals_of_the_batch(world: World, proxy: CutProxy) -> None:
    first = draft(key=key_of(1))
    await world.ledger().commit(new_id(), [first])
    duplicate = draft(key=key_of(1))
    _, error = await commit_ambiguously(world, proxy, Loss.REPLY, new_id(), duplicate)
    assert error.refusals == [ledger.Refusal(duplicate, "duplicate", first.order_id, bytes(16))]


@pytest.mark.parametrize(
    ("loss", "committed"), [(Loss.REPLY, True), (Loss.REQUEST, False)], ids=["committed", "fenced"]
)
async def test_resolve_asked_many_times_at_once_answers_the_same(
    world: World, proxy: CutProxy, loss: Loss, *, committed: bool
) -> None:
    batch_id = new_id()
    owner, error = await commit_ambiguously(world, proxy, loss, batch_id, draft())
    sessions = [world.session(f"fg-control-{number}") for number in range(6)]
    answers = await asyncio.gather(
        *(control.resolve(session, batch_id, error.backend_pid, owner) for session in sessions for _ in range(3))
    )
    for session in sessions:
        await session.close()
    assert set(answers) == {committed}


async def test_resolve_ends_the_old_backend_that_holds_the_transaction_open(world: World, proxy: CutProxy) -> None:
    batch_id = new_id()
    owner, error = await commit_ambiguously(world, proxy, Loss.REQUEST, batch_id, draft())
    assert await world.value(OPEN_TRANSACTIONS) == 1
    await control.resolve(world.control, batch_id, error.backend_pid, owner)
    assert await world.value(OPEN_TRANSACTIONS) == 0


async def test_resolve_leaves_another_owners_backend_alone(world: World) -> None:
    other = world.ledger()
    await other.ensure_open()
    pid = await world.value("select pid from pg_stat_activity where application_name like 'fg-commit:%'")
    assert await control.resolve(world.control, new_id(), pid, await world.owner()) is False
    assert await other.commit(new_id(), [draft()]) == []


async def test_resolve_to_fenced_forbids_the_batch_for_ever(world: World, proxy: CutProxy) -> None:
    batch_id, entry = new_id(), draft()
    owner, error = await commit_ambiguously(world, proxy, Loss.REQUEST, batch_id, entry)
    await control.resolve(world.control, batch_id, error.backend_pid, owner)
    with pytest.raises(ledger.BatchFencedError):
        await world.ledger().commit(batch_id, [entry])


async def test_commit_of_fenced_orders_under_a_new_batch_id_stores_them(world: World, proxy: CutProxy) -> None:
    hand = await world.hand()
    batch_id, entry = new_id(), draft((hand, 2))
    owner, error = await commit_ambiguously(world, proxy, Loss.REQUEST, batch_id, entry)
    await control.resolve(world.control, batch_id, error.backend_pid, owner)
    assert await world.ledger().commit(new_id(), [entry]) == []
    assert await world.order_ids() == {entry.order_id}


async def test_commit_again_of_a_committed_order_answers_the_order_itself(world: World, proxy: CutProxy) -> None:
    batch_id, entry = new_id(), draft()
    await commit_ambiguously(world, proxy, Loss.REPLY, batch_id, entry)
    (refusal,) = await world.ledger().commit(new_id(), [entry])
    assert (refusal.verdict, refusal.stored_order) == ("duplicate", entry.order_id)


@stepwise
async def test_commit_that_is_answered_rollback_did_not_happen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def copy_and_abort(connection: asyncpg.Connection, entries: list[ledger.Entry]) -> None:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("select 1 / 0")

    hand = await world.hand()
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_copy", copy_and_abort)
        with pytest.raises(LedgerUnavailableError, match="ROLLBACK"):
            await world.ledger().commit(new_id(), [draft((hand, 1))])
    assert await world.lease(hand) == (10, 0, "active")


async def test_commit_of_a_backend_killed_before_commit_did_not_happen(world: World) -> None:
    hand, owner, batch_id = await world.hand(), await world.owner(), new_id()
    async with world.pool.acquire() as other, other.transaction():
        await other.execute("lock table orders in share mode")
        committing = asyncio.create_task(is_committed(world, owner, world.ledger(owner), batch_id, [draft((hand, 1))]))
        await world.until("select count(*) from pg_locks where relation = 'orders'::regclass and not granted", 1)
        assert await world.value(END_BACKENDS) == 1
    assert await committing is False
    tables = await world.tables()
    assert tables | {"batch": 0} == dict.fromkeys(tables, 0)
    assert await world.lease(hand) == (10, 0, "active")


async def test_ledger_whose_backend_died_between_batches_connects_again(world: World) -> None:
    lane = world.ledger()
    await lane.commit(new_id(), [draft()])
    await world.value(END_BACKENDS)
    with suppress(*IN_DOUBT):  # Unless the driver has noticed the end by itself.
        await lane.commit(new_id(), [])
    assert await lane.commit(new_id(), [draft()]) == []


async def test_commit_over_a_connection_that_falls_silent_inside_copy_did_not_happen(
    world: World, proxy: CutProxy
) -> None:
    proxy.arm(COPY_DATA, Loss.SILENCE)
    owner = await world.owner()
    lane = world.ledger(owner, proxy.url, command_timeout_s=0.3)
    assert await is_committed(world, owner, lane, new_id(), [draft()]) is False
    assert await world.count("orders") == 0


async def test_reap_ends_a_committer_that_is_stopped_inside_copy(
    world: World, proxy: CutProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.arm(COPY_DATA, Loss.SILENCE)
    with pytest.raises(IN_DOUBT):
        await world.ledger(url=proxy.url, command_timeout_s=0.3).commit(new_id(), [draft()])
    assert await world.value(OPEN_TRANSACTIONS) == 1
    monkeypatch.setattr(control, "HUNG_S", 0)
    assert await control.reap(world.control) == 1
    await world.until(OPEN_TRANSACTIONS, 0)


async def test_reap_leaves_young_transactions_alone(world: World, proxy: CutProxy) -> None:
    proxy.arm(COPY_DATA, Loss.SILENCE)
    with pytest.raises(IN_DOUBT):
        await world.ledger(url=proxy.url, command_timeout_s=0.3).commit(new_id(), [draft()])
    assert await control.reap(world.control) == 0


async def test_commit_while_the_key_is_held_by_a_stopped_committer_did_not_happen(
    world: World, proxy: CutProxy
) -> None:
    proxy.arm(COPY_DATA, Loss.SILENCE)
    with pytest.raises(IN_DOUBT):
        await world.ledger(url=proxy.url, command_timeout_s=0.3).commit(new_id(), [draft(key=key_of(1))])
    owner = await world.owner()
    lane = world.ledger(owner, command_timeout_s=0.3)
    assert await is_committed(world, owner, lane, new_id(), [draft(key=key_of(1))]) is False


async def test_commit_of_a_poison_row_is_poison_and_leaves_nothing(world: World) -> None:
    hand = await world.hand()
    with pytest.raises(PoisonError):
        await world.ledger().commit(new_id(), [draft((hand, 1)), draft(note="a\0b"), draft((hand, 1))])
    tables = await world.tables()
    assert tables == dict.fromkeys(tables, 0)


async def test_commit_of_the_neighbours_of_a_poison_row_stores_them(world: World) -> None:
    hand = await world.hand()
    lane, neighbours = world.ledger(), [draft((hand, 1)), draft((hand, 1))]
    with pytest.raises(PoisonError):
        await lane.commit(new_id(), [*neighbours, draft(note="a\0b")])
    assert await lane.commit(new_id(), neighbours) == []
    assert await world.order_ids() == {entry.order_id for entry in neighbours}


async def test_commit_of_units_that_no_column_can_hold_is_poison(world: World) -> None:
    hand = await world.hand()
    entry = draft((hand, 1))
    with pytest.raises(PoisonError):
        await world.ledger().commit(new_id(), [entry._replace(parts=[(hand.lease, 1 << 63)])])


@pytest.mark.parametrize("table", ["orders", "batch"])
async def test_commit_without_a_partition_did_not_happen_and_is_no_poison(world: World, table: str) -> None:
    far = (4_000_000_000_000).to_bytes(6, "big") + bytes(10)
    batch_id, order_id = (far, new_id()) if table == "batch" else (new_id(), far)
    with pytest.raises(LedgerUnavailableError, match="no partition"):
        await world.ledger().commit(batch_id, [draft(order_id=order_id)])
    tables = await world.tables()
    assert tables == dict.fromkeys(tables, 0)


async def test_ledger_of_an_unreachable_server_is_unavailable() -> None:
    lane = ledger.Ledger("postgresql://floodgate@127.0.0.1:1/none", "nobody", 1.0)
    with pytest.raises(LedgerUnavailableError):
        await lane.ensure_open()


async def test_session_after_an_unanswered_call_connects_again(world: World) -> None:
    pid = await world.control.run(lambda c: c.fetchval("select pg_backend_pid()"))
    await world.value("select pg_terminate_backend($1)", pid)
    with suppress(LedgerUnavailableError):  # Unless the driver has noticed the end by itself.
        await world.control.run(lambda c: c.fetchval("select 1"))
    assert await world.control.run(lambda c: c.fetchval("select pg_backend_pid()")) != pid


async def test_session_whose_argument_cannot_be_encoded_says_so_and_not_that_the_server_is_away(world: World) -> None:
    with pytest.raises(asyncpg.DataError, match="invalid input for query argument"):
        await world.control.run(lambda c: c.fetchval("select $1::bigint", 1 << 63))


async def test_connect_gives_every_session_its_time_outs(world: World) -> None:
    connection = await connect(world.url, "fg-test")
    shown = [
        await connection.fetchval(f"show {name}")
        for name in ("lock_timeout", "idle_in_transaction_session_timeout", "timezone")
    ]
    await connection.close()
    assert shown == ["5s", "10s", "UTC"]


async def test_resolve_of_a_batch_that_was_never_begun_fences_it(world: World) -> None:
    batch_id = new_id()
    assert await control.resolve(world.control, batch_id, 1, await world.owner()) is False
    assert await world.value("select outcome from batch where batch_id = $1", UUID(batch_id)) == "fenced"
