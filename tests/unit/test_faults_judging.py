"""The verdict on a history: every way in which the promise can be broken is seen, and nothing else is."""

from typing import Any

import pytest

from bench.faults.history import Entry
from bench.faults.judging import Stored, acknowledged, judge

KEY = "r01-1"
ORDER_ID = "0199-a"
THERE = [Stored(KEY, ORDER_ID, "pending_payment")]


def ok(attempt: int = 1, at: float = 1.0, order_id: str = ORDER_ID, digest: str = "d", **fields: Any) -> Entry:
    return Entry(at, "ok", KEY, attempt, status=201, order_id=order_id, digest=digest, **fields)


def refused(attempt: int = 1, at: float = 1.0, status: int = 409, code: str = "sold_out", **fields: Any) -> Entry:
    return Entry(at, "refused", KEY, attempt, status=status, code=code, **fields)


def receipt(attempt: int = 1, at: float = 1.0) -> Entry:
    return Entry(at, "receipt", KEY, attempt, status=202)


def unknown(attempt: int = 1, at: float = 1.0) -> Entry:
    return Entry(at, "unknown", KEY, attempt)


def invoke(attempt: int = 1, at: float = 0.0, **fields: Any) -> Entry:
    return Entry(at, "invoke", KEY, attempt, **fields)


def counts(entries: list[Entry], rows: list[Stored], **fields: Any) -> tuple[int, int, int]:
    verdict = judge(entries, rows, **fields)
    assert verdict.clean == (verdict.found == [])
    return verdict.lost, verdict.doubled, verdict.hung


@pytest.mark.parametrize(
    ("entries", "rows"),
    [
        ([invoke(), ok()], THERE),
        ([invoke(), refused()], []),
        ([receipt(), ok(2, 2.0, replayed=True)], THERE),
        ([unknown(), ok(2, 2.0)], THERE),
        ([unknown(), refused(2, 2.0)], THERE),  # The first request came to its end after the second one.
        ([refused(1, 1.0, 503, "ledger_away"), refused(2, 2.0)], []),
        ([ok(), ok(2, 2.0, replayed=True)], THERE),
        ([ok(), refused(1, 2.0, 422, "key_reused", kind="other")], THERE),
        ([ok(2, 2.0), refused(1, 3.0)], THERE),  # It was begun before the one that was acknowledged.
        ([ok(), Entry(2.0, "ok", KEY, 1, "cancel", 200, order_id=ORDER_ID)], [Stored(KEY, ORDER_ID, "cancelled")]),
    ],
)
def test_judge_what_holds_is_clean(entries: list[Entry], rows: list[Stored]) -> None:
    verdict = judge(entries, rows)
    assert verdict.found == []
    assert verdict.clean


@pytest.mark.parametrize("entries", [[ok()], [receipt()], [ok(), unknown(2, 2.0)]])
def test_judge_acknowledged_order_that_is_not_there_is_lost(entries: list[Entry]) -> None:
    assert counts(entries, []) == (1, 0, 0)


def test_judge_order_under_another_id_is_lost() -> None:
    lost, _, _ = counts([ok(order_id="another")], THERE)
    assert lost == 1


def test_judge_cancelled_order_that_lives_is_lost() -> None:
    cancelled = Entry(2.0, "ok", KEY, 1, "cancel", 200, order_id=ORDER_ID)
    assert counts([ok(), cancelled], THERE) == (1, 0, 0)


@pytest.mark.parametrize("entries", [[ok()], [receipt()]])
def test_judge_acknowledged_order_that_ends_cancelled_unasked_is_lost(entries: list[Entry]) -> None:
    assert counts(entries, [Stored(KEY, ORDER_ID, "cancelled")]) == (1, 0, 0)


def test_judge_two_orders_of_one_key_are_doubled() -> None:
    assert counts([ok()], [*THERE, Stored(KEY, "0199-b", "pending_payment")]) == (0, 1, 0)


def test_judge_retry_that_is_told_something_else_is_doubled() -> None:
    assert counts([ok(), ok(2, 2.0, digest="other")], THERE) == (0, 1, 0)


def test_judge_retry_that_is_refused_after_its_order_was_acknowledged_is_doubled() -> None:
    assert counts([ok(), refused(2, 2.0)], THERE) == (0, 1, 0)


def test_judge_order_of_a_key_that_was_only_refused_is_doubled() -> None:
    assert counts([refused()], THERE) == (0, 1, 0)


def test_judge_order_that_was_taken_with_another_body_is_doubled() -> None:
    assert counts([ok(), ok(1, 2.0, kind="other")], THERE) == (0, 1, 0)


def test_judge_request_without_an_answer_in_time_hangs() -> None:
    assert counts([Entry(9.0, "hung", KEY, 1), ok(2, 10.0)], THERE) == (0, 0, 1)


@pytest.mark.parametrize("last", [unknown(), refused(1, 1.0, 503, "ledger_away"), invoke()])
def test_judge_buyer_who_never_knew_hangs(last: Entry) -> None:
    assert counts([last], []) == (0, 0, 1)


def test_judge_internal_error_is_found_unless_the_order_was_spoilt() -> None:
    entries = [refused(1, 1.0, 500, "internal"), ok(2, 2.0)]
    assert judge(entries, THERE).found
    assert judge(entries, THERE, frozenset({KEY})).clean


def test_judge_order_that_nobody_asked_for_is_found() -> None:
    assert judge([], THERE).found


def test_acknowledged_counts_keys_and_those_that_have_a_receipt_alone() -> None:
    other = Entry(1.0, "receipt", "r01-2", 1, status=202)
    assert acknowledged([ok(), ok(2, 2.0), receipt(3, 3.0), other]) == (2, 1)
