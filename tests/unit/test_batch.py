"""The queue between admission and committer: bounded in count, bytes and age, first in, first out, a buyer of a limited
SKU once a batch.
"""

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import BEHIND_MAX, TELLING_MIN, WAITING_MIN, BatchQueue, Buyer, Pending
from gateway.domain.outcomes import Refusal
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import pending, settings, turns


def queue_of(*orders: Pending, **bounds: int) -> BatchQueue:
    queue = BatchQueue(settings(batch=bounds).batch)
    for order in orders:
        queue.put(order, order.queued_at)
    return queue


async def test_queue_gives_what_waits_in_order_of_arrival() -> None:
    orders = [pending() for _ in range(5)]
    assert await queue_of(*orders).take() == orders


async def test_queue_gives_a_single_order_at_once() -> None:
    queue = queue_of()
    taking = asyncio.ensure_future(queue.take())
    await turns()
    assert not taking.done()
    order = pending()
    queue.put(order, START_S)
    assert await taking == [order]


async def test_queue_gives_at_most_rows_max_orders() -> None:
    queue = queue_of(*(pending() for _ in range(5)), rows_max=2)
    assert [len(await queue.take()) for _ in range(3)] == [2, 2, 1]


async def test_queue_gives_at_most_bytes_max() -> None:
    queue = queue_of(*(pending(size=40_000) for _ in range(3)), bytes_max=100_000)
    assert [len(await queue.take()) for _ in range(2)] == [2, 1]


async def test_queue_gives_an_order_alone_that_is_larger_than_bytes_max() -> None:
    queue = queue_of(pending(size=300_000), pending(), bytes_max=65_536)
    assert [len(await queue.take()) for _ in range(2)] == [1, 1]


async def test_queue_counts_the_bytes_that_wait() -> None:
    queue = queue_of(pending(size=300), pending(size=500), rows_max=1)
    assert queue.size == 800
    await queue.take()
    assert (queue.size, len(queue)) == (500, 1)


async def test_queue_full_by_count_has_no_room() -> None:
    queue = queue_of(pending(), queue_rows_max=2)
    assert queue.room(START_S)
    queue.put(pending(), START_S)
    assert not queue.room(START_S)


async def test_queue_full_by_bytes_has_no_room() -> None:
    queue = queue_of(pending(size=65_535), queue_bytes_max=65_536)
    assert queue.room(START_S)
    queue.put(pending(size=1), START_S)
    assert not queue.room(START_S)


async def test_queue_with_an_old_head_and_more_than_one_commit_has_no_room() -> None:
    queue = queue_of(pending(), pending(), rows_max=2, age_ms_max=100)
    assert queue.room(START_S + 0.05)
    assert not queue.room(START_S + 0.15)


async def test_queue_with_an_old_head_and_less_than_one_commit_has_room() -> None:
    assert queue_of(pending(), rows_max=2, age_ms_max=100).room(START_S + 60)


async def test_queue_has_room_again_after_a_take() -> None:
    queue = queue_of(pending(), pending(), rows_max=1, queue_rows_max=2)
    await queue.take()
    assert queue.room(START_S)


async def test_queue_that_knows_no_rate_is_bounded_by_the_setting_alone() -> None:
    assert queue_of(queue_rows_max=5000).waiting_max == 5000


@pytest.mark.parametrize(
    ("orders", "seconds", "waiting_max"), [(500, 0.025, 800), (100, 1.0, WAITING_MIN), (1000, 0.001, 5000)]
)
async def test_queue_holds_what_its_commits_take_in_time(orders: int, seconds: float, waiting_max: int) -> None:
    queue = queue_of(queue_rows_max=5000)
    queue.committed(orders, seconds)
    assert queue.waiting_max == waiting_max


async def test_queue_learns_nothing_from_a_small_commit() -> None:
    queue = queue_of(queue_rows_max=5000)
    queue.committed(TELLING_MIN - 1, 60.0)
    assert queue.waiting_max == 5000


async def test_queue_follows_a_rate_that_falls() -> None:
    queue = queue_of(queue_rows_max=5000)
    seen = []
    for seconds in (0.01, 0.1, 0.1):
        queue.committed(1000, seconds)
        seen.append(queue.waiting_max)
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[2] > WAITING_MIN


async def test_queue_with_more_than_its_commits_take_in_time_has_no_room() -> None:
    queue = queue_of(*(pending() for _ in range(WAITING_MIN - 1)))
    queue.committed(TELLING_MIN, 1.0)
    assert queue.room(START_S)
    queue.put(pending(), START_S)
    assert not queue.room(START_S)


async def test_queue_closed_gives_what_waits_and_then_nothing() -> None:
    queue = queue_of(pending(), pending(), rows_max=1)
    queue.close()
    assert [len(await queue.take()) for _ in range(4)] == [1, 1, 0, 0]


async def test_queue_closed_while_the_committer_waits_gives_nothing() -> None:
    queue = queue_of()
    taking = asyncio.ensure_future(queue.take())
    await turns()
    queue.close()
    assert await taking == []


async def test_queue_overdue_orders_leave_it_and_the_others_stay() -> None:
    old, young = pending(size=300), pending(size=500, queued_at=START_S + 10)
    queue = queue_of(old, young)
    assert queue.take_overdue(START_S + 5) == [old]
    assert (queue.size, await queue.take()) == (500, [young])


async def test_queue_without_overdue_orders_stays_as_it_is() -> None:
    queue = queue_of(pending())
    assert queue.take_overdue(START_S) == []
    assert len(queue) == 1


ANN, BOB = ("TEA", "ann"), ("TEA", "bob")


async def test_queue_gives_a_buyer_once_a_batch_and_his_next_order_first_in_the_next() -> None:
    first, second, third = (pending(buyers=[ANN]) for _ in range(3))
    others = [pending(), pending(buyers=[BOB]), pending(buyers=[("POT", "ann")])]
    queue = queue_of(first, second, *others, third)
    assert await queue.take() == [first, *others]
    late = pending()
    queue.put(late, START_S)
    assert [await queue.take() for _ in range(2)] == [[second, late], [third]]


async def test_queue_gives_a_buyer_who_was_left_in_the_queue_in_his_turn() -> None:
    first, second, other = pending(buyers=[ANN]), pending(buyers=[ANN]), pending()
    queue = queue_of(other, first, second, rows_max=1)
    assert [await queue.take() for _ in range(3)] == [[other], [first], [second]]


async def test_queue_holds_an_order_of_two_limits_back_for_either() -> None:
    ann, bob, both, after = pending(buyers=[ANN]), pending(buyers=[BOB]), pending(buyers=[ANN, BOB]), pending()
    queue = queue_of(ann, bob, both, after)
    assert [await queue.take() for _ in range(2)] == [[ann, bob, after], [both]]


async def test_queue_counts_who_waits_behind_another() -> None:
    queue = queue_of(*(pending(size=300, buyers=[ANN]) for _ in range(3)), queue_rows_max=3)
    assert (len(queue), queue.size, queue.room(START_S)) == (3, 900, False)
    await queue.take()
    assert (len(queue), queue.size, queue.room(START_S)) == (2, 600, True)


async def test_queue_has_no_room_behind_a_buyer_who_has_too_many_and_has_for_others() -> None:
    queue = queue_of(*(pending(buyers=[ANN]) for _ in range(BEHIND_MAX + 1)))
    assert not queue.room(START_S, pending(buyers=[ANN]).entry.limits)
    assert queue.room(START_S, pending(buyers=[BOB]).entry.limits)
    await queue.take()
    assert queue.room(START_S, pending(buyers=[ANN]).entry.limits)


async def test_queue_overdue_orders_behind_others_leave_it_and_the_next_moves_up() -> None:
    old, young = [pending(buyers=[ANN]) for _ in range(2)], [pending(queued_at=START_S + 10, buyers=[ANN])]
    queue = queue_of(*old, *young)
    assert queue.take_overdue(START_S + 5) == old
    assert (len(queue), queue.size) == (1, 100)
    assert await queue.take() == young


async def test_queue_closed_gives_who_waits_behind_another_and_then_nothing() -> None:
    queue = queue_of(*(pending(buyers=[ANN]) for _ in range(3)))
    queue.close()
    assert [len(await queue.take()) for _ in range(5)] == [1, 1, 1, 0, 0]


buyer_lists = st.lists(st.sampled_from([("A", "ann"), ("A", "bob"), ("B", "ann")]), max_size=2, unique=True)


@given(turns_=st.lists(st.lists(buyer_lists, max_size=6), max_size=6), rows_max=st.integers(1, 4))
async def test_queue_gives_every_order_once_and_those_of_a_buyer_in_order(
    turns_: list[list[list[Buyer]]], rows_max: int
) -> None:
    queue, put, taken = queue_of(rows_max=rows_max), 0, []
    in_order: dict[tuple[Buyer, ...], list[Pending]] = defaultdict(list)
    for orders in turns_:
        for buyers in orders:
            order = pending(buyers=buyers)
            in_order[tuple(buyers)].append(order)
            queue.put(order, START_S)
            put += 1
        if len(queue):
            taken.append(await queue.take())
    queue.close()
    while batch := await queue.take():
        taken.append(batch)
    for batch in taken:
        buyers = [limit.buyer for order in batch for limit in order.entry.limits]
        assert len(buyers) == len(set(buyers))
    everything = [order for batch in taken for order in batch]
    assert (len(everything), len(queue), queue.size) == (put, 0, 0)
    for same in in_order.values():
        assert [order for order in everything if order in same] == same


async def test_pending_is_answered_once() -> None:
    order = pending()
    order.answer(Refusal("ledger_away"))
    order.answer(Refusal("internal"))
    assert order.outcome.result() == Refusal("ledger_away")
