"""Rates of clients and customers in one worker, and what several make of one through a common store: rules, refusals,
headers, merging, forgetting, and a store that is away.
"""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import rates as module
from gateway.domain.access import Client
from gateway.domain.gcra import SECOND_NS
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Refusal
from gateway.metrics import Counters
from gateway.rates import Allowance, Rates
from gateway.settings import RateRule
from persistence.errors import MirrorUnavailableError
from persistence.redis.rates import Charge

SHOP = Client(7, "shop", frozenset(), frozenset())
RULE = RateRule("shop", requests_per_s=10, burst=3, customer_requests_per_s=2, customer_burst=2)
PERIOD_NS = SECOND_NS // 10


class Time:
    """Nanoseconds that move when the test says so."""

    def __init__(self) -> None:
        self.now_ns = 10**15

    def __call__(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += round(seconds * SECOND_NS)


class FakeStore:
    """The common times as the script keeps them, by the test's clock."""

    def __init__(self, time: Time) -> None:
        self._time = time
        self.due_us: dict[bytes, int] = {}
        self.told: list[Charge] = []
        self.away = False
        self.deaf = False
        self.takes_s = 0.0  # to answer one call
        self.closed = False

    async def charge(self, charges: Sequence[Charge]) -> list[int | None]:
        if self.away:
            raise MirrorUnavailableError("away")
        self._time.pass_s(self.takes_s)
        self.told += charges
        if self.deaf:
            return [None] * len(charges)
        return [self._add(charge) for charge in charges]

    async def aclose(self) -> None:
        self.closed = True

    def _add(self, charge: Charge) -> int:
        now_us = self._time() // 1000
        due_us = max(self.due_us.get(charge.key, 0), now_us - charge.age_us) + charge.charged_us
        self.due_us[charge.key] = min(due_us, now_us + charge.ahead_us_max)
        return self.due_us[charge.key] - now_us


class World:
    """Workers that share a store and a clock."""

    def __init__(self, rule: RateRule | None = RULE, workers: int = 1) -> None:
        self.time = Time()
        self.store = FakeStore(self.time)
        self.rules: dict[str, RateRule | None] = {"shop": rule}
        self.counters = Counters()
        self.workers = [
            Rates(self.rules.get, Hasher(bytes(32)), self.store, self.counters, self.time)  # type: ignore[arg-type]
            for _ in range(workers)
        ]

    @property
    def rates(self) -> Rates:
        return self.workers[0]

    def allowance(self, worker: int = 0) -> Allowance:
        found = self.workers[worker].of(SHOP)
        assert found is not None
        return found

    def admitted(self, worker: int = 0, most: int = 1000) -> int:
        """How many requests the client gets through at once."""
        for count in range(most):
            if self.allowance(worker).refusal():
                return count
        return most

    def ordered(self, customer_id: str, worker: int = 0, most: int = 1000) -> int:
        """How many orders a customer gets through at once."""
        for count in range(most):
            if self.allowance(worker).refusal_of(customer_id):
                return count
        return most

    async def exchange(self) -> None:
        for rates in self.workers:
            await rates.exchange()


def headers_of(world: World, refusal: Refusal | None = None) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in world.allowance().headers(refusal)}


def test_rates_of_a_client_without_a_rule_are_none() -> None:
    assert World(rule=None).rates.of(SHOP) is None


def test_rates_of_a_rule_that_limits_nothing_are_none() -> None:
    assert World(RateRule("*")).rates.of(SHOP) is None


def test_rates_beyond_the_burst_refuse_until_the_time_that_they_tell() -> None:
    world = World()
    assert world.admitted() == 3
    refusal = world.allowance().refusal()
    assert refusal is not None
    assert (refusal.code, refusal.retry_after_s) == ("rate_limited", 1)
    assert refusal.extra == {"violated_policies": ["client"]}
    world.time.pass_s(0.1)
    assert world.admitted() == 1


def test_rates_tell_whole_seconds_in_which_it_is_not_too_early() -> None:
    world = World(RateRule("shop", requests_per_s=0.4, burst=1))
    assert world.admitted() == 1
    refusal = world.allowance().refusal()
    assert refusal is not None
    assert refusal.retry_after_s == 3
    world.time.pass_s(3)
    assert world.admitted() == 1


async def test_rates_of_refused_requests_are_not_charged() -> None:
    world = World()
    world.admitted()
    for _ in range(100):
        assert world.allowance().refusal()
    await world.exchange()
    assert [charge.charged_us for charge in world.store.told] == [3 * PERIOD_NS // 1000]
    world.time.pass_s(0.3)
    assert world.admitted() == 3


def test_rates_of_customers_are_each_their_own_and_not_the_clients() -> None:
    world = World()
    assert [world.ordered("u-1"), world.ordered("u-2"), world.ordered("u-1")] == [2, 2, 0]
    assert world.admitted() == 3
    refusal = world.allowance().refusal_of("u-1")
    assert refusal is not None
    assert refusal.extra == {"violated_policies": ["customer"]}


@pytest.mark.parametrize(
    ("rule", "client", "customer"),
    [
        (RateRule("shop", requests_per_s=10, burst=3), 3, 50),
        (RateRule("shop", customer_requests_per_s=2, customer_burst=2), 50, 2),
    ],
)
def test_rates_that_a_rule_does_not_name_are_not_limited(rule: RateRule, client: int, customer: int) -> None:
    world = World(rule)
    assert (world.admitted(most=50), world.ordered("u-1", most=50)) == (client, customer)


def test_rates_count_what_they_refuse() -> None:
    world = World()
    world.admitted()
    world.ordered("u-1")
    world.ordered("u-1")
    assert (world.counters.clients_limited, world.counters.customers_limited) == (1, 2)


def test_headers_say_the_policies_and_where_the_client_stands() -> None:
    world = World()
    assert headers_of(world) == {
        "ratelimit-policy": '"client";q=10;w=1, "customer";q=2;w=1',
        "ratelimit": '"client";r=3;t=0',
    }
    world.allowance().refusal()
    assert headers_of(world)["ratelimit"] == '"client";r=2;t=1'


def test_headers_of_a_refusal_say_when_to_come_again() -> None:
    world = World(RateRule("shop", requests_per_s=0.4, burst=1, customer_requests_per_s=0.2, customer_burst=1))
    world.admitted()
    world.ordered("u-1")
    client, customer = world.allowance().refusal(), world.allowance().refusal_of("u-1")
    assert headers_of(world, client)["ratelimit"] == '"client";r=0;t=3'
    assert headers_of(world, customer)["ratelimit"] == '"customer";r=0;t=5'


def test_headers_of_a_rule_for_customers_alone_say_its_policy() -> None:
    world = World(RateRule("shop", customer_requests_per_s=0.5, customer_burst=4))
    assert headers_of(world) == {"ratelimit-policy": '"customer";q=4;w=8'}


async def test_rates_hear_what_other_workers_have_let_through() -> None:
    world = World(RateRule("shop", requests_per_s=10, burst=4), workers=2)
    assert world.admitted(worker=0, most=2) == 2
    assert world.admitted(worker=1, most=1) == 1
    await world.exchange()
    await world.exchange()
    assert world.admitted(worker=1) == 1


async def test_rates_that_went_beyond_together_are_paid_back() -> None:
    world = World(workers=2)
    assert world.admitted(worker=0) + world.admitted(worker=1) == 6  # In one interval each gives the whole burst.
    await world.exchange()
    world.time.pass_s(0.3)  # What one burst takes: the other one's is still owed.
    assert world.admitted(worker=1) == 0
    world.time.pass_s(0.3)
    assert world.admitted(worker=1) == 3


async def test_rates_of_customers_stand_in_the_store_as_keyed_hashes() -> None:
    world = World()
    world.ordered("张三@example.com")
    await world.exchange()
    (charge,) = world.store.told
    assert len(charge.key) == 16
    assert "张三@example.com".encode() not in charge.key
    assert charge.key != hashlib.blake2b("张三@example.com".encode(), digest_size=16).digest()


async def test_rates_while_the_store_is_away_hold_in_each_worker_and_say_so() -> None:
    world = World(workers=2)
    world.store.away = True
    total = [0, 0]
    for _ in range(100):
        total = [count + world.admitted(worker) for worker, count in enumerate(total)]
        await world.exchange()
        world.time.pass_s(0.05)
    assert total == [3 + 49, 3 + 49]
    assert [rates.alone for rates in world.workers] == [True, True]


async def test_rates_when_the_store_is_back_owe_nothing_of_the_time_without_it() -> None:
    world = World(workers=2)
    world.store.away = True
    for _ in range(100):
        world.admitted(0)
        world.admitted(1)
        await world.exchange()
        world.time.pass_s(0.05)
    world.store.away = False
    world.time.pass_s(0.3)
    assert world.admitted(0) == 3
    await world.exchange()
    assert not world.rates.alone


async def test_rates_that_no_server_has_counted_are_held_alone() -> None:
    world = World()
    world.store.deaf = True
    assert world.admitted() == 3
    await world.exchange()
    assert world.rates.alone
    world.time.pass_s(0.1)
    assert world.admitted() == 1


async def test_rates_after_the_store_has_forgotten_keep_what_the_worker_knows() -> None:
    world = World()
    world.admitted()
    await world.exchange()
    world.store.due_us.clear()
    world.time.pass_s(0.1)
    assert world.admitted() == 1
    await world.exchange()
    assert world.admitted() == 0


async def test_rates_without_redis_hold_in_the_worker() -> None:
    world = World()
    rates = Rates(world.rules.get, Hasher(bytes(32)), None, Counters(), world.time)
    world.workers = [rates]
    assert world.admitted() == 3
    await rates.exchange()
    assert rates.alone
    world.time.pass_s(0.2)
    assert world.admitted() == 2


def test_rates_whose_rule_stays_go_on_where_they_stand_when_others_change() -> None:
    world = World()
    world.admitted()
    world.ordered("u-1")
    world.rules["other"] = RULE
    world.rates.apply()
    assert (world.admitted(), world.ordered("u-1")) == (0, 0)


def test_rates_whose_rule_changes_start_anew() -> None:
    world = World()
    world.admitted()
    world.ordered("u-1")
    world.rules["shop"] = RateRule("shop", 10, 5, 2, 4)
    world.rates.apply()
    assert (world.admitted(), world.ordered("u-1")) == (5, 4)


def test_rates_whose_rule_goes_are_none() -> None:
    world = World()
    world.admitted()
    del world.rules["shop"]
    world.rates.apply()
    assert world.rates.of(SHOP) is None


async def test_rates_forget_customers_whose_rate_is_as_good_as_new() -> None:
    world = World()
    for number in range(50):
        world.ordered(f"u-{number}", most=1)
    await world.exchange()
    world.time.pass_s(0.4)
    world.ordered("u-1", most=1)
    world.time.pass_s(0.1)
    await world.exchange()
    world.rates._forget()
    assert [subject.customer_id for subject in world.rates._customers] == ["u-1"]


async def test_rates_forgetting_comes_to_every_customer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOKED_AT_MAX", 10)
    world = World()
    for number in range(50):
        world.ordered(f"u-{number}", most=2 if number < 20 else 1)
    await world.exchange()
    world.time.pass_s(0.6)  # One order has been paid back, two have not.
    for _ in range(5):
        world.rates._forget()
    assert {subject.customer_id for subject in world.rates._customers} == {f"u-{number}" for number in range(20)}


def test_rates_never_keep_more_customers_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CUSTOMERS_MAX", 100)
    monkeypatch.setattr(module, "FORGOTTEN_AT_ONCE", 12)
    world = World()
    for number in range(1000):
        assert world.ordered(f"u-{number}", most=2) == 2
        assert len(world.rates._customers) <= 100
    assert world.ordered("u-999") == 0


async def test_rates_told_to_the_store_are_told_in_parts_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHARGES_MAX", 7)
    world = World()
    for number in range(30):
        world.ordered(f"u-{number}", most=1)
    await world.exchange()
    assert len({charge.key for charge in world.store.told}) == 30
    await world.exchange()
    assert len(world.store.told) == 30


async def test_rates_told_to_a_slow_store_are_told_in_bounded_time_and_the_rest_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CHARGES_MAX", 10)
    world = World()
    world.store.takes_s = 0.2
    for number in range(100):
        world.ordered(f"u-{number}", most=1)
    before_ns = world.time.now_ns
    await world.exchange()
    assert world.time.now_ns - before_ns < SECOND_NS
    told = len(world.store.told)
    assert 10 <= told < 100
    assert world.rates.alone
    world.time.pass_s(60)
    world.rates._forget()
    assert world.rates._customers == {}
    await world.exchange()
    assert len(world.store.told) == told


@given(
    workers=st.integers(1, 4),
    per_s=st.sampled_from([5.0, 40.0, 333.0]),
    burst=st.integers(1, 30),
    wishes=st.lists(st.integers(0, 60), min_size=400, max_size=400),
)
@settings(max_examples=25, deadline=None)
async def test_rates_of_workers_together_hold_but_for_what_they_owe(
    workers: int, per_s: float, burst: int, wishes: list[int]
) -> None:
    """Twenty seconds of 50 ms, in each of which a worker gets so many requests."""
    world = World(RateRule("shop", requests_per_s=per_s, burst=burst), workers)
    total = 0
    for number, wish in enumerate(wishes):
        total += world.admitted(number % workers, most=wish)
        world.time.pass_s(0.05)
        await world.exchange()
    owed = (workers - 1) * (burst + per_s * 0.05 + 1)
    assert total <= burst + per_s * 20 + owed


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("burst", [1, 10, 100])
async def test_rates_of_workers_that_are_always_asked_are_used_up(workers: int, burst: int) -> None:
    world = World(RateRule("shop", requests_per_s=100, burst=burst), workers)
    total = 0
    for turn in range(4000):  # 20 s of 5 ms
        total += sum(world.admitted(worker, most=5) for worker in range(workers))
        world.time.pass_s(0.005)
        if turn % 10 == 9:
            await world.exchange()
    owed = (workers - 1) * (burst + 100 * 0.05 + 1)
    assert 100 * 20 * 0.95 <= total <= burst + 100 * 20 + owed
