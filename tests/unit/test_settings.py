"""Settings: file < environment < flags, checked whole, and every error names the key and what to do."""

from pathlib import Path

import pytest

from gateway.settings import KEYS, OTHER_VARIABLES, Settings, SettingsError, load


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
    [("http.port", -1), ("http.port", 65536), ("batch.rows_max", 0), ("batch.rows_max", 1001), ("stock.shards", 257)],
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
