"""How settings are shown: secrets never, changes as lines."""

from typing import Any

import pytest

from gateway.cli.settings_text import changed_lines, rows, shown
from gateway.settings import Settings
from tests.unit.fakes import settings


def value(told: Settings, key: str) -> Any:
    (found,) = [one.value for one in shown(told, {}) if one.setting == key]
    return found


@pytest.mark.parametrize(
    ("url", "visible"),
    [
        ("postgresql://fg:secret@db:5432/fg", "postgresql://***@db:5432/fg"),
        ("postgresql://fg:a@b@db/fg", "postgresql://***@db/fg"),
        ("postgresql://db/fg?user=fg&password=secret&x=1", "postgresql://db/fg?user=fg&password=***&x=1"),
        ("postgresql://db/fg?sslpassword=secret", "postgresql://db/fg?sslpassword=***"),
        ("nats://token@a:1,nats://token@b:1", "nats://***@b:1"),
        ("postgresql://db/fg", "postgresql://db/fg"),
        ("", ""),
    ],
)
def test_shown_address_has_no_password(url: str, visible: str) -> None:
    section = "nats" if url.startswith("nats") else "postgres"
    assert value(settings(**{section: {"url": url}}), f"{section}.url") == visible


def test_shown_secret_is_hidden_and_an_unset_one_is_empty() -> None:
    told = settings(secrets={"hash_key": "secret"})
    assert (value(told, "secrets.hash_key"), value(told, "secrets.master_keys")) == ("***", "")


def test_shown_settings_say_origin_and_kind() -> None:
    found = {one.setting: one for one in shown(Settings(), {"http.port": "file"})}
    assert (found["http.port"].origin, found["http.port"].applies) == ("file", "start")
    assert (found["stock.shards"].origin, found["stock.shards"].applies) == ("default", "live")


def test_rows_have_a_rule_each() -> None:
    rules = [{"sku": "A", "shards": 1}, {"sku": "B*", "shards": 2}]
    found = [row for row in rows(shown(settings(stock={"rule": rules}), {})) if row[0].endswith(".rule")]
    assert found == [
        ("stock.rule", 'sku = "A", shards = 1', "default"),
        ("stock.rule", 'sku = "B*", shards = 2', "default"),
        ("limits.rule", "-", "default"),
        ("orders.rule", "-", "default"),
    ]


def test_changed_lines_show_what_goes_and_what_comes() -> None:
    before = settings(stock={"rule": [{"sku": "A", "shards": 1}, {"sku": "B", "shards": 2}]})
    after = settings(stock={"shards": 8, "rule": [{"sku": "B", "shards": 2}, {"sku": "壶", "shards": 3}]})
    assert changed_lines(before, after, ["stock.shards", "stock.rule"]) == [
        "- stock.shards = 4",
        "+ stock.shards = 8",
        '- [[stock.rule]] sku = "A", shards = 1',
        '+ [[stock.rule]] sku = "壶", shards = 3',
    ]


def test_changed_lines_of_the_first_and_the_last_rule() -> None:
    none, one = Settings(), settings(limits={"rule": [{"sku": "A", "units": 1}]})
    assert changed_lines(none, one, ["limits.rule"]) == ['+ [[limits.rule]] sku = "A", units = 1']
    assert changed_lines(one, none, ["limits.rule"]) == ['- [[limits.rule]] sku = "A", units = 1']


def test_changed_lines_of_a_secret_tell_only_that_it_differs() -> None:
    before, after = settings(secrets={"hash_key": "a"}), settings(secrets={"hash_key": "b"})
    assert changed_lines(before, after, ["secrets.hash_key"]) == ["~ secrets.hash_key differs"]
