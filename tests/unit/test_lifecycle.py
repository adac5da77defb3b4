"""The table of an order's life: what it says of every pair of states, and that the ledger's guard says the same."""

import re

import pytest

from gateway.domain.lifecycle import CHANGES, ENDED, FIRST, STATUSES, allowed, guard_sql, moves
from persistence.postgres.migrate import SQL

SPACE = re.compile(r"\s+")


def test_every_state_is_reached_from_a_first_one() -> None:
    reached = set(FIRST)
    while further := {after for before, after in moves() if before in reached} - reached:
        reached |= further
    assert reached == set(STATUSES)


@pytest.mark.parametrize("status", ENDED)
def test_ended_order_stays_what_it_is(status: str) -> None:
    assert [after for before, after in moves() if before == status] == [status]
    assert allowed(status) == ["receive_money", "return_money"]


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in ENDED])
def test_order_that_has_not_ended_can_go_on(status: str) -> None:
    assert any(before == status != after for before, after in moves())


def test_money_comes_and_goes_in_every_state() -> None:
    assert all(CHANGES["receive_money"].targets(status) == (status,) for status in STATUSES)
    assert all(CHANGES["return_money"].targets(status) == (status,) for status in STATUSES)


def test_allowed_names_only_what_was_asked_about() -> None:
    assert allowed("paid", ("cancel", "expire", "prepare")) == ["cancel", "prepare"]
    assert allowed("shipped", ("cancel",)) == []


def test_an_order_that_failed_to_be_refunded_may_be_what_it_was_before() -> None:
    before = {source for source, _ in CHANGES["refund"].moves}
    assert set(CHANGES["fail_refund"].targets("refunding")) == before


def test_guard_of_the_ledger_is_made_from_the_table() -> None:
    ledger = SPACE.sub(" ", (SQL / "0014_lifecycle.sql").read_text())
    assert SPACE.sub(" ", guard_sql()) in ledger
