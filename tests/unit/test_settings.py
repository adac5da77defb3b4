"""Settings: file < environment < flags, checked whole, and every error names the key and what to do."""

import re
from pathlib import Path

import pytest

from deploy.readme import EXAMPLE
from gateway.settings import (
    KEYS,
    OTHER_VARIABLES,
    RULES_MAX,
    LimitRule,
    OrderRule,
    RateRule,
    Settings,
    SettingsError,
    StockRule,
    differences,
    load,
    load_with_origins,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "floodgate.toml"
    path.write_text(text)
    return path


def test_settings_without_any_source_are_the_defaults() -> None:
    assert load(environ={}) == Settings()


def test_settings_file_beats_the_default(tmp_path: Path) -> None:
    assert load(write(tmp_path, "[http]\nport = 81\n"), {}).http.port == 81


def test_settings_environment_beats_the_file(tmp_path: Path) -> None:
    assert load(write(tmp_path, "[http]\nport = 81\n"), {"FLOODGATE_HTTP__PORT": "82"}).http.port == 82


def test_settings_flag_beats_the_environment() -> None:
    assert load(environ={"FLOODGATE_HTTP__PORT": "82"}, flags={"http.port": 83}).http.port == 83


def test_settings_flag_that_was_not_given_changes_nothing() -> None:
    assert load(environ={"FLOODGATE_HTTP__PORT": "82"}, flags={"http.port": None}).http.port == 82


def test_settings_file_is_named_by_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "[stock]\nshards = 9\n")
    assert load(environ={"FLOODGATE_CONFIG": str(path)}).stock.shards == 9


def test_settings_of_one_section_from_several_sources_are_merged(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "[stock]\nshards = 9\n"), {"FLOODGATE_STOCK__PARK_MS_MAX": "7"})
    assert (loaded.stock.shards, loaded.stock.park_ms_max) == (9, 7)


def test_settings_secret_is_read_from_its_file(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://ledger/db\n")
    assert load(environ={"FLOODGATE_POSTGRES__URL_FILE": str(secret)}).postgres.url == "postgresql://ledger/db"


def test_settings_secret_without_its_file_names_variable_and_path() -> None:
    with pytest.raises(SettingsError, match=r"FLOODGATE_POSTGRES__URL_FILE: /nowhere/url cannot be read"):
        load(environ={"FLOODGATE_POSTGRES__URL_FILE": "/nowhere/url"})


@pytest.mark.parametrize(
    ("key", "nearest"), [("http.prot", "http.port"), ("stok.shards", "stock.shards"), ("batch.rows", "batch.rows_max")]
)
def test_settings_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=f"unknown setting {key}; the nearest is {nearest}"):
        load(environ={}, flags={key: 1})


def test_settings_unknown_variable_names_the_nearest_key() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting http\.prot; the nearest is http\.port"):
        load(environ={"FLOODGATE_HTTP__PROT": "1"})


def test_settings_variables_of_other_programs_are_left_alone() -> None:
    environ = {"HOME": "/root", "FLOODGATED": "1"} | dict.fromkeys(OTHER_VARIABLES - {"FLOODGATE_CONFIG"}, "x")
    assert load(environ=environ) == Settings()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.port", -1),
        ("http.port", 65536),
        ("batch.rows_max", 0),
        ("batch.rows_max", 1001),
        ("stock.shards", 257),
        ("stock.low_units", 1001),
    ],
)
def test_settings_value_out_of_bounds_is_refused_by_name(key: str, value: int) -> None:
    with pytest.raises(SettingsError, match=key.replace(".", r"\.")):
        load(environ={}, flags={key: value})


@pytest.mark.parametrize("value", ["many", "1.5", ""])
def test_settings_value_of_another_type_is_refused_by_name(value: str) -> None:
    with pytest.raises(SettingsError, match=r"http\.port"):
        load(environ={"FLOODGATE_HTTP__PORT": value})


@pytest.mark.parametrize(
    ("text", "message"),
    [("port = 1\n", "stands outside a section"), ("[http\n", "is not TOML"), ("[http]\nprot = 1\n", "the nearest is")],
)
def test_settings_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(write(tmp_path, text), {})


def test_settings_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"floodgate\.toml cannot be read"):
        load(tmp_path / "floodgate.toml", {})


def test_settings_have_every_key_once_by_section() -> None:
    assert {"http.port", "stock.shards", "secrets.master_keys"} <= KEYS


RULES = '[[stock.rule]]\nsku = "SALE-*"\nshards = 16\n[[stock.rule]]\nsku = "*"\nshards = 2\n'


def test_settings_rules_of_a_file_keep_their_order(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, RULES), {})
    assert loaded.stock.rule == (StockRule("SALE-*", 16), StockRule("*", 2))


def test_settings_rules_of_the_environment_are_json_and_replace_those_of_the_file(tmp_path: Path) -> None:
    environ = {"FLOODGATE_STOCK__RULE": '[{"sku": "A", "shards": 3}]', "FLOODGATE_LIMITS__RULE": "[]"}
    loaded = load(write(tmp_path, RULES), environ)
    assert (loaded.stock.rule, loaded.limits.rule) == ((StockRule("A", 3),), ())


def test_settings_rules_of_a_flag_are_taken_as_they_are() -> None:
    assert load(environ={}, flags={"limits.rule": [{"sku": "A", "units": 3}]}).limits.rule == (LimitRule("A", 3),)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ('[{"sku": "A", "shard": 3}]', r"unknown setting stock\.rule\.shard; the nearest is stock\.rule\.shards"),
        ('[{"sku": "A", "shards": 3}, {"sku": "B"}]', r"stock\.rule\[1\]"),
        ('[{"sku": "A", "shards": 0}]', r"stock\.rule\[0\]\.shards"),
        ('[{"sku": "A", "shards": 257}]', r"stock\.rule\[0\]\.shards"),
        ('[{"sku": "", "shards": 1}]', r"stock\.rule\[0\]\.sku"),
        ("[5]", r"stock\.rule\[0\]"),
        ("5", r"stock\.rule"),
        ("SALE-*", r"stock\.rule has to be a JSON array of rules"),
    ],
)
def test_settings_rules_that_cannot_be_used_are_named(rules: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(environ={"FLOODGATE_STOCK__RULE": rules})


def test_settings_rules_of_a_section_are_at_most_1000() -> None:
    rules = [{"sku": f"A-{number}", "units": 1} for number in range(RULES_MAX + 1)]
    assert len(load(environ={}, flags={"limits.rule": rules[1:]}).limits.rule) == RULES_MAX
    with pytest.raises(SettingsError, match=r"limits\.rule"):
        load(environ={}, flags={"limits.rule": rules})


def test_settings_origins_name_the_source_that_won(tmp_path: Path) -> None:
    path = write(tmp_path, "[http]\nport = 81\nhost = 'a'\n")
    origins = load_with_origins(path, {"FLOODGATE_HTTP__PORT": "82"}, {"log.level": "debug"}).origins
    assert origins == {
        "http.port": "the environment variable FLOODGATE_HTTP__PORT",
        "http.host": f"{path}, line 3",
        "log.level": "the flag --level",
    }


def test_settings_differences_are_the_keys_whose_values_differ() -> None:
    one, other = load(environ={}, flags={"http.port": 1}), load(environ={}, flags={"stock.shards": 5})
    assert differences(one, other) == ["http.port", "stock.shards"]
    assert differences(one, one) == []


def test_settings_of_the_example_with_everything_named_are_the_defaults_and_its_rules(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    loaded = load(write(tmp_path, text), {})
    assert (loaded.stock.rule, loaded.limits.rule) == ((StockRule("SALE-*", 16),), (LimitRule("SALE-*", 2),))
    assert loaded.limits.rate == (RateRule("shop-*", 500, 100, 2, 5),)
    assert loaded.orders.rule == (OrderRule("tmall-*", 86400),)
    assert sorted(differences(loaded, Settings())) == ["limits.rate", "limits.rule", "orders.rule", "stock.rule"]
