"""Outcomes: a refusal is a code of the registry, with the status that the registry gives it; a promise is kept once."""

import pytest

from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import ProblemError, Promise, Refusal, refuse


@pytest.mark.parametrize("code", PROBLEMS)
def test_refusal_has_the_status_of_its_code(code: str) -> None:
    assert Refusal(code).status == PROBLEMS[code].status


def test_refuse_carries_code_detail_and_further_members() -> None:
    error = refuse("version_mismatch", "it has changed", current=3)
    assert isinstance(error, ProblemError)
    assert error.refusal == Refusal("version_mismatch", "it has changed", (), {"current": 3})


def test_refuse_of_a_code_that_is_not_in_the_registry_is_a_bug() -> None:
    with pytest.raises(AssertionError):
        refuse("no_such_code")


def test_promise_tells_those_who_wait_at_once_and_those_who_come_later() -> None:
    told: list[tuple[str, Promise]] = []
    promise = Promise()
    promise.add_done_callback(lambda kept: told.append(("first", kept)))
    promise.add_done_callback(lambda kept: told.append(("second", kept)))
    assert not promise.done()
    promise.set_result(Refusal("sold_out"))
    promise.add_done_callback(lambda kept: told.append(("late", kept)))
    assert told == [("first", promise), ("second", promise), ("late", promise)]
    assert promise.result() == Refusal("sold_out")


def test_promise_is_kept_once() -> None:
    promise = Promise()
    promise.set_result(Refusal("sold_out"))
    with pytest.raises(AssertionError):
        promise.set_result(Refusal("internal"))
    assert promise.result() == Refusal("sold_out")


def test_promise_that_is_not_kept_has_no_result() -> None:
    with pytest.raises(AssertionError):
        Promise().result()
