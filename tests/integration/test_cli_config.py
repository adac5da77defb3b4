"""`floodgate config`: what is in force, what a file would change, and the versions in the ledger."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from persistence.postgres import live_settings

SECRET = "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3I="


class Floodgate:
    """The command line on a ledger of its own, in a folder for files of settings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["config", *arguments])

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def file(self, text: str, name: str = "floodgate.toml") -> str:
        path = self._folder / name
        path.write_text(text)
        return str(path)

    def shown(self, key: str) -> tuple[Any, str]:
        """Value and origin of a setting."""
        (found,) = [one for one in self.json("show")["items"] if one["setting"] == key]
        return found["value"], found["origin"]


@pytest.fixture
def floodgate(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Floodgate:
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", postgres_url)
    return Floodgate(tmp_path)


def test_check_of_settings_that_can_be_used_exits_0(floodgate: Floodgate) -> None:
    result = floodgate("check", floodgate.file("[http]\nport = 81\n"))
    assert (result.exit_code, result.stdout.startswith("The settings can be used")) == (0, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[http]\nprot = 81\n", "the nearest is http.port"),
        ("[http]\nport = 'x'\n", "http.port has to be a whole number from 0 to 65535"),
        ('[[stock.rule]]\nsku = "A"\nshard = 1\n', "the nearest is stock.rule.shards"),
        ("[http\n", "is not TOML"),
        ("[secrets]\nmaster_keys = 'x'\n", "secrets.master_keys"),
    ],
)
def test_check_of_settings_that_cannot_be_used_exits_2_and_says_why(floodgate: Floodgate, text: str, why: str) -> None:
    result = floodgate("check", floodgate.file(text))
    assert result.exit_code == 2
    assert why in result.output


def test_check_without_a_file_is_of_what_a_process_would_read(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOODGATE_STOCK__SHARDS", "0")
    result = floodgate("check")
    assert result.exit_code == 2
    assert "stock.shards has to be a whole number from 1 to 256" in result.output


def test_show_tells_where_each_value_comes_from(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLOODGATE_HTTP__PORT", "82")
    monkeypatch.setenv("FLOODGATE_CONFIG", floodgate.file("[log]\nlevel = 'debug'\n[stock]\nshards = 6\n"))
    assert floodgate.shown("http.port") == (82, "the environment variable FLOODGATE_HTTP__PORT")
    assert floodgate.shown("log.level") == ("debug", f"{tmp_path}/floodgate.toml, line 2")
    assert floodgate.shown("http.host") == ("127.0.0.1", "default")
    assert floodgate.shown("stock.shards") == (6, f"{tmp_path}/floodgate.toml, line 4")
    floodgate("apply", floodgate.file("[stock]\nshards = 9\n", "next.toml"))
    assert floodgate.shown("stock.shards") == (9, "ledger version 1")
    assert floodgate.shown("limits.rule") == ([], "ledger version 1")
    assert floodgate.shown("log.level") == ("debug", f"{tmp_path}/floodgate.toml, line 2")


def test_show_as_a_table_has_origins_when_asked(floodgate: Floodgate) -> None:
    plain, origins = floodgate("show").stdout.splitlines(), floodgate("show", "--origin").stdout.splitlines()
    assert plain[0].split() == ["setting", "value"]
    assert origins[0].split() == ["setting", "value", "origin"]
    assert ["stock.shards", "4", "default"] in [line.split() for line in origins]


def test_show_never_shows_secrets(floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_SECRETS__HASH_KEY", SECRET)
    monkeypatch.setenv("FLOODGATE_NATS__URL", "nats://user:hidden@127.0.0.1:1")
    for result in (floodgate("show", "--origin"), floodgate("show", "--json")):
        assert result.exit_code == 0
        assert SECRET not in result.output
        assert "hidden" not in result.output
        assert "***" in result.output


def test_show_without_a_ledger_shows_the_rest_and_says_so(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", "postgresql://floodgate@127.0.0.1:1/none")
    result = floodgate("show", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["version"] is None
    assert "PostgreSQL cannot be reached" in result.stderr


def test_apply_makes_the_next_version_and_says_what_changed(floodgate: Floodgate) -> None:
    file = floodgate.file('[stock]\nshards = 8\n[[stock.rule]]\nsku = "A*"\nshards = 16\n')
    result = floodgate("apply", file, "--reason", "the 11th")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "- stock.shards = 4",
        "+ stock.shards = 8",
        '+ [[stock.rule]] sku = "A*", shards = 16',
        "Version 1 is in force; every process follows within a second.",
    ]
    (found,) = floodgate.json("history")["items"]
    assert (found["version"], found["reason"]) == (1, "the 11th")
    assert found["actor"].startswith("user:")
    assert found["document"]["stock"]["rule"] == [{"sku": "A*", "shards": 16}]


def test_apply_of_what_is_in_force_writes_nothing(floodgate: Floodgate) -> None:
    file = floodgate.file("[stock]\nshards = 8\n")
    floodgate("apply", file)
    result = floodgate("apply", file)
    assert result.exit_code == 0
    assert result.stdout.startswith("Nothing changes: version 1")
    assert len(floodgate.json("history")["items"]) == 1


def test_apply_of_defaults_to_an_empty_ledger_is_version_1(floodgate: Floodgate) -> None:
    assert floodgate.json("apply", floodgate.file(""))["version"] == 1
    assert floodgate.shown("stock.shards") == (4, "ledger version 1")


def test_apply_takes_what_a_file_does_not_name_to_its_default(floodgate: Floodgate) -> None:
    floodgate("apply", floodgate.file('[[limits.rule]]\nsku = "*"\nunits = 2\n'))
    result = floodgate("apply", floodgate.file("[stock]\nshards = 5\n"))
    assert '- [[limits.rule]] sku = "*", units = 2' in result.stdout.splitlines()
    assert floodgate.shown("limits.rule") == ([], "ledger version 2")


def test_apply_goes_by_the_file_and_not_by_the_environment(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOODGATE_STOCK__SHARDS", "31")
    floodgate("apply", floodgate.file("[stock]\nshards = 5\n"))
    assert floodgate.shown("stock.shards") == (5, "ledger version 1")


def test_apply_names_the_start_settings_that_need_a_restart(floodgate: Floodgate) -> None:
    result = floodgate("apply", floodgate.file("[http]\nport = 9090\n[stock]\nshards = 8\n[log]\nlevel = 'info'\n"))
    lines = result.stdout.splitlines()
    assert lines[-3].startswith("Start settings: these take effect where a process is started again")
    assert lines[-2:] == ["- http.port = 8080", "+ http.port = 9090"]


def test_apply_of_an_unusable_file_exits_2_and_changes_nothing(floodgate: Floodgate) -> None:
    result = floodgate("apply", floodgate.file("[stock]\nshards = 999\n"))
    assert result.exit_code == 2
    assert "stock.shards has to be a whole number from 1 to 256" in result.output
    assert floodgate.json("history")["items"] == []


def test_apply_after_somebody_else_has_written_changes_nothing(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = live_settings.apply

    async def overtaken(connection: Any, *arguments: Any) -> int | None:
        await write(connection, "{}", "user:other", None)
        return await write(connection, *arguments)

    monkeypatch.setattr(live_settings, "apply", overtaken)
    result = floodgate("apply", floodgate.file("[stock]\nshards = 8\n"))
    assert result.exit_code == 1
    assert "somebody has written another version meanwhile" in result.output
    assert [one["actor"] for one in floodgate.json("history")["items"]] == ["user:other"]


def test_apply_over_a_version_of_another_release_is_refused(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("gateway.cli.config.document_of", lambda _: '{"stock": {"colour": "blue"}}')
        floodgate("apply", floodgate.file(""))
    result = floodgate("apply", floodgate.file("[stock]\nshards = 8\n"))
    assert result.exit_code == 1
    assert "version 1 was written by another release" in result.output


def test_diff_shows_what_apply_would_change_and_changes_nothing(floodgate: Floodgate) -> None:
    file = floodgate.file("[stock]\nshards = 8\n[http]\nport = 9090\n")
    assert floodgate("diff", file).stdout.splitlines()[:2] == ["- stock.shards = 4", "+ stock.shards = 8"]
    assert floodgate.json("diff", file) == {
        "version": 0,
        "changes": [{"setting": "stock.shards", "from": 4, "to": 8}],
        "restart": [{"setting": "http.port", "from": 8080, "to": 9090}],
    }
    assert floodgate.json("history")["items"] == []


def test_diff_of_what_is_in_force_says_so(floodgate: Floodgate) -> None:
    file = floodgate.file("[stock]\nshards = 8\n")
    floodgate("apply", file)
    assert floodgate("diff", file).stdout == f"Live settings: version 1 is what {file} says.\n"


def test_history_lists_the_newest_first(floodgate: Floodgate) -> None:
    for shards in (5, 6, 7):
        floodgate("apply", floodgate.file(f"[stock]\nshards = {shards}\n"), "--reason", f"to {shards}")
    lines = floodgate("history", "--limit", "2").stdout.splitlines()
    assert lines[0].split() == ["version", "at", "actor", "reason"]
    assert [(line.split()[0], line.split()[-1]) for line in lines[1:]] == [("3", "7"), ("2", "6")]


def test_rollback_brings_an_old_version_back_as_a_new_one(floodgate: Floodgate) -> None:
    for shards in (5, 6):
        floodgate("apply", floodgate.file(f"[stock]\nshards = {shards}\n"))
    result = floodgate("rollback", "1")
    assert result.stdout == "Version 3 is in force, with the content of version 1.\n"
    assert floodgate.shown("stock.shards") == (5, "ledger version 3")
    assert floodgate.json("history")["items"][0]["reason"] == "rollback to version 1"


@pytest.mark.parametrize(
    ("version", "why"), [("9", "there is no version 9"), ("1", "version 1 is in force and has that content already")]
)
def test_rollback_that_changes_nothing_is_refused(floodgate: Floodgate, version: str, why: str) -> None:
    floodgate("apply", floodgate.file("[stock]\nshards = 5\n"))
    result = floodgate("rollback", version)
    assert result.exit_code == 1
    assert why in result.output
    assert len(floodgate.json("history")["items"]) == 1


def test_history_of_ledger_without_schema_says_what_to_do(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", empty_postgres_url)
    result = CliRunner().invoke(main, ["config", "history"])
    assert result.exit_code == 1
    assert "floodgate migrate" in result.output


def test_migrate_seeds_version_1_once(floodgate: Floodgate, nats_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_NATS__URL", nats_url)
    for shards in ("6", "7"):
        monkeypatch.setenv("FLOODGATE_STOCK__SHARDS", shards)
        result = CliRunner().invoke(main, ["migrate"])
        assert result.exit_code == 0, result.output
    (found,) = floodgate.json("history")["items"]
    assert (found["actor"], found["document"]["stock"]["shards"]) == ("file", 6)


def test_check_says_what_is_perhaps_not_meant_and_exits_0(floodgate: Floodgate) -> None:
    rules = "".join(f'[[stock.rule]]\nsku = "{sku}"\nshards = 2\n' for sku in ("*", "SALE-*"))
    file = floodgate.file(rules)
    result = floodgate("check", file)
    assert result.exit_code == 0
    assert result.stderr.startswith("warning: stock.rule[1] (SALE-*) never counts")
    (warning,) = floodgate.json("check", file)["warnings"]
    assert "never counts" in warning


def test_apply_says_what_is_perhaps_not_meant_and_applies(floodgate: Floodgate) -> None:
    rules = "".join(f'[[limits.rule]]\nsku = "{sku}"\nunits = 2\n' for sku in ("*", "SALE-*"))
    result = floodgate("apply", floodgate.file(rules))
    assert result.exit_code == 0
    assert "limits.rule[1] (SALE-*) never counts" in result.stderr
    assert "Version 1 is in force" in result.stdout


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[redis]\nurl = 'http://x'\n", "redis.url has to be like redis://HOST:PORT"),
        ("[owner]\nheartbeat_ms = 9000\n", "owner.timeout_ms has to be at least 2 times"),
    ],
)
def test_check_of_addresses_and_time_outs_exits_2_and_says_why(floodgate: Floodgate, text: str, why: str) -> None:
    result = floodgate("check", floodgate.file(text))
    assert result.exit_code == 2
    assert why in result.output


def test_check_of_a_secret_whose_file_is_missing_exits_2(floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_SECRETS__HASH_KEY_FILE", "/nowhere/key")
    result = floodgate("check")
    assert result.exit_code == 2
    assert "FLOODGATE_SECRETS__HASH_KEY_FILE: /nowhere/key cannot be read: No such file or directory" in result.output


def test_diff_of_defaults_with_an_empty_ledger_says_what_apply_would_do(floodgate: Floodgate) -> None:
    file = floodgate.file("")
    assert floodgate("diff", file).stdout.startswith("Live settings: the ledger has no version yet")
