"""The clock: PostgreSQL's time carried by the monotonic one, never ahead of it and little late, and what makes it
unknown.
"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import AGE_MAX_S, DRIFT, OFFSET_MAX_S, WINDOW_S, Clock


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The host's clocks, as the test sets them."""
    set_to = {"wall": 1000.0, "monotonic": 50.0}
    monkeypatch.setattr(time, "time", lambda: set_to["wall"])
    monkeypatch.setattr(time, "monotonic", lambda: set_to["monotonic"])
    return set_to


def at_once(clock: Clock, ledger_time_s: float) -> None:
    """A heartbeat that took no time at all."""
    clock.observe(ledger_time_s, time.monotonic(), time.monotonic())


def beat(clock: Clock, hands: dict[str, float], at: float, offset: float, there: float, back: float) -> None:
    """A heartbeat asked at `at` whose question took `there` and whose answer took `back`; PostgreSQL's clock is the
    monotonic one plus `offset`.
    """
    hands["monotonic"] = at + there + back
    clock.observe(at + there + offset, at, at + there + back)


def test_clock_before_the_first_heartbeat_is_unknown(hands: dict[str, float]) -> None:
    assert not Clock().known


def test_clock_after_a_heartbeat_shows_the_time_of_the_ledger(hands: dict[str, float]) -> None:
    clock = Clock()
    at_once(clock, 1002.5)
    assert clock.known
    assert clock.now_s() == 1002.5
    assert clock.offset_s == 2.5


def test_clock_moves_with_the_monotonic_clock_when_the_wall_clock_is_stepped(hands: dict[str, float]) -> None:
    clock = Clock()
    at_once(clock, 1000.0)
    hands.update(wall=5.0, monotonic=53.25)
    assert clock.now_s() == pytest.approx(1003.25, abs=4 * DRIFT)


def test_clock_takes_the_whole_way_of_a_heartbeat_for_its_way_back(hands: dict[str, float]) -> None:
    clock = Clock()
    beat(clock, hands, at=50.0, offset=950.0, there=0.3, back=0.1)
    assert clock.now_s() == pytest.approx(1000.3)


def test_clock_keeps_the_heartbeat_that_came_back_fastest(hands: dict[str, float]) -> None:
    clock = Clock()
    beat(clock, hands, at=50.0, offset=950.0, there=0.001, back=0.001)
    beat(clock, hands, at=51.0, offset=950.0, there=0.001, back=0.4)
    assert 951.0 + 50.401 - 0.0012 < clock.now_s() <= 951.0 + 50.401


def test_clock_becomes_less_late_with_a_faster_heartbeat(hands: dict[str, float]) -> None:
    clock = Clock()
    beat(clock, hands, at=50.0, offset=950.0, there=0.001, back=0.4)
    beat(clock, hands, at=51.0, offset=950.0, there=0.001, back=0.002)
    assert clock.now_s() == pytest.approx(950.0 + 51.001)


def test_clock_forgets_a_heartbeat_of_long_ago(hands: dict[str, float]) -> None:
    clock = Clock()
    beat(clock, hands, at=50.0, offset=950.0, there=0.001, back=0.0)
    beat(clock, hands, at=51.0 + WINDOW_S, offset=950.0, there=0.001, back=0.4)
    assert clock.now_s() == pytest.approx(950.0 + 51.001 + WINDOW_S)


@pytest.mark.parametrize("seconds", [1.0, AGE_MAX_S])
def test_clock_sinks_by_what_the_clocks_may_have_drifted_apart(hands: dict[str, float], seconds: float) -> None:
    clock = Clock()
    at_once(clock, 1000.0)
    hands["monotonic"] += seconds
    assert clock.now_s() == pytest.approx(1000.0 + seconds * (1 - DRIFT), abs=1e-9)


def test_clock_of_a_ledger_that_was_stepped_back_follows_at_once(hands: dict[str, float]) -> None:
    clock = Clock()
    beat(clock, hands, at=50.0, offset=950.0, there=0.001, back=0.001)
    beat(clock, hands, at=51.0, offset=949.5, there=0.001, back=0.001)
    assert clock.now_s() == pytest.approx(949.5 + 51.001)


def test_clock_of_a_ledger_that_was_stepped_forward_follows_at_once(hands: dict[str, float]) -> None:
    clock = Clock()
    beat(clock, hands, at=50.0, offset=950.0, there=0.001, back=0.001)
    beat(clock, hands, at=51.0, offset=950.5, there=0.001, back=0.001)
    assert clock.now_s() == pytest.approx(950.5 + 51.001)


@given(
    ways=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0.01, 40)), min_size=1, max_size=40),
    drift=st.floats(-0.9 * DRIFT, 0.9 * DRIFT),
    later=st.floats(0, AGE_MAX_S),
)
def test_clock_is_never_ahead_of_the_ledger(ways: list[tuple[float, float, float]], drift: float, later: float) -> None:
    """However long the ways are, and however the clocks drift apart within what is allowed for."""
    hands = {"wall": 1000.0, "monotonic": 50.0}

    def ledger_s(monotonic: float) -> float:
        return 950.0 + monotonic * (1 + drift)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: hands["wall"])
        patch.setattr(time, "monotonic", lambda: hands["monotonic"])
        clock = Clock()
        for there, back, pause in ways:
            asked_at = hands["monotonic"] + pause
            hands["monotonic"] = asked_at + there + back
            clock.observe(ledger_s(asked_at + there), asked_at, hands["monotonic"])
            assert ledger_s(hands["monotonic"] - back) - 1e-9 <= clock.now_s() <= ledger_s(hands["monotonic"]) + 1e-9
        hands["monotonic"] += later
        assert clock.now_s() <= ledger_s(hands["monotonic"]) + 1e-9


@pytest.mark.parametrize("offset_s", [OFFSET_MAX_S + 1, -OFFSET_MAX_S - 1])
def test_clock_of_a_host_that_is_far_off_is_unknown(hands: dict[str, float], offset_s: float) -> None:
    clock = Clock()
    at_once(clock, 1000.0 + offset_s)
    assert not clock.known


def test_clock_without_a_heartbeat_for_long_is_unknown_until_the_next(hands: dict[str, float]) -> None:
    clock = Clock()
    at_once(clock, 1000.0)
    hands["monotonic"] += AGE_MAX_S + 1
    assert not clock.known
    at_once(clock, 1000.0)
    assert clock.known
