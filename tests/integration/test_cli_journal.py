"""`floodgate journal`: what the ledger knows of owners with journals, the files of this host, and giving one up."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from persistence.journal import Journal, Record, quarantine
from persistence.postgres import audit, control, stock
from persistence.postgres.connect import open_pool
from persistence.postgres.session import Session

OWNER, OTHER = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9", "1f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
SKU = "85123A"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def floodgate(postgres_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("FLOODGATE_POSTGRES__URL", postgres_url)
    monkeypatch.setenv("FLOODGATE_JOURNAL__FOLDER", str(folder))
    asyncio.run(_prepare(postgres_url))
    return lambda *arguments, **given: CliRunner().invoke(main, ("journal", *arguments), **given)


async def _prepare(url: str) -> None:
    """A stocked SKU, of which OWNER has some units in hand and may have orders, and OTHER, who has no journal."""
    session, pool = Session(url, "fg-test"), await open_pool(url, "fg-test", 2, 10.0)
    try:
        await stock.set_total(pool, SKU, 400, 1, "test", None, None)
        await control.register(session, OWNER, "shop-7", 1, 0, "/var/lib/floodgate/journal/x.journal")
        await control.register(session, OTHER, "shop-8", 1, 0)
        await stock.take(session, OWNER, 0, [stock.Want(b"l" * 16, SKU, 1, 20)])
        await control.heartbeat(session, OWNER, journal_records=3)
    finally:
        await session.close()
        await pool.close()


def value(url: str, query: str) -> Any:
    async def ask() -> Any:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_list_shows_owners_with_journals_and_what_they_hold(floodgate: Callable[..., Result]) -> None:
    result = floodgate("list", "--json")
    assert result.exit_code == 0, result.output
    (owner,) = json.loads(result.stdout)["owners"]
    assert (owner["owner"], owner["host"], owner["records"], owner["units"], owner["leases"]) == (
        OWNER,
        "shop-7",
        3,
        20,
        1,
    )
    assert json.loads(result.stdout)["files"] == []


def test_list_shows_files_and_what_was_set_aside(floodgate: Callable[..., Result], folder: Path) -> None:
    journal = Journal.create(folder, OWNER, "shop-7", 1 << 20)
    journal.append([(1, b"order")], 1000)
    quarantine(folder, OTHER, Record(9, 1, 1000, b"order"), "a row is refused")
    try:
        found = json.loads(floodgate("list", "--json").stdout)
        text = floodgate("list").stdout
    finally:
        journal.close(remove=True)
    (file,) = found["files"]
    assert (file["owner"], file["records"], file["locked"], file["damaged"]) == (OWNER, 1, True, [])
    assert found["aside"] == [{"file": f"{OTHER}.quarantine", "record": 9, "why": "a row is refused"}]
    assert "shop-7" in text
    assert "a row is refused" in text


def test_abandon_asks_says_what_may_be_lost_and_frees_the_units(
    floodgate: Callable[..., Result], postgres_url: str
) -> None:
    refused = floodgate("abandon", OWNER, input="n\n")
    assert refused.exit_code == 1
    assert "20 units in 1 leases" in refused.output
    assert value(postgres_url, "select sum(free) from stock_shard") == 380

    done = floodgate("abandon", OWNER, input="y\n")
    assert done.exit_code == 0, done.output
    assert "20 units are for sale again" in done.output
    assert value(postgres_url, "select sum(free) from stock_shard") == 400
    assert value(postgres_url, f"select state from worker where owner = '{OWNER}'") == "dead"
    assert asyncio.run(_report(postgres_url))
    assert json.loads(floodgate("list", "--json").stdout)["owners"] == []


def test_abandon_with_yes_does_not_ask(floodgate: Callable[..., Result], postgres_url: str) -> None:
    assert floodgate("abandon", OWNER, "--yes").exit_code == 0
    assert value(postgres_url, "select sum(free) from stock_shard") == 400


@pytest.mark.parametrize("owner", [OTHER, "nobody"])
def test_abandon_of_who_has_no_journal_fails(floodgate: Callable[..., Result], owner: str) -> None:
    result = floodgate("abandon", owner, "--yes")
    assert result.exit_code == 1
    assert "floodgate journal list" in result.output


async def _report(url: str) -> bool:
    return (await audit.audit(url)).clean
