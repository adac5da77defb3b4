"""Settings that contradict one another keep a process from starting; doubts are only said."""

import re
from functools import partial

import pytest

from gateway.settings import Settings, SettingsError, load, value_of
from gateway.settings_sense import doubts
from tests.unit.fakes import settings


def doubted(told: Settings) -> list[str]:
    return [*doubts(partial(value_of, told))]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OWNER__HEARTBEAT_MS": "5001"}, r"owner\.timeout_ms has to be at least 2 times owner\.heartbeat_ms \(5001\)"),
        ({"NATS__MAX_AGE_S": "600", "NATS__DUPLICATE_WINDOW_S": "601"}, r"nats\.max_age_s has to be at least"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environ={f"FLOODGATE_{name}": value for name, value in environ.items()})


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"burst": 3}, r"limits\.rate\[1\]\.burst has to stand beside requests_per_s, not 3"),
        ({"customer_burst": 3}, r"\.customer_burst has to stand beside customer_requests_per_s, not 3"),
        ({"requests_per_s": 0.01, "burst": 1000}, r"\.requests_per_s has to bring a burst of 1000 back within a day"),
        ({"customer_requests_per_s": 1e-5}, r"\.customer_requests_per_s has to bring a burst of 1 back within a day"),
        ({"requests_per_s": -1}, r"\.requests_per_s has to be a number from 0 to 100000, not -1"),
        ({"requests_per_s": float("nan")}, r"\.requests_per_s has to be a number from 0 to 100000"),
        ({"requests_per_s": 100001}, r"\.requests_per_s has to be a number from 0 to 100000"),
        ({"burst": 0.5}, r"\.burst has to be a whole number from 0 to 100000"),
    ],
)
def test_rates_that_cannot_be_kept_are_refused(rule: dict[str, float], message: str) -> None:
    rules = [{"client": "shop", "requests_per_s": 5, "burst": 10}, {"client": "*"} | rule]
    with pytest.raises(SettingsError, match=message):
        settings(limits={"rate": rules})


def test_rates_that_never_count_are_doubted() -> None:
    rules = [{"client": "shop-*", "requests_per_s": 5}, {"client": "shop-1", "requests_per_s": 9}]
    assert doubted(settings(limits={"rate": rules})) == [
        "limits.rate[1] (shop-1) never counts: limits.rate[0] (shop-*) matches first"
    ]


def test_times_to_pay_that_never_count_are_doubted() -> None:
    rules = [{"channel": "tmall*", "payment_timeout_s": 60}, {"channel": "tmall-2", "payment_timeout_s": 90}]
    assert doubted(settings(orders={"rule": rules})) == [
        "orders.rule[1] (tmall-2) never counts: orders.rule[0] (tmall*) matches first"
    ]


def test_settings_at_the_edge_of_a_contradiction_can_be_used() -> None:
    assert load(environ={"FLOODGATE_OWNER__HEARTBEAT_MS": "5000"}).owner.heartbeat_ms == 5000


@pytest.mark.parametrize(
    ("key", "value"), [("retention.key_days", 365), ("batch.queue_bytes_max", 65536), ("batch.queue_rows_max", 1)]
)
def test_settings_that_a_former_release_ran_with_can_be_used(key: str, value: int) -> None:
    assert value_of(load(environ={}, flags={key: value}), key) == value


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"queue_bytes_max": 65536}, "batch.queue_bytes_max (65536) is below batch.bytes_max (450000)"),
        ({"queue_rows_max": 999}, "batch.queue_rows_max (999) is below batch.rows_max (1000)"),
    ],
)
def test_queue_that_is_smaller_than_a_commit_is_doubted(batch: dict[str, int], said: str) -> None:
    (doubt,) = doubted(settings(batch=batch))
    assert doubt.startswith(said)


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("postgres.url", "postgresql://a/b"),
        ("postgres.url", "postgresql://a:1,b:2/c"),
        ("redis.url", "redis://:p@a:1/0"),
        ("redis.url", "rediss://a"),
        ("nats.url", "nats://a:1,nats://b:1"),
        ("nats.url", "tls://a:1, nats://b"),
        ("nats.url", "nats://a:1,b:1"),
        ("nats.url", ""),
    ],
)
def test_address_of_its_kind_of_server_can_be_used(key: str, address: str) -> None:
    assert value_of(load(environ={}, flags={key: address}), key) == address


@pytest.mark.parametrize(
    ("key", "address"),
    [
        ("postgres.url", "redis://a"),
        ("postgres.url", "postgres://a"),
        ("postgres.url", "localhost:5432"),
        ("postgres.url", "postgresql://"),
        ("redis.url", "nats://a"),
        ("redis.url", "https://a"),
        ("nats.url", "nats://a:1,http://b:1"),
        ("nats.url", "127.0.0.1:4222"),
    ],
)
def test_address_of_another_kind_is_refused_by_name(key: str, address: str) -> None:
    with pytest.raises(SettingsError, match=rf"{key} has to be like [a-z]+://HOST:PORT"):
        load(environ={}, flags={key: address})


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (["*", "SALE-*"], r"stock\.rule\[1\] \(SALE-\*\) never counts: stock\.rule\[0\] \(\*\) matches first"),
        (["A-*", "A-1-*"], r"\[1\] \(A-1-\*\) never counts"),
        (["A", "A"], r"\[1\] \(A\) never counts"),
        (["A[1"], r"has a \[ without a \]"),
        (["A-* "], "begins or ends with a space"),
    ],
)
def test_rule_that_never_counts_or_looks_mistaken_is_doubted(patterns: list[str], said: str) -> None:
    rules = [{"sku": pattern, "shards": 1} for pattern in patterns]
    (doubt,) = doubted(settings(stock={"rule": rules}))
    assert re.search(said, doubt)


@pytest.mark.parametrize("patterns", [["SALE-*", "*"], ["A?", "A*"], ["*A*", "[AB]*"], ["*]", "A[B]"], ["A-*", "B-*"]])
def test_rules_that_all_count_are_not_doubted(patterns: list[str]) -> None:
    rules = [{"sku": pattern, "shards": 1} for pattern in patterns]
    assert doubted(settings(stock={"rule": rules})) == []


def test_waiting_longer_for_stock_than_for_the_ledger_is_doubted() -> None:
    (doubt,) = doubted(settings(stock={"park_ms_max": 6000}))
    assert "stock.park_ms_max (6000)" in doubt


def test_defaults_are_not_doubted() -> None:
    assert doubted(Settings()) == []
