"""Outcomes: a refusal is a code of the registry, with the status that the registry gives it."""

import pytest

from core_ext.codes import PROBLEMS
from gateway.domain.outcomes import ProblemError, Refusal, refuse


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
