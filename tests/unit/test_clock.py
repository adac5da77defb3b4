"""The clock: PostgreSQL's time carried by the monotonic one, and what makes it unknown."""

import time

import pytest

from gateway.clock import AGE_MAX_S, OFFSET_MAX_S, Clock


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The host's clocks, as the test sets them."""
    set_to = {"wall": 1000.0, "monotonic": 50.0}
    monkeypatch.setattr(time, "time", lambda: set_to["wall"])
    monkeypatch.setattr(time, "monotonic", lambda: set_to["monotonic"])
    return set_to


def test_clock_before_the_first_heartbeat_is_unknown(hands: dict[str, float]) -> None:
    assert not Clock().known


def test_clock_after_a_heartbeat_shows_the_time_of_the_ledger(hands: dict[str, float]) -> None:
    clock = Clock()
    clock.observe(1002.5)
    assert clock.known
    assert clock.now_s() == 1002.5
    assert clock.offset_s == 2.5


def test_clock_moves_with_the_monotonic_clock_when_the_wall_clock_is_stepped(hands: dict[str, float]) -> None:
    clock = Clock()
    clock.observe(1000.0)
    hands.update(wall=5.0, monotonic=53.25)
    assert clock.now_s() == 1003.25
    assert clock.now_ms() == 1_003_250


@pytest.mark.parametrize("offset_s", [OFFSET_MAX_S + 1, -OFFSET_MAX_S - 1])
def test_clock_of_a_host_that_is_far_off_is_unknown(hands: dict[str, float], offset_s: float) -> None:
    clock = Clock()
    clock.observe(1000.0 + offset_s)
    assert not clock.known


def test_clock_without_a_heartbeat_for_long_is_unknown_until_the_next(hands: dict[str, float]) -> None:
    clock = Clock()
    clock.observe(1000.0)
    hands["monotonic"] += AGE_MAX_S + 1
    assert not clock.known
    clock.observe(1000.0)
    assert clock.known
