"""The commands that talk to the ledger: clients with their tokens, and the audit."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.domain.access import SCOPES, token_hash
from persistence.postgres import clients


@pytest.fixture
def floodgate(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> "Floodgate":
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", postgres_url)
    return Floodgate(postgres_url)


class Floodgate:
    """The command line on a ledger of its own."""

    def __init__(self, postgres_url: str) -> None:
        self._url = postgres_url

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    def live(self) -> dict[str, list[bytes]]:
        """The hashes of the live tokens, by client."""
        found: dict[str, list[bytes]] = {}
        for row in asyncio.run(self._live()):
            found.setdefault(row["name"], []).append(row["token_hash"])
        return found

    def execute(self, statement: str) -> Any:
        return asyncio.run(self._execute(statement))

    async def _live(self) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self._url)
        try:
            return await clients.live_tokens(connection)
        finally:
            await connection.close()

    async def _execute(self, statement: str) -> Any:
        connection = await asyncpg.connect(self._url)
        try:
            return await connection.execute(statement)
        finally:
            await connection.close()


def hash_in(file: Path) -> bytes:
    return token_hash(file.read_text().strip())


SHOP = ("client", "add", "shop", "--scope", "orders:write", "--channel", "app")


def test_client_add_prints_a_token_that_is_live(floodgate: Floodgate) -> None:
    result = floodgate(*SHOP)

    assert result.exit_code == 0
    assert floodgate.live() == {"shop": [token_hash(result.stdout.strip())]}


def test_client_add_with_token_file_writes_it_for_its_owner_alone(floodgate: Floodgate, tmp_path: Path) -> None:
    file = tmp_path / "token"

    result = floodgate(*SHOP, "--token-file", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().strip() not in result.output
    assert floodgate.live() == {"shop": [hash_in(file)]}


def test_client_add_with_all_scopes_has_every_one(floodgate: Floodgate) -> None:
    floodgate("client", "add", "tool", "--scope", "all", "--channel", "*")

    (found,) = json.loads(floodgate("client", "list", "--json").stdout)["items"]
    assert (found["name"], found["scopes"], found["channels"]) == ("tool", sorted(SCOPES), ["*"])
    assert [token["revoked_at"] for token in found["tokens"]] == [None]


def test_client_add_of_known_name_is_refused_and_touches_no_file(floodgate: Floodgate, tmp_path: Path) -> None:
    file = tmp_path / "token"
    floodgate(*SHOP, "--token-file", str(file))
    before = file.read_text()

    result = floodgate(*SHOP, "--token-file", str(file))

    assert (result.exit_code, file.read_text()) == (1, before)
    assert "there is a client shop already; `floodgate client rotate shop` gives it another token" in result.output


def test_client_whose_tokens_have_ended_gets_another_one_by_rotate(floodgate: Floodgate) -> None:
    floodgate(*SHOP)
    floodgate("client", "revoke", "shop", "--all")

    assert "floodgate client rotate shop" in floodgate(*SHOP).output
    assert floodgate("client", "rotate", "shop").exit_code == 0
    assert len(floodgate.live()["shop"]) == 1


def test_client_list_tells_of_each_live_token_when_it_ends_and_was_used_last(floodgate: Floodgate) -> None:
    floodgate(*SHOP, "--expires-days", "3")
    floodgate("client", "rotate", "shop")
    floodgate("client", "add", "gone", "--scope", "orders:read")
    floodgate("client", "revoke", "gone", "--all")
    floodgate.execute(
        "update api_token set last_used_at = '2026-11-11T00:00:59Z', expires_at = '2099-01-01T08:00:00Z' "
        "where expires_at is not null"
    )

    lines = [line.split() for line in floodgate("client", "list").stdout.splitlines()]

    assert lines[1] == ["gone", "-", "-", "-", "orders:read"]
    assert lines[2][0] == lines[3][0] == "shop"
    assert lines[2][2:] == ["-", "-", "app", "orders:write"]
    assert lines[3][2:] == ["2099-01-01", "08:00Z", "2026-11-11", "00:00Z", "app", "orders:write"]


def test_client_list_shows_no_token_and_no_hash(floodgate: Floodgate) -> None:
    token = floodgate(*SHOP).stdout.strip()

    shown = floodgate("client", "list", "--json").stdout + floodgate("client", "list").stdout

    assert token not in shown
    assert token_hash(token).hex() not in shown


def test_client_add_with_unwritable_file_makes_no_client(floodgate: Floodgate, tmp_path: Path) -> None:
    result = floodgate(*SHOP, "--token-file", str(tmp_path / "missing" / "token"))

    assert result.exit_code == 1
    assert floodgate.live() == {}


def test_client_add_if_missing_with_live_token_changes_nothing(floodgate: Floodgate, tmp_path: Path) -> None:
    file = tmp_path / "token"
    arguments = (*SHOP, "--token-file", str(file), "--if-missing")
    floodgate(*arguments)
    before = file.read_text()

    assert floodgate(*arguments).exit_code == 0
    assert file.read_text() == before
    assert floodgate.live() == {"shop": [hash_in(file)]}


@pytest.mark.parametrize("left", [None, "", "fg_of_another_system"])
def test_client_add_if_missing_without_live_token_in_file_replaces_it(
    floodgate: Floodgate, tmp_path: Path, left: str | None
) -> None:
    file = tmp_path / "token"
    arguments = (*SHOP, "--token-file", str(file), "--if-missing")
    floodgate(*arguments)
    file.unlink()
    if left is not None:
        file.write_text(left)

    assert floodgate(*arguments).exit_code == 0
    assert floodgate.live() == {"shop": [hash_in(file)]}


def test_client_add_with_expiry_ends_by_itself(floodgate: Floodgate) -> None:
    floodgate(*SHOP, "--expires-days", "1")
    floodgate.execute("update api_token set expires_at = expires_at - interval '24 hours'")

    assert floodgate.live() == {}


def test_client_rotate_adds_a_second_token_and_no_third(floodgate: Floodgate) -> None:
    first, second = (floodgate(*command).stdout.strip() for command in (SHOP, ("client", "rotate", "shop")))

    third = floodgate("client", "rotate", "shop")

    assert third.exit_code == 1
    assert "revoke one first" in third.output
    assert sorted(floodgate.live()["shop"]) == sorted([token_hash(first), token_hash(second)])


def test_client_revoke_of_one_token_leaves_the_other(floodgate: Floodgate, tmp_path: Path) -> None:
    floodgate(*SHOP, "--token-file", str(tmp_path / "old"))
    floodgate("client", "rotate", "shop", "--token-file", str(tmp_path / "new"))

    assert floodgate("client", "revoke", "shop", "--token-file", str(tmp_path / "old")).exit_code == 0
    assert floodgate.live() == {"shop": [hash_in(tmp_path / "new")]}


def test_client_revoke_of_a_token_by_its_number_leaves_the_other(floodgate: Floodgate, tmp_path: Path) -> None:
    floodgate(*SHOP)
    floodgate("client", "rotate", "shop", "--token-file", str(tmp_path / "new"))
    (found,) = json.loads(floodgate("client", "list", "--json").stdout)["items"]
    revoke = ("client", "revoke", "shop", "--token-id", str(found["tokens"][1]["token_id"]))

    assert floodgate(*revoke).exit_code == 0
    assert floodgate.live() == {"shop": [hash_in(tmp_path / "new")]}
    assert floodgate(*revoke).exit_code == 1


def test_client_rotate_when_one_of_two_tokens_has_expired_gives_another_one(floodgate: Floodgate) -> None:
    floodgate(*SHOP, "--expires-days", "1")
    floodgate("client", "rotate", "shop")
    floodgate.execute("update api_token set expires_at = now() where expires_at is not null")

    assert floodgate("client", "rotate", "shop").exit_code == 0
    assert len(floodgate.live()["shop"]) == 2


def test_client_revoke_of_token_that_is_not_live_is_refused(floodgate: Floodgate, tmp_path: Path) -> None:
    floodgate(*SHOP)
    (tmp_path / "other").write_text("fg_other")

    assert floodgate("client", "revoke", "shop", "--token-file", str(tmp_path / "other")).exit_code == 1
    assert len(floodgate.live()["shop"]) == 1


def test_client_revoke_all_leaves_none(floodgate: Floodgate) -> None:
    floodgate(*SHOP)
    floodgate("client", "rotate", "shop")

    assert floodgate("client", "revoke", "shop", "--all").exit_code == 0
    assert floodgate.live() == {}


@pytest.mark.parametrize("command", [("rotate", "nobody"), ("revoke", "nobody", "--all")])
def test_client_change_of_unknown_name_is_refused(floodgate: Floodgate, command: tuple[str, ...]) -> None:
    result = floodgate("client", *command)

    assert result.exit_code == 1
    assert "there is no client nobody" in result.output


def test_audit_of_books_that_balance_exits_0(floodgate: Floodgate) -> None:
    result = floodgate("audit")

    assert result.exit_code == 0
    assert "The books balance." in result.stdout


def test_audit_of_books_that_are_off_shows_the_rows_and_exits_1(floodgate: Floodgate) -> None:
    floodgate.execute("insert into stock_sku (sku, total, shards) values ('TEA-001', 5, 1)")

    result = floodgate("audit")

    assert result.exit_code == 1
    assert "TEA-001" in result.stdout
    assert "1 of " in result.stdout


def test_audit_as_json_says_what_is_off(floodgate: Floodgate) -> None:
    floodgate.execute("insert into stock_sku (sku, total, shards) values ('TEA-001', 5, 1)")

    report = json.loads(floodgate("audit", "--json").stdout)

    assert report["clean"] is False
    assert [finding["check"] for finding in report["findings"] if finding["count"]] == ["stock_balances"]
    assert report["totals"]["orders"] == 0


def test_audit_of_ledger_without_schema_says_what_to_do(
    empty_postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", empty_postgres_url)

    result = CliRunner().invoke(main, ["audit"])

    assert result.exit_code == 1
    assert "floodgate migrate" in result.output
