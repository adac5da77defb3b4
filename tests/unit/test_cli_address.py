"""Which system a command talks to, and what it says when there is none."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from deploy.local.folder import DataFolder
from gateway.cli import address, main
from gateway.cli.address import EdgeAddress


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DataFolder:
    for name in (
        "FLOODGATE_POSTGRES__URL",
        "FLOODGATE_NATS__URL",
        "FLOODGATE_URL",
        "FLOODGATE_TOKEN_FILE",
        "FLOODGATE_CONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    return folder


def write_record(folder: DataFolder) -> None:
    folder.write_run({"http": "http://127.0.0.1:1", "postgres": "postgresql://local", "nats": "nats://local"})
    folder.token.write_text("fg_local\n")


def test_ledger_url_of_running_local_system_comes_from_its_record(folder: DataFolder) -> None:
    write_record(folder)
    with folder.locked():
        assert address.ledger_url(folder.path, None) == "postgresql://local"
        assert address.stream_url(folder.path, None) == "nats://local"


def test_ledger_url_named_by_settings_wins(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", "postgresql://own")
    write_record(folder)
    with folder.locked():
        assert address.ledger_url(folder.path, None) == "postgresql://own"


def test_ledger_url_of_record_that_a_crash_left_is_not_used(folder: DataFolder) -> None:
    write_record(folder)

    with pytest.raises(click.ClickException, match="nothing runs on"):
        address.ledger_url(folder.path, None)


def test_edge_address_of_local_system_has_its_token(folder: DataFolder) -> None:
    write_record(folder)
    with folder.locked():
        assert address.edge_address(None, None, folder.path) == EdgeAddress("http://127.0.0.1:1", "fg_local")


def test_edge_address_named_with_token_file_needs_no_local_system(folder: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("fg_own\n")

    found = address.edge_address("https://shop.example/", tmp_path / "token", folder.path)

    assert found == EdgeAddress("https://shop.example", "fg_own")


def test_edge_address_named_without_token_never_gets_the_local_one(folder: DataFolder) -> None:
    write_record(folder)
    with folder.locked(), pytest.raises(click.ClickException, match="--token-file"):
        address.edge_address("http://elsewhere", None, folder.path)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "x"])
def test_edge_address_that_is_no_url_is_refused(folder: DataFolder, tmp_path: Path, url: str) -> None:
    with pytest.raises(click.ClickException, match="no address of a gateway"):
        address.edge_address(url, tmp_path, folder.path)


@pytest.mark.parametrize(
    "arguments",
    [
        ["audit"],
        ["events"],
        ["client", "list"],
        ["client", "add", "shop", "--scope", "orders:read"],
        ["product", "list"],
        ["product", "set", "a", "--price", "1", "--currency", "CNY"],
        ["stock", "show", "a"],
        ["replay", __file__, "--channel", "online-retail"],
    ],
)
def test_command_without_system_says_what_to_do_and_exits_1(folder: DataFolder, arguments: list[str]) -> None:
    result = CliRunner().invoke(main, [*arguments, "--data", str(folder.path)])

    assert result.exit_code == 1
    assert "floodgate up" in result.output
    assert "--data" in result.output


def test_command_with_unreachable_ledger_says_so_and_exits_1(folder: DataFolder) -> None:
    result = CliRunner(env={"FLOODGATE_POSTGRES__URL": "postgresql://nobody@127.0.0.1:1/none"}).invoke(main, ["audit"])

    assert result.exit_code == 1
    assert "PostgreSQL cannot be reached" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["client", "add", "Shop!", "--scope", "bulk", "--channel", "app"], "a name has"),
        (["client", "add", "shop", "--scope", "nonsense", "--channel", "app"], "orders:write"),
        (["client", "add", "shop", "--channel", "app"], "--scope"),
        (["client", "add", "shop", "--scope", "orders:write"], "needs a --channel"),
        (["client", "add", "shop", "--scope", "orders:write", "--channel", "App"], "a channel has"),
        (["client", "add", "shop", "--scope", "bulk", "--channel", "app", "--if-missing"], "--token-file"),
        (["client", "revoke", "shop"], "--all"),
        (["client", "revoke", "shop", "--all", "--token-file", "x"], "--all"),
        (["events", "--since", "yesterday"], "--since yesterday"),
        (["product", "set", "a"], "--price"),
        (["stock", "set", "a", "--units", "-1"], "--units"),
        (["replay", __file__, "--channel", "other"], "online-retail"),
        (["replay", "/nowhere", "--channel", "online-retail"], "/nowhere"),
    ],
)
def test_command_with_wrong_arguments_names_them_and_exits_2(arguments: list[str], complaint: str) -> None:
    result = CliRunner().invoke(main, arguments)

    assert result.exit_code == 2
    assert complaint in result.output


def test_status_variables_are_no_settings(folder: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOODGATE_URL", "http://x")
    monkeypatch.setenv("FLOODGATE_TOKEN_FILE", "/x")

    result = CliRunner().invoke(main, ["status", "--json", "--data", str(folder.path)])

    assert json.loads(result.output)["pids"] == {}
