"""Live settings in a process: the ledger's newest version, unless it cannot be applied."""

import datetime as dt
import json
from typing import Any

import pytest

from gateway.live import Live, document_of, read_document
from gateway.settings import LimitRule, RateRule, Settings, SettingsError, Stock, StockRule
from tests.unit.fakes import FakeLog, settings


class FakeLedger:
    """Stands for a connection: answers the version that a test has written."""

    def __init__(self) -> None:
        self.row: dict[str, Any] = {"value": 0, "version": None}

    def write(self, version: int, document: object) -> None:
        self.row = {
            "value": version + 40,
            "version": version,
            "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            "actor": "test",
            "reason": None,
            "document": json.dumps(document),
        }

    async def fetchrow(self, *_: object) -> dict[str, Any]:
        return self.row


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


RULE = {"sku": "SALE-*", "shards": 16}
RULE_OF_2 = {"sku": "SALE-*", "units": 2}


async def test_live_before_any_version_is_what_the_process_was_told(ledger: FakeLedger) -> None:
    live = Live(settings(stock={"shards": 7}))
    assert await live.load(ledger) == 0
    assert (live.version, live.stock.shards, live.fault) == (0, 7, None)


async def test_live_load_brings_the_ledgers_version_into_force(ledger: FakeLedger) -> None:
    live = Live(settings(stock={"shards": 7}))
    ledger.write(3, {"stock": {"park_ms_max": 9}, "limits": {"rule": [{"sku": "A", "units": 2}]}})
    assert await live.load(ledger) == 43
    assert (live.version, live.stock) == (3, Stock(park_ms_max=9))
    assert live.limits.rule == (LimitRule("A", 2),)


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"stock": {"shard": 5}}, "the nearest is stock.shards"),
        ({"stock": {"shards": 257}}, "stock.shards has to be"),
        ({"stock": {"rule": [{"sku": "A", "color": 1}]}}, "unknown setting stock.rule.color"),
        ({"http": {"port": 1}}, "http is no live section"),
        ({"stock": 5}, "$[...]"),
        ([], "array"),
    ],
)
async def test_live_load_of_what_cannot_be_applied_keeps_the_former_and_says_why(
    ledger: FakeLedger, document: object, why: str
) -> None:
    live = Live(Settings())
    ledger.write(1, {"stock": {"shards": 7}})
    await live.load(ledger)
    ledger.write(2, document)
    assert await live.load(ledger) == 42
    assert (live.version, live.stock.shards) == (1, 7)
    assert live.fault is not None
    assert live.fault.startswith("version 2 cannot be applied")
    assert why in live.fault
    assert "version 1 is in force" in live.fault


async def test_live_load_after_a_version_that_could_not_be_applied_recovers(ledger: FakeLedger) -> None:
    live = Live(Settings())
    ledger.write(1, {"stock": {"shards": 0}})
    await live.load(ledger)
    ledger.write(2, {"stock": {"shards": 8}})
    await live.load(ledger)
    assert (live.version, live.stock.shards, live.fault) == (2, 8, None)


async def test_live_load_while_no_version_can_be_applied_answers_nothing(ledger: FakeLedger) -> None:
    live = Live(Settings())
    ledger.write(1, {"stock": {"shards": 0}})
    assert [await live.load(ledger) for _ in range(2)] == [None, None]
    assert live.fault is not None
    assert "no order is taken" in live.fault
    ledger.write(2, {})
    assert await live.load(ledger) == 42


async def test_live_load_of_a_first_version_that_cannot_be_applied_keeps_what_the_process_was_told(
    ledger: FakeLedger,
) -> None:
    live = Live(settings(stock={"shards": 7}))
    await live.load(ledger)
    ledger.write(1, {"stock": {"shards": 0}})
    assert await live.load(ledger) == 41
    assert live.stock.shards == 7
    assert live.fault is not None
    assert "version 0 is in force" in live.fault


async def test_live_listener_is_told_of_other_limits_alone(ledger: FakeLedger) -> None:
    live = Live(Settings())
    told: list[int] = []
    live.on_limits(lambda: told.append(live.version))
    limits = {"rule": [{"sku": "A", "units": 2}]}
    for version, document in enumerate([{"stock": {"shards": 9}}, {"limits": limits}, {"limits": limits}, {}], 1):
        ledger.write(version, document)
        await live.load(ledger)
    assert told == [0, 2, 4]
    assert live.version == 4


async def test_live_load_of_a_known_version_tells_and_logs_nothing(
    ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FakeLog()
    monkeypatch.setattr("gateway.live.log", log)
    live = Live(Settings())
    told: list[int] = []
    live.on_limits(lambda: told.append(live.version))
    for version, document in ((1, {"limits": {"rule": [RULE_OF_2]}}), (2, {"stock": {"shards": 0}})):
        ledger.write(version, document)
        for _ in range(3):
            await live.load(ledger)
    assert told == [0, 1]
    assert log.names.count("live_settings_not_applied") == 1


async def test_live_listener_that_fails_is_told_again(ledger: FakeLedger) -> None:
    live = Live(Settings())
    told: list[int] = []

    def listen() -> None:
        told.append(live.version)
        if told == [0, 1]:
            raise ValueError("not now")

    live.on_limits(listen)
    ledger.write(1, {"limits": {"rule": [RULE_OF_2]}})
    with pytest.raises(ValueError, match="not now"):
        await live.load(ledger)
    await live.load(ledger)
    assert told == [0, 1, 1]


def test_live_shards_of_a_sku_are_those_of_its_rule_else_the_default() -> None:
    live = Live(settings(stock={"shards": 3, "rule": [RULE]}))
    assert [live.shards_of(sku) for sku in ("SALE-1", "double-11\x1fSALE-1", "TEA")] == [16, 16, 3]


def test_live_limit_of_a_sku_is_that_of_its_rule_else_none() -> None:
    live = Live(settings(limits={"rule": [{"sku": "SALE-*", "units": 2}]}))
    assert [live.limit_of(sku) for sku in ("SALE-1", "TEA")] == [2, None]


def test_document_of_settings_reads_back_whole() -> None:
    told = settings(stock={"shards": 9, "rule": [RULE]}, http={"port": 1})
    read = read_document(document_of(told))
    assert (read.stock, read.limits) == (told.stock, told.limits)
    assert read.stock.rule == (StockRule("SALE-*", 16),)
    assert set(json.loads(document_of(told))) == {"stock", "limits"}


def test_document_of_settings_without_rules_names_no_kind_of_rule_that_a_former_release_may_not_know() -> None:
    assert json.loads(document_of(settings(stock={"rule": [RULE]})))["limits"] == {}
    assert "rule" in json.loads(document_of(settings(stock={"rule": [RULE]})))["stock"]


def test_document_that_is_not_json_is_refused() -> None:
    with pytest.raises(SettingsError):
        read_document("{")


async def test_live_rate_of_a_client_is_that_of_the_first_rule_that_matches(ledger: FakeLedger) -> None:
    live = Live(Settings())
    assert live.rate_of("shop-1") is None
    rules = [{"client": "shop-2", "requests_per_s": 0.5}, {"client": "shop-*", "customer_burst": 3}]
    rules[1]["customer_requests_per_s"] = 2
    ledger.write(1, {"limits": {"rate": rules}})
    await live.load(ledger)
    assert live.rate_of("shop-1") == RateRule("shop-*", customer_requests_per_s=2, customer_burst=3)
    assert live.rate_of("shop-2") == RateRule("shop-2", requests_per_s=0.5)
    assert live.rate_of("other") is None


async def test_live_rate_survives_the_ledger(ledger: FakeLedger) -> None:
    told = settings(limits={"rate": [{"client": "a", "requests_per_s": 0.1, "burst": 2}, {"client": "*"}]})
    assert read_document(document_of(told)).limits == told.limits
