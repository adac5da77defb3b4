"""The committer: every batch ends in knowledge, every buyer is answered, every unit is settled or restored once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from core_ext.shapes import Line, Order
from gateway import committer as room
from gateway import tasks
from gateway.committer import FENCED_TRIES
from gateway.domain import outcomes as domain
from gateway.domain.outcomes import Outcome
from persistence.errors import LedgerUnavailableError, NotDurableError, PoisonError
from persistence.postgres.ledger import COMMIT_NAME, AmbiguousError, BatchFencedError, Entry, Refusal
from persistence.postgres.orders import StoredKey
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import SERVICE, SKU, Road, accepted, body, duplicate, fenced, over_limit, refused, settings, turns

STORED_ID = bytes.fromhex("019ac4d4e0007abc8123456789abcdef")
AWAY = LedgerUnavailableError("PostgreSQL did not answer")


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RETRY_MIN_S", "RETRY_MAX_S"):
        monkeypatch.setattr(room, name, 0)
    monkeypatch.setattr(tasks, "RESTART_PAUSE_S", 0)


async def running(reply_ms_max: int = 60_000, **sections: dict[str, Any]) -> AsyncIterator[Road]:
    made = Road({SKU: 0}, settings(orders={"reply_ms_max": reply_ms_max}, **sections))
    made.hold(10)
    made.start()
    yield made
    made.ledger.held.set()
    await turns()
    await made.close()
    assert made.promised() == 0


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def road() -> AsyncIterator[Road]:
    """A worker with 10 units in its hand; whatever happens, nothing stays promised."""
    async for made in running():
        yield made


@pytest.fixture
async def journaled(tmp_path: Path) -> AsyncIterator[Road]:
    """A worker with a journal, to which a commit goes that takes long."""
    async for made in running(journal={"folder": str(tmp_path), "patience_ms": 50}):
        owner = made.leases.owner
        assert await made.journaling.ensure_open(owner)
        made.journaling.named = owner
        made.journaling.note_open()
        yield made


@pytest.fixture
async def impatient() -> AsyncIterator[Road]:
    """A worker that does not try for long."""
    async for made in running(reply_ms_max=100):
        yield made


def ambiguous() -> AmbiguousError:
    return AmbiguousError(4711, [])


async def send_together(road: Road, *keys: str) -> list["asyncio.Task[Outcome]"]:
    """Orders that come into one batch."""
    road.ledger.held.clear()
    first = road.send("first", body(SERVICE))
    await turns()
    sent = [road.send(key) for key in keys]
    await turns()
    road.ledger.held.set()
    accepted(await first)
    return sent


async def test_committer_commits_what_waits_together(road: Road) -> None:
    for task in await send_together(road, "a", "b", "c"):
        accepted(await task)
    assert [len(entries) for _, entries in road.ledger.batches] == [1, 3]


async def test_committer_living_order_is_answered_counted_and_published(road: Road) -> None:
    outcome = accepted(await road.place(body_=body(quantity=3)))
    road.publisher.close()
    await road.publisher.run()
    assert road.stream.batches[0][0].id.startswith(outcome.order_id.hex()[:8])
    assert road.pool.removed == [road.ledger.batches[0][0]]
    assert (road.counters.orders, road.counters.units) == (1, 3)
    road.assert_balanced(10)


async def test_committer_duplicate_gets_the_stored_order_and_its_units_go_back(road: Road) -> None:
    order = Order(STORED_ID, 1, "app", "CNY", "paid", 1, 0, [Line(1, SKU, "T", 1, 0, 0, stocked=True)], 0)
    road.book.orders[STORED_ID] = order
    road.ledger.answers = [lambda entries: [duplicate(entry, STORED_ID) for entry in entries]]
    outcome = accepted(await road.place())
    assert (outcome.order_id, outcome.replayed) == (STORED_ID, True)
    assert road.counters.orders == 0
    road.assert_balanced(10)


async def test_committer_duplicate_with_another_body_is_key_reused(road: Road) -> None:
    road.ledger.answers = [lambda entries: [duplicate(entry, STORED_ID, b"\x07" * 16) for entry in entries]]
    assert refused(await road.place()) == "key_reused"


async def test_committer_duplicate_whose_order_cannot_be_read_is_ledger_away(road: Road) -> None:
    road.book.error = AWAY
    road.ledger.answers = [lambda entries: [duplicate(entry, STORED_ID) for entry in entries]]
    assert refused(await road.place()) == "ledger_away"


async def test_committer_duplicate_whose_order_cannot_be_restored_is_answered(road: Road) -> None:
    road.ledger.answers = [lambda entries: [duplicate(entry, STORED_ID) for entry in entries]]
    assert refused(await road.place()) == "internal"


async def test_committer_publishes_nothing_of_a_batch_without_living_orders(road: Road) -> None:
    road.ledger.answers = [lambda entries: [duplicate(entry, STORED_ID, b"\x07" * 16) for entry in entries]]
    await road.place()
    assert road.publisher.backlog == 0


async def test_committer_order_over_its_limit_is_refused_with_what_is_left_and_its_units_go_back(road: Road) -> None:
    road.catalogue.products[SKU].limit = 3
    road.ledger.answers = [lambda entries: [over_limit(entry, **{SKU: 2}) for entry in entries]]
    items = [{"sku": SERVICE, "quantity": 1}, {"sku": SKU, "quantity": 2}]
    outcome = await road.place(body_=body(items=items, customer_id="u-1"))
    left = {"detail": f"the buyer may have 1 more of {SKU}", "pointer": "#/items/1/quantity", "available": 1}
    assert outcome == domain.Refusal("limit_reached", f"a buyer may hold 3 of {SKU}", (left,))
    assert (road.counters.orders, road.publisher.backlog) == (0, 0)
    road.assert_balanced(10)


async def test_committer_order_over_a_lowered_limit_is_told_that_none_are_left(road: Road) -> None:
    road.catalogue.products[SKU].limit = 3
    road.ledger.answers = [lambda entries: [over_limit(entry, **{SKU: 5}) for entry in entries]]
    outcome = await road.place(body_=body(customer_id="u-1"))
    assert isinstance(outcome, domain.Refusal)
    assert [error["available"] for error in outcome.errors] == [0]


async def test_committer_neighbours_of_an_order_over_its_limit_are_accepted(road: Road) -> None:
    road.ledger.answers = [[], lambda entries: [over_limit(entries[0])]]
    outcomes = [await task for task in await send_together(road, "a", "b")]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "Refusal"]
    road.assert_balanced(10)


async def test_committer_orders_of_one_buyer_of_a_limited_sku_are_committed_one_after_the_other(road: Road) -> None:
    road.catalogue.products[SKU].limit = 9
    road.ledger.held.clear()
    blocker = road.send("blocker", body(SERVICE))
    await turns()
    sent = [road.send(key, body(customer_id="u-1")) for key in "abc"]
    await turns()
    road.ledger.held.set()
    for task in (blocker, *sent):
        accepted(await task)
    assert [len(entries) for _, entries in road.ledger.batches] == [1, 1, 1, 1]


async def test_committer_fenced_order_is_committed_from_another_lease(road: Road) -> None:
    closed = road.leases.till.leases()[0].lease
    road.stock.free[SKU] = 5
    road.ledger.answers = [lambda entries: [fenced(entry) for entry in entries]]
    accepted(await road.place())
    assert [lease for lease, _ in road.ledger.stored[0].parts] != [closed]
    assert not road.stock.leases[closed].active
    assert road.counters.fenced == 1
    road.assert_balanced(15)


async def test_committer_fenced_order_keeps_its_id_and_body(road: Road) -> None:
    road.stock.free[SKU] = 5
    road.ledger.answers = [lambda entries: [fenced(entry) for entry in entries]]
    outcome = accepted(await road.place())
    assert {entry.order_id for _, entries in road.ledger.batches for entry in entries} == {outcome.order_id}


async def test_committer_living_neighbours_of_a_fenced_order_are_answered_at_once(road: Road) -> None:
    road.stock.free[SKU] = 5
    road.ledger.answers = [[], lambda entries: [fenced(entries[0])]]
    for task in await send_together(road, "a", "b"):
        accepted(await task)
    road.assert_balanced(15)


async def test_committer_order_that_is_fenced_again_and_again_may_come_back(road: Road) -> None:
    road.stock.free[SKU] = 1000
    road.ledger.answers = [lambda entries: [fenced(entry) for entry in entries]] * (FENCED_TRIES + 1)
    assert refused(await road.place()) == "stock_returning"
    assert len(road.ledger.batches) == FENCED_TRIES + 1


async def test_committer_fenced_order_whose_units_are_gone_is_sold_out(road: Road) -> None:
    lease = road.leases.till.leases()[0].lease

    def steal(entries: Sequence[Entry]) -> list[Refusal]:
        road.stock.close(lease)
        road.stock.free[SKU] = 0
        return [fenced(entry) for entry in entries]

    road.ledger.answers = [steal]
    assert refused(await road.place()) == "sold_out"


async def test_committer_fenced_order_whose_key_is_known_by_now_gets_that_order(road: Road) -> None:
    order = Order(STORED_ID, 1, "app", "CNY", "paid", 1, 0, [Line(1, SKU, "T", 1, 0, 0, stocked=True)], 0)
    lease = road.leases.till.leases()[0].lease

    def steal(entries: Sequence[Entry]) -> list[Refusal]:
        (entry,) = entries
        road.stock.close(lease)
        road.stock.free[SKU] = 0
        road.book.orders[STORED_ID] = order
        road.book.known[entry.key_hash] = StoredKey(STORED_ID, entry.fingerprint)
        return [fenced(entry)]

    road.ledger.answers = [steal]
    assert accepted(await road.place()).order_id == STORED_ID


async def test_committer_fenced_order_whose_buyer_was_answered_is_let_go(road: Road) -> None:
    road.ledger.held.clear()
    road.ledger.answers = [lambda entries: [fenced(entry) for entry in entries]]
    first = road.send()
    await turns()
    road.committer.answer_overdue(START_S + 1)
    assert refused(await first) == "ledger_away"
    road.ledger.held.set()
    await turns()
    assert len(road.ledger.batches) == 1


async def test_committer_batch_that_did_not_happen_is_sent_again(road: Road) -> None:
    road.ledger.answers = [AWAY, AWAY]
    accepted(await road.place())
    ids = [batch_id for batch_id, _ in road.ledger.batches]
    assert len(set(ids)) == 3
    assert len(road.ledger.stored) == 1


async def test_committer_closes_admission_while_the_ledger_is_away_and_opens_it_again(road: Road) -> None:
    road.ledger.answers = [AWAY]
    road.ledger.held.clear()
    placing = road.send()
    await turns()
    road.ledger.unreachable = AWAY
    road.ledger.held.set()
    accepted(await placing)
    await turns()
    assert refused(await road.place("k-2")) == "ledger_away"
    road.ledger.unreachable = None
    await turns()
    accepted(await road.place("k-2"))


async def test_committer_opens_admission_once_the_clock_is_known() -> None:
    road = Road({SKU: 0})
    road.admission.open = road.clock.is_known = False
    road.start()
    await turns()
    opened_early = road.admission.open
    road.clock.is_known = True
    await turns()
    assert (opened_early, road.admission.open) == (False, True)
    await road.close()


@pytest.mark.parametrize("error", [AWAY, NotDurableError("fsync = off")])
async def test_committer_batch_that_cannot_be_sent_is_refused_and_its_units_go_back(
    impatient: Road, error: Exception
) -> None:
    impatient.ledger.answers = [error] * 1_000_000
    assert refused(await impatient.place()) == "ledger_away"
    await turns()
    impatient.assert_balanced(10)


async def test_committer_ambiguous_batch_that_was_committed_is_accepted(road: Road) -> None:
    road.control.outcome = "committed"
    road.ledger.answers = [ambiguous()]
    accepted(await road.place())
    assert road.control.resolved == [road.ledger.batches[0][0]]
    assert len(road.ledger.batches) == 1
    assert road.counters.ambiguous == 1


async def test_committer_ambiguous_batch_that_was_committed_keeps_to_its_verdicts(road: Road) -> None:
    def lose(entries: Sequence[Entry]) -> list[Refusal]:
        raise AmbiguousError(4711, [duplicate(entries[0], STORED_ID, b"\x07" * 16)])

    road.ledger.answers = [[], lose]
    outcomes = [await task for task in await send_together(road, "a", "b")]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "Refusal"]


async def test_committer_ambiguous_batch_that_was_fenced_is_sent_again(road: Road) -> None:
    road.control.outcome = "fenced"
    road.ledger.answers = [ambiguous()]
    outcome = accepted(await road.place())
    assert [entry.order_id for entry in road.ledger.stored] == [outcome.order_id]
    first, second = (batch_id for batch_id, _ in road.ledger.batches)
    assert first != second
    road.assert_balanced(10)


async def test_committer_asks_until_it_knows_what_became_of_a_batch(road: Road) -> None:
    road.control_session.away = True
    road.ledger.answers = [ambiguous()]
    placing = road.send()
    await turns()
    assert not placing.done()
    assert not road.admission.open
    road.control_session.away = False
    accepted(await placing)


async def test_committer_ends_a_commit_that_hangs_by_the_name_of_who_sent_it(journaled: Road) -> None:
    """Its owner may have been declared dead meanwhile, and be another one."""
    was, hung = journaled.leases.owner, journaled.ledger
    journaled.control_session.away = True
    hung.held.clear()
    assert isinstance(await journaled.send(), domain.Receipt)
    journaled.leases.renew()
    accepted(await journaled.place("k-2", body(SERVICE)))
    assert journaled.ledger is not hung
    journaled.control_session.away = False
    await until(lambda: journaled.control.ended)
    assert journaled.control.ended == [(hung.backend_pid, f"{COMMIT_NAME}{was}")]


async def test_committer_buyer_of_an_ambiguous_batch_is_told_to_come_back_and_his_order_is_settled(road: Road) -> None:
    road.control_session.away = True
    road.ledger.answers = [ambiguous()]
    placing = road.send()
    await turns()
    road.committer.answer_overdue(START_S + 1)
    assert refused(await placing) == "ledger_away"
    road.control_session.away = False
    await turns()
    assert road.counters.orders == 1
    assert road.publisher.backlog == 1


async def test_committer_buyer_of_a_commit_that_hangs_is_told_to_come_back_and_his_order_is_settled(road: Road) -> None:
    road.ledger.held.clear()
    placing = road.send()
    await turns()
    road.committer.answer_overdue(START_S)
    assert not placing.done()
    road.committer.answer_overdue(START_S + 1)
    assert refused(await placing) == "ledger_away"
    road.ledger.held.set()
    await turns()
    assert (road.counters.orders, len(road.ledger.stored)) == (1, 1)
    road.assert_balanced(10)


async def test_committer_buyer_in_the_queue_is_told_to_come_back_and_his_units_are_free(road: Road) -> None:
    road.ledger.held.clear()
    road.send("blocker", body(SERVICE))
    await turns()
    placing = road.send("k-2", body(quantity=10))
    await turns()
    road.committer.answer_overdue(START_S + 1)
    assert refused(await placing) == "ledger_away"
    assert road.leases.till.free(SKU) == 10


async def test_committer_retry_after_being_told_to_come_back_is_never_in_a_batch_with_the_first(road: Road) -> None:
    road.ledger.held.clear()
    road.ledger.answers = [lambda entries: [fenced(entry) for entry in entries]]
    first = road.send()
    await turns()
    road.committer.answer_overdue(START_S + 1)
    assert refused(await first) == "ledger_away"
    second = road.send()
    await turns()
    road.stock.free[SKU] = 5
    road.ledger.held.set()
    accepted(await second)
    assert len(road.ledger.stored) == 1


async def test_committer_watch_tells_by_itself(road: Road) -> None:
    road.committer._reply_s_max = 0.001
    road.ledger.held.clear()
    placing = road.send()
    await turns()
    road.clock.at_s += 1
    watching = asyncio.ensure_future(road.committer.watch())
    assert refused(await placing) == "ledger_away"
    watching.cancel()


async def test_committer_batch_id_that_exists_is_replaced(road: Road) -> None:
    road.ledger.answers = [BatchFencedError("the batch id exists already")]
    accepted(await road.place())
    assert len({batch_id for batch_id, _ in road.ledger.batches}) == 2


async def test_committer_poison_row_does_not_fail_its_neighbours(road: Road) -> None:
    poison = road.key_hash("c")

    def taste(entries: Sequence[Entry]) -> list[Refusal]:
        if any(entry.key_hash == poison for entry in entries):
            raise PoisonError("a row is refused")
        return []

    road.ledger.answers = [[], *[taste] * 20]
    sent = await send_together(road, *"abcde")
    outcomes = dict(zip("abcde", [await task for task in sent], strict=True))
    assert refused(outcomes.pop("c")) == "internal"
    for outcome in outcomes.values():
        accepted(outcome)
    road.assert_balanced(10)


async def test_committer_bug_leaves_nobody_waiting_and_no_units_behind(road: Road) -> None:
    road.ledger.answers = [ValueError("a bug")]
    assert refused(await road.place()) == "internal"
    lease = next(iter(road.stock.leases))
    assert road.leases.till.leases() == []
    await road.leases.close_unknown([lease])
    assert road.stock.free[SKU] == 10


async def test_committer_goes_on_after_a_bug(road: Road) -> None:
    road.stock.free[SKU] = 5
    road.ledger.answers = [ValueError("a bug")]
    await road.place()
    accepted(await road.place("k-2"))


async def test_committer_bug_in_a_part_of_a_poisoned_batch_leaves_nobody_waiting(road: Road) -> None:
    road.ledger.answers = [[], PoisonError("a row is refused"), ValueError("a bug")]
    for task in await send_together(road, "a", "b"):
        assert refused(await task) == "internal"


async def test_committer_that_is_ended_leaves_nobody_waiting(road: Road) -> None:
    road.ledger.held.clear()
    placing = road.send()
    await turns()
    await road.close()
    assert refused(await placing) == "ledger_away"


async def test_committer_uses_a_connection_of_its_present_owner(road: Road) -> None:
    accepted(await road.place())
    road.leases.renew()
    road.stock.free[SKU] = 5
    accepted(await road.place("k-2"))
    assert [ledger.owner for ledger in road.ledgers][1:] == [road.leases.owner]
    assert road.ledgers[0].closed


async def test_committer_ends_when_the_queue_is_closed_and_empty() -> None:
    road = Road({SKU: 0})
    road.hold(10)
    placing = [road.send(f"k-{number}") for number in range(3)]
    await turns()
    road.queue.close()
    await road.committer.run()
    for task in placing:
        accepted(await task)
    assert road.ledger.closed
    await road.close()


async def test_committer_drains_a_closed_queue_though_the_ledger_was_away() -> None:
    road = Road({SKU: 0})
    road.hold(10)
    placing = road.send()
    await turns()
    road.admission.open = False
    road.queue.close()
    await road.committer.run()
    accepted(await placing)
    await road.close()


async def test_committer_fenced_order_is_committed_while_the_queue_drains() -> None:
    road = Road({SKU: 0})
    road.hold(3)
    road.hold(3)
    placing = road.send()
    await turns()
    road.ledger.answers = [lambda entries: [fenced(entry) for entry in entries]]
    road.leases.close()
    road.queue.close()
    await road.committer.run()
    accepted(await placing)
    await road.close()


class Watch:
    """The clock that does not step, which goes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_committer_tells_the_queue_how_long_orders_took_without_its_rests(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, told = Watch(), list[tuple[int, float]]()
    monkeypatch.setattr(room, "time", watch)
    monkeypatch.setattr(road.queue, "committed", lambda orders, seconds: told.append((orders, seconds)))
    watch.now += 3600  # Nobody wants anything.
    road.ledger.held.clear()
    first = road.send("k-1")
    await turns()
    second = road.send("k-2")
    await turns()
    watch.now += 2
    road.ledger.held.set()
    accepted(await first)
    accepted(await second)
    assert told == [(1, 2.0), (1, 0.0)]
    watch.now += 3600
    accepted(await road.send("k-3"))
    assert told[2:] == [(1, 0.0)]
