"""The books of the naive peer: what was acknowledged has a row, and what has a row was under way or acknowledged."""

import uuid
from collections.abc import Set as AbstractSet

import pytest

from bench.failure import ScenarioError
from bench.scenarios import naive
from bench.wrk import Load

CONNECTIONS = 2
IDS = [uuid.uuid4() for _ in range(10)]


def faults(told: list[uuid.UUID], rows: AbstractSet[uuid.UUID], acknowledged: int = 0) -> list[str]:
    answers = {"201": acknowledged or len(told)}
    load = Load(answers, list(map(str, told)), 2.0, 0.0, 1.0, 2.0, 0.1, 0)
    return naive._run(load, {"worker": 1.0}, set(rows), CONNECTIONS).faults


def test_books_of_a_clean_run_have_no_fault() -> None:
    assert faults(IDS, {*IDS}) == []


def test_books_may_hold_an_order_of_each_connection_that_nobody_was_told_of() -> None:
    assert faults(IDS[:8], {*IDS}) == []


def test_books_with_more_orders_than_were_asked_for_forbid_the_headline() -> None:
    assert faults(IDS[:7], {*IDS}) == ["the naive peer has 3 orders without an answer, and 2 connections"]


def test_books_without_an_acknowledged_order_forbid_the_headline() -> None:
    assert faults(IDS, {*IDS[1:]}) == ["1 acknowledged orders are not in the naive peer's table"]


def test_books_in_which_two_answers_have_one_order_forbid_the_headline() -> None:
    assert faults(IDS[:9], {*IDS[:9]}, acknowledged=10) == ["1 acknowledged orders are not in the naive peer's table"]


def test_peer_that_takes_no_order_says_what_it_answers() -> None:
    load = Load({"500": 3}, [], 1.0, 0.0, 1.0, 2.0, 0.1, 1)
    with pytest.raises(ScenarioError, match="500"):
        naive._run(load, {}, set(), CONNECTIONS)
