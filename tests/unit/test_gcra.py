"""GCRA: a meter never lets more through than its burst and what its rate brings, lets through all that this allows, and
is merged with others by telling charges.
"""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.gcra import SECOND_NS, Meter, Policy, policy_of

START_NS = 10**15
MS = 10**6

policies = st.builds(
    lambda per_s, burst: policy_of("client", per_s, burst),
    st.floats(0.01, 100_000, allow_nan=False),
    st.integers(0, 500),
)
# Pauses between requests, in nanoseconds: many at once, many about a period of usual rates, some long.
pauses = st.lists(st.one_of(st.just(0), st.integers(0, 20 * MS), st.integers(0, 100 * SECOND_NS)), max_size=150)


def policy(per_s: float = 10, burst: int = 3) -> Policy:
    made = policy_of("client", per_s, burst)
    assert made is not None
    return made


def times(pauses_ns: list[int]) -> list[int]:
    now_ns = START_NS
    return [now_ns := now_ns + pause_ns for pause_ns in pauses_ns]


class Bucket:
    """The model: a bucket of `burst` tokens that one token falls into each period, reckoned without rounding."""

    def __init__(self, rate: Policy) -> None:
        self._rate = rate
        self._tokens = Fraction(rate.burst)
        self._at_ns = START_NS

    def try_take(self, now_ns: int) -> bool:
        gained = Fraction(now_ns - self._at_ns, self._rate.period_ns)
        self._tokens, self._at_ns = min(Fraction(self._rate.burst), self._tokens + gained), now_ns
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@given(rate=policies, pauses_ns=pauses)
def test_meter_admits_what_a_bucket_of_tokens_does(rate: Policy, pauses_ns: list[int]) -> None:
    meter, bucket = Meter(rate), Bucket(rate)
    assert [not meter.try_take(now_ns) for now_ns in times(pauses_ns)] == [bucket.try_take(t) for t in times(pauses_ns)]


@given(rate=policies, pauses_ns=pauses)
def test_meter_in_any_window_admits_no_more_than_burst_and_rate(rate: Policy, pauses_ns: list[int]) -> None:
    meter = Meter(rate)
    admitted = [now_ns for now_ns in times(pauses_ns) if not meter.try_take(now_ns)]
    for first, start_ns in enumerate(admitted):
        for count, end_ns in enumerate(admitted[first:], 1):
            assert count <= rate.burst + (end_ns - start_ns) / rate.period_ns


@given(rate=policies, pauses_ns=pauses)
def test_meter_that_refuses_says_when_it_would_not(rate: Policy, pauses_ns: list[int]) -> None:
    meter = Meter(rate)
    for now_ns in times(pauses_ns):
        before = (meter.due_ns, meter.charged_ns)
        early_ns = meter.try_take(now_ns)
        if early_ns:
            assert (meter.due_ns, meter.charged_ns) == before
            assert Meter(rate, meter.due_ns).try_take(now_ns + early_ns - 1) == 1
            assert Meter(rate, meter.due_ns).try_take(now_ns + early_ns) == 0


@given(rate=policies, pauses_ns=pauses)
def test_meter_left_is_what_goes_through_at_once_and_early_when_one_more_does(
    rate: Policy, pauses_ns: list[int]
) -> None:
    meter = Meter(rate)
    for now_ns in times(pauses_ns):
        meter.try_take(now_ns)
    now_ns = START_NS + sum(pauses_ns)
    left, early_ns = meter.left(now_ns), meter.early_ns(now_ns)
    assert 0 <= left <= rate.burst
    assert (early_ns == 0) == (meter.due_ns <= now_ns)
    if early_ns:
        assert meter.left(now_ns + early_ns - 1) == left
        assert meter.left(now_ns + early_ns) == left + 1
    assert [Meter.try_take(meter, now_ns) > 0 for _ in range(left + 1)] == [False] * left + [True]


def test_meter_charges_are_told_once_with_their_first_moment() -> None:
    meter = Meter(policy(per_s=10, burst=3))
    assert [meter.try_take(START_NS + at) for at in (5, 7)] == [0, 0]
    assert (meter.since_ns, meter.tell(), meter.tell()) == (START_NS + 5, 2 * meter.policy.period_ns, 0)


def test_meter_merged_counts_what_others_have_charged_and_what_was_not_told() -> None:
    meter = Meter(policy(per_s=10, burst=3))
    meter.try_take(START_NS)
    meter.tell()
    meter.try_take(START_NS)
    meter.merge(START_NS + 2 * meter.policy.period_ns)  # Its own first request, and one of somebody else.
    assert meter.left(START_NS) == 0


def test_meter_merged_with_less_than_it_knows_keeps_what_it_knows() -> None:
    meter = Meter(policy(per_s=10, burst=3))
    for _ in range(3):
        meter.try_take(START_NS)
    meter.tell()
    meter.merge(START_NS)
    assert meter.left(START_NS) == 0


def test_meter_is_idle_once_its_burst_is_whole_and_all_is_told() -> None:
    meter = Meter(policy(per_s=10, burst=3))
    meter.try_take(START_NS)
    later_ns = START_NS + meter.policy.period_ns
    assert not meter.is_idle(later_ns)
    meter.tell()
    assert [meter.is_idle(later_ns - 1), meter.is_idle(later_ns)] == [False, True]


@pytest.mark.parametrize(
    ("per_s", "burst", "quota", "window_s"),
    [(500, 100, 500, 1), (2, 5, 6, 3), (0.1, 1, 1, 10), (0.1, 5, 5, 50), (2, 0, 2, 1), (0.5, 0, 1, 2), (1.5, 0, 3, 2)],
)
def test_policy_says_its_rate_in_whole_seconds(per_s: float, burst: int, quota: int, window_s: int) -> None:
    made = policy(per_s, burst)
    assert (made.quota, made.window_s) == (quota, window_s)
    assert made.quota >= made.burst


def test_policy_without_a_rate_is_none() -> None:
    assert policy_of("client", 0, 0) is None


@given(per_s=st.floats(1 / 86_400, 100_000, allow_nan=False), burst=st.integers(0, 100_000))
def test_policy_keeps_the_rate(per_s: float, burst: int) -> None:
    made = policy(per_s, burst)
    assert made.period_ns == pytest.approx(SECOND_NS / per_s, rel=1e-4)
    assert made.tolerance_ns == made.burst * made.period_ns
    assert burst in {made.burst, 0}
    assert made.burst >= 1
