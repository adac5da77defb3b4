"""`floodgate stock` with a real gateway: where units are, where it pinches, and shards that change."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.cli.edge import Edge, EdgeError
from persistence.nats.stream import STOCK, Event, Stream, StreamSettings
from persistence.postgres import control, stock
from persistence.postgres.connect import open_pool
from persistence.postgres.session import Session
from tests.served import Served

ASK = Edge.ask


class Floodgate:
    """The command line, and the gateway that it talks to."""

    def __init__(self, served: Served, token_file: Path) -> None:
        self.served = served
        self.environment = {"FLOODGATE_URL": served.url, "FLOODGATE_TOKEN_FILE": str(token_file)}

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self.environment).invoke(main, arguments)

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def floodgate(postgres_url: str, nats_url: str, tmp_path: Path) -> Iterator[Floodgate]:
    served = Served(postgres_url, nats_url)
    asyncio.run(served.prepare({"A": 10, "B": 20}))
    asyncio.run(served.start())
    (tmp_path / "token").write_text(served.token)
    yield Floodgate(served, tmp_path / "token")
    asyncio.run(served.close())


async def pinch(url: str) -> None:
    """Another worker, which holds 5 units of A and tells where it pinches."""
    session, owner = Session(url, "test", 5.0), "00000000-0000-4000-8000-000000000001"
    await control.register(session, owner, "elsewhere", 4711, 0)
    await stock.take(session, owner, 0, [stock.Want(bytes(15) + b"\x01", "A", 5, 5)])
    await control.heartbeat(session, owner, {"A": (2, 14, 3), "B": (1, 0, 0)}, 2.0)
    await session.close()


def test_stock_show_tells_in_whose_hands_the_units_are(floodgate: Floodgate) -> None:
    asyncio.run(pinch(floodgate.served.postgres_url))
    (hand,) = floodgate.json("stock", "show", "A")["hands"]
    assert (hand["host"], hand["pid"], hand["units"]) == ("elsewhere", 4711, 5)
    lines = floodgate("stock", "show", "A").stdout.splitlines()
    assert lines[3] == "parked 3  refills_per_s 1.0  refused_per_s 7.0"
    assert lines[-1].split() == ["00000000-0000-4000-8000-000000000001", "elsewhere", "4711", "5"]


def test_stock_top_lists_the_worst_first(floodgate: Floodgate) -> None:
    asyncio.run(pinch(floodgate.served.postgres_url))
    lines = [line.split() for line in floodgate("stock", "top").stdout.splitlines()]
    assert lines[1] == ["A", "-", "10", "0", "5", "5", "4", "3", "1.0", "7.0"]
    assert lines[2][0] == "B"
    assert [item["sku"] for item in floodgate.json("stock", "top", "--limit", "1")["items"]] == ["A"]


def test_stock_top_where_nothing_goes_on_says_so(floodgate: Floodgate) -> None:
    result = floodgate("stock", "top")
    assert (result.exit_code, result.stdout) == (
        0,
        "Nothing goes on: no orders are refused or wait, and nobody refills.\n",
    )
    assert floodgate.json("stock", "top") == {"items": []}


def test_stock_reshard_spreads_the_units_anew(floodgate: Floodgate) -> None:
    shown = floodgate.json("stock", "reshard", "A", "--shards", "3")
    assert (shown["shards"], shown["per_shard"]) == (3, [4, 3, 3])
    assert "free by shard  4  3  3" in floodgate("stock", "show", "A").stdout


def test_stock_adjust_moves_the_total_once_per_key(floodgate: Floodgate) -> None:
    for _ in range(2):
        moved = floodgate.json("stock", "adjust", "A", "--delta", "-3", "--reason", "broken", "--key", "k-1")
        assert (moved["delta"], moved["total"], moved["actor"]) == (-3, 7, "client:buyers")
    said = floodgate("stock", "adjust", "A", "--delta", "5", "--reason", "found", "--key", "k-2").stdout.splitlines()
    assert said[1].split()[2:] == ["5", "12", "client:buyers", "found"]
    again = floodgate("stock", "adjust", "A", "--delta", "5", "--reason", "found", "--key", "k-2").stdout.splitlines()
    assert again == [*said, "No units have moved now: this is the movement that --key k-2 has made before."]


def test_stock_adjust_whose_answer_is_lost_names_the_key_that_moves_no_unit_twice(
    floodgate: Floodgate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask_without_answer(edge: Edge, *request: Any) -> Any:
        await ASK(edge, *request)
        raise EdgeError("no answer")

    with monkeypatch.context() as lost:
        lost.setattr(Edge, "ask", ask_without_answer)
        result = floodgate("stock", "adjust", "A", "--delta", "5", "--reason", "found")
    assert result.exit_code == 1
    key = result.output.split("--key ")[1].strip()
    assert floodgate.json("stock", "adjust", "A", "--delta", "5", "--reason", "found", "--key", key)["total"] == 15


def test_stock_adjust_below_what_is_held_exits_1(floodgate: Floodgate) -> None:
    result = floodgate("stock", "adjust", "A", "--delta", "-11", "--reason", "broken")
    assert result.exit_code == 1
    assert "409 below_held" in result.output


def test_stock_movements_lists_the_changes_newest_first(floodgate: Floodgate) -> None:
    floodgate("stock", "adjust", "A", "--delta", "5", "--reason", "found")
    found = floodgate.json("stock", "movements", "A")
    assert [(item["delta"], item["total"]) for item in found["items"]] == [(5, 15), (10, 10)]
    lines = [line.split() for line in floodgate("stock", "movements", "A", "--limit", "1").stdout.splitlines()]
    assert [line[2:] for line in lines] == [
        ["delta", "total", "actor", "reason"],
        ["5", "15", "client:buyers", "found"],
    ]


def test_stock_of_a_sale_is_shown_and_spread_by_itself(floodgate: Floodgate) -> None:
    async def make() -> None:
        pool = await open_pool(floodgate.served.postgres_url, "test", 1, 5.0)
        await stock.set_total(pool, "s-1\x1fA", 6, 4, "test", None, None)
        await pool.close()

    asyncio.run(make())
    assert floodgate.json("stock", "reshard", "A", "--shards", "2", "--sale", "s-1")["per_shard"] == [3, 3]
    assert floodgate.json("stock", "show", "A", "--sale", "s-1")["shards"] == 2
    assert floodgate.json("stock", "show", "A")["shards"] == 4


@pytest.mark.parametrize("command", [("show",), ("reshard", "--shards", "2"), ("show", "--watch")])
def test_stock_of_unknown_sku_exits_1(floodgate: Floodgate, command: tuple[str, ...]) -> None:
    result = floodgate("stock", command[0], "nothing", *command[1:])
    assert result.exit_code == 1
    assert "404 not_found" in result.output


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_stock_show_watch_piped_is_a_line_for_each_look_until_interrupted(
    floodgate: Floodgate,
    as_json: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    command = [sys.executable, "-c", "from gateway.cli import main; main()", "stock", "show", "A", "--watch"]
    with subprocess.Popen(
        [*command, *(["--json"] if as_json else [])], stdout=subprocess.PIPE, env=os.environ | floodgate.environment
    ) as watching:
        assert watching.stdout is not None
        lines = [watching.stdout.readline().decode() for _ in range(2)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=20) == 0
    if as_json:
        assert [json.loads(line)["total"] for line in lines] == [10, 10]
    else:
        assert lines == ["A  total 10  held 0  leased 0  free 10  parked 0  refills_per_s 0.0  refused_per_s 0.0\n"] * 2


def test_events_of_stock_are_printed_with_level_and_units(nats_url: str) -> None:
    document = {
        "type": "com.floodgate.stock.low.v1",
        "subject": "A",
        "time": "2026-11-11T00:00:00.000Z",
        "data": {"sku": "A", "level": "low", "previous_level": "in_stock", "available": 9, "version": 1},
    }

    async def publish() -> None:
        stream = Stream(nats_url, "test", 5.0)
        await stream.ensure_streams(StreamSettings(1, 3600, 60))
        await stream.publish([Event("stock.low.01", "41.1", json.dumps(document).encode())], STOCK)
        await stream.close()

    asyncio.run(publish())
    runner = CliRunner(env={"FLOODGATE_NATS__URL": nats_url})
    printed = runner.invoke(main, ["events", "--stream", "stock"]).stdout.split()
    assert printed == ["2026-11-11T00:00:00.000Z", "stock.low.v1", "A", "-", "low", "9", "units"]
    assert runner.invoke(main, ["events"]).stdout == ""
