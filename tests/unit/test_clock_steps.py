"""Steps of the ledger's clock: seen as soon as they are larger than what a slow look explains."""

import pytest

from gateway.clock_steps import ClockSteps
from persistence.postgres.control import Reading
from persistence.postgres.expiry import Look

START = Reading(1_000.0, 10.0, 10.1)


@pytest.fixture
def steps() -> ClockSteps:
    steps = ClockSteps("boot")
    learn(steps, START)
    return steps


def learn(steps: ClockSteps, reading: Reading) -> float:
    """What it sees, before it learns of it."""
    ahead_s = steps.ahead_s(reading)
    steps.learn(Look(reading, 0))
    return ahead_s


def test_first_look_sees_nothing() -> None:
    assert ClockSteps("boot").ahead_s(START) == 0.0


def test_clock_that_goes_on_as_time_does_has_no_step(steps: ClockSteps) -> None:
    assert learn(steps, Reading(1_050.0, 60.0, 60.1)) == 0.0


def test_clock_that_was_put_forward_is_seen_with_the_most_that_it_may_be(steps: ClockSteps) -> None:
    assert learn(steps, Reading(1_061.0, 11.0, 11.1)) == pytest.approx(60.1)
    assert learn(steps, Reading(1_062.0, 12.0, 12.1)) == 0.0


def test_step_is_seen_until_it_has_been_learnt(steps: ClockSteps) -> None:
    assert steps.ahead_s(Reading(1_061.0, 11.0, 11.1)) > 0
    assert steps.ahead_s(Reading(1_062.0, 12.0, 12.1)) > 0


@pytest.mark.parametrize("answered_at", [61.1, 3_600.0])
def test_slow_look_is_no_step(steps: ClockSteps, answered_at: float) -> None:
    assert learn(steps, Reading(1_051.0, 11.0, answered_at)) == 0.0


def test_step_that_a_slow_look_hid_is_seen_by_the_next_fast_one(steps: ClockSteps) -> None:
    assert learn(steps, Reading(1_002.0, 11.0, 12.0)) == 0.0
    assert learn(steps, Reading(1_004.1, 13.0, 13.01)) == pytest.approx(1.2, abs=0.2)


def test_fast_look_from_before_outweighs_slow_ones(steps: ClockSteps) -> None:
    for number in range(5):
        assert learn(steps, Reading(1_001.5 + number, 11.0 + number, 11.9 + number)) == 0.0
    assert learn(steps, Reading(1_007.2, 17.0, 17.01)) == pytest.approx(0.3, abs=0.1)


def test_clock_that_runs_away_as_ntp_slews_it_has_no_step(steps: ClockSteps) -> None:
    for second in range(1, 600):
        assert learn(steps, Reading(1_000.0 + second * 1.0004, 10.0 + second, 10.001 + second)) == 0.0


def test_clock_that_was_put_back_is_no_step_and_what_follows_is_compared_with_it(steps: ClockSteps) -> None:
    assert learn(steps, Reading(900.0, 11.0, 11.1)) == 0.0
    assert learn(steps, Reading(1_002.0, 12.0, 12.1)) == pytest.approx(101.1)
