"""What is said about settings that cannot be used: key, bounds, value and origin, and never a secret."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import KEYS, Settings, SettingsError, load
from gateway.settings_errors import complaint, find_faults, without_password

VARIABLE = "the environment variable"


def said(environ: dict[str, str] | None = None, **sources: Any) -> str:
    """The message of settings that cannot be used."""
    with pytest.raises(SettingsError) as caught:
        load(environ=environ or {}, **sources)
    return str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("HTTP__PORT", "eighty", 'http.port has to be a whole number from 0 to 65535, not "eighty"'),
        ("HTTP__PORT", "-1", 'http.port has to be a whole number from 0 to 65535, not "-1"'),
        ("NATS__MAX_AGE_S", "1", 'nats.max_age_s has to be a whole number of at least 600, not "1"'),
        ("LOG__LEVEL", "loud", 'log.level has to be debug, info, warning or error, not "loud"'),
        ("STOCK__RULE", '[{"sku": "", "shards": 1}]', "stock.rule[0].sku has to be text of 1 to 200 characters"),
        ("STOCK__RULE", '[{"sku": "A"}]', "stock.rule[0].shards is missing"),
        ("STOCK__RULE", "[5]", "stock.rule[0] has to be a table of settings, not 5"),
        ("STOCK__RULE", "5", "stock.rule has to be a list, not 5"),
    ],
)
def test_message_of_a_variable_names_key_bounds_value_and_variable(variable: str, value: str, message: str) -> None:
    found = said({f"FLOODGATE_{variable}": value})
    assert found.startswith(message)
    assert found.endswith(f" (from {VARIABLE} FLOODGATE_{variable})")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[http]\nport = 'x'\n", 2),
        ("# a comment\n\n[stock]\nshards = 4\n\n [ http ] # edge\n  port= 70000\n", 7),
        ("[log]\nlevel='info'\n[http]\nworkers = 2\nport = true", 5),
    ],
)
def test_message_of_a_file_names_the_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "floodgate.toml"
    path.write_text(text)
    assert said(config=path).endswith(f" (from {path}, line {line})")


@pytest.mark.parametrize("text", ["http.port = 'x'", "[http]\n\"port\" = 'x'", "[[stock.rule]]\nsku = 1\nshards = 1"])
def test_message_of_a_file_written_in_another_way_names_the_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "floodgate.toml"
    path.write_text(text)
    assert said(config=path).endswith(f" (from {path})")


@pytest.mark.parametrize("key", sorted(KEYS))
def test_message_of_every_setting_has_words(key: str) -> None:
    assert said(flags={key: {"not": "it"}}).startswith(f"{key} has to be ")


def test_message_of_a_flag_names_it() -> None:
    assert said(flags={"http.port": 70000}).endswith(", not 70000 (from the flag --port)")


def test_message_of_an_unknown_key_names_its_origin() -> None:
    assert said({"FLOODGATE_HTTP__PROT": "1"}).endswith(f"http.port (from {VARIABLE} FLOODGATE_HTTP__PROT)")


def test_message_names_every_fault_in_a_line_of_its_own() -> None:
    lines = said({"FLOODGATE_HTTP__PORT": "x", "FLOODGATE_LOG__LEVEL": "x"}).splitlines()
    assert [line.split()[0] for line in lines] == ["http.port", "log.level"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FLOODGATE_POSTGRES__URL", "mysql://user:geheim@db/x"),
        ("FLOODGATE_POSTGRES__URL", "host=db password=geheim"),
        ("FLOODGATE_REDIS__URL", "http://x?password=geheim"),
        ("FLOODGATE_NATS__URL", "https://geheim@nats"),
    ],
)
def test_message_about_an_address_hides_its_password(variable: str, value: str) -> None:
    message = said({variable: value})
    assert "geheim" not in message
    assert variable in message


def test_message_about_a_secret_hides_it() -> None:
    assert "geheim" not in said(flags={"secrets.hash_key": ["geheim"]})


def test_message_of_a_long_value_is_cut() -> None:
    assert len(said({"FLOODGATE_HTTP__PORT": "9" * 5000})) < 250


def test_message_of_a_secret_file_that_is_no_text_names_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe")
    message = said({"FLOODGATE_SECRETS__HASH_KEY_FILE": str(tmp_path / "key")})
    assert message == f"FLOODGATE_SECRETS__HASH_KEY_FILE: {tmp_path / 'key'} is not text in UTF-8"


def test_password_is_taken_out_of_every_form_of_address() -> None:
    assert without_password("redis://:geheim@h:1/0") == "redis://***@h:1/0"
    assert without_password("postgresql://h/d?password=geheim&x=1") == "postgresql://h/d?password=***&x=1"


class Kinds(msgspec.Struct, forbid_unknown_fields=True):
    """Kinds of fields that no setting need have today."""

    ratio: float = 0.5
    on: bool = True
    mode: Literal["journal", "reject"] = "journal"
    many: int | None = None
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"ratio": "x"}, 'ratio has to be a number, not "x"'),
        ({"on": 2}, "on has to be true or false, not 2"),
        ({"mode": "x"}, 'mode has to be journal or reject, not "x"'),
        ({"many": "x"}, 'many has to be a whole number, not "x"'),
        ({"names": [1]}, "names[0] has to be text, not 1"),
        ({"name": 1}, "name is not known; the nearest is names"),
        (5, " has to be a table of settings, not 5"),
    ],
)
def test_faults_of_other_kinds_of_fields_have_words(document: Any, message: str) -> None:
    (fault,) = find_faults(document, Kinds)
    assert complaint(fault) == message


def test_faults_of_a_request_have_control_characters() -> None:
    document = {"names": ["a\0"]}
    assert [fault.code for fault in find_faults(document, Kinds)] == ["control_character"]
    assert list(find_faults(document, Kinds, strict=False)) == []


def test_faults_of_what_may_be_none_are_none() -> None:
    assert list(find_faults({"many": None, "names": ["a"]}, Kinds)) == []


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=3) | st.just("80")
SCALARS = st.none() | st.booleans() | st.integers(-5, 70000) | st.floats() | TEXTS
RULES = st.lists(st.dictionaries(st.sampled_from(["sku", "shards", "color"]), SCALARS, max_size=3), max_size=3)
SECTIONS = st.dictionaries(st.sampled_from(["port", "workers", "shards", "rule", "level"]), SCALARS | RULES, max_size=3)
DOCUMENTS = st.dictionaries(st.sampled_from(["http", "stock", "log", "other"]), SECTIONS | SCALARS, max_size=3)


@given(DOCUMENTS, st.booleans())
def test_faults_are_found_exactly_where_msgspec_refuses(document: dict[str, Any], strict: bool) -> None:  # noqa: FBT001 - drawn
    try:
        msgspec.convert(document, Settings, strict=strict)
    except msgspec.ValidationError:
        refused = True
    else:
        refused = False
    assert bool([*find_faults(document, Settings, strict=strict)]) == refused
