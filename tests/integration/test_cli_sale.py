"""`floodgate sale`, with a real gateway: made, shown, opened, closed, reported, and what is said when it cannot be."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.served import Served

ITEM = ("--item", "A:99:10:2")
TIMES = ("--starts", "+1h", "--ends", "+2h")


class Floodgate:
    """The command line, and the gateway that it talks to."""

    def __init__(self, served: Served, token_file: Path) -> None:
        self.served = served
        self._environment = {"FLOODGATE_URL": served.url, "FLOODGATE_TOKEN_FILE": str(token_file)}

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self._environment).invoke(main, ["sale", *arguments])

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def floodgate(postgres_url: str, nats_url: str, tmp_path: Path) -> Iterator[Floodgate]:
    served = Served(postgres_url, nats_url)
    asyncio.run(served.prepare({"A": 10, "B:1": 10}))
    asyncio.run(served.start())
    (tmp_path / "token").write_text(served.token)
    yield Floodgate(served, tmp_path / "token")
    asyncio.run(served.close())


def test_sale_create_then_open_close_and_report(floodgate: Floodgate) -> None:
    made = floodgate.json("create", "double-11", *TIMES, *ITEM, "--title", "双十一", "--payment-timeout", "60")
    assert (made["title"], made["state"], made["payment_timeout_s"]) == ("双十一", "not_open", 60)
    assert made["items"] == [{"sku": "A", "price": 99, "currency": "CNY", "units": 10, "limit": 2}]
    assert made["now"] < made["starts_at"] < made["ends_at"]
    assert "not_open" in floodgate("show", "double-11").stdout

    opened = floodgate.json("open", "double-11")
    assert opened["starts_at"] <= floodgate.json("show", "double-11")["now"]
    assert floodgate.json("close", "double-11")["ends_at"] < made["ends_at"]
    assert [sale["sale_id"] for sale in floodgate.json("list")["items"]] == ["double-11"]
    assert "double-11" in floodgate("list").stdout

    assert floodgate.json("report", "double-11")["unsold_units"] == 10
    assert "unsold units" in floodgate("report", "double-11").stdout


def test_sale_create_of_a_file_takes_it_and_options_win(floodgate: Floodgate, tmp_path: Path) -> None:
    file = tmp_path / "sale.json"
    file.write_text(json.dumps({
        "title": "From a file", "starts_at": "+1m", "ends_at": "3000-01-01T00:00:00Z",
        "items": [{"sku": "B:1", "price": 5, "units": 3}],
    }))  # fmt: skip
    made = floodgate.json("create", "s", "--file", str(file), "--title", "Told")
    assert (made["title"], made["ends_at"]) == ("Told", "3000-01-01T00:00:00.000Z")
    assert [item["sku"] for item in made["items"]] == ["B:1"]
    assert made["starts_at"] > made["now"]


def test_sale_create_of_one_that_exists_needs_replace(floodgate: Floodgate) -> None:
    floodgate.json("create", "s", *TIMES, *ITEM)
    refused = floodgate("create", "s", *TIMES, "--item", "A:99:20")
    assert refused.exit_code == 1
    assert "--replace" in refused.output
    assert floodgate.json("create", "s", *TIMES, "--item", "A:99:20", "--replace")["items"][0]["units"] == 20


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["create", "s", *TIMES], 2, "a sale needs items"),
        (["create", "s", *ITEM, "--ends", "+1h"], 2, "a sale needs starts_at"),
        (["create", "s", *TIMES, "--item", "A:99"], 2, "SKU:PRICE:UNITS"),
        (["create", "s", *ITEM, "--starts", "5pm", "--ends", "+1h"], 2, "--starts: 5pm is no time"),
        (
            ["create", "s", *ITEM, "--starts", "+1h", "--ends", "2026-11-11"],
            2,
            "2026-11-11T00:00:00+08:00, or from now",
        ),
        (["create", "s", *ITEM, "--starts", "+1h", "--ends", "+999999999d"], 1, "+999999999d leads beyond"),
        (["create", "s", *ITEM, "--starts", "+2h", "--ends", "+1h"], 1, "#/ends_at must be after starts_at"),
        (["create", "s", *TIMES, "--item", "NO:1:1"], 1, "#/items/0/sku NO: is not in the catalogue"),
        (["create", "S", *TIMES, *ITEM], 1, "a-z, 0-9 and -"),
        (["show", "nothing"], 1, "nothing: 404 not_found"),
        (["open", "nothing"], 1, "nothing: 404 not_found"),
        (["report", "nothing"], 1, "nothing: 404 not_found"),
    ],
)
def test_sale_that_cannot_be_says_why(floodgate: Floodgate, arguments: list[str], status: int, said: str) -> None:
    result = floodgate(*arguments)
    assert result.exit_code == status
    assert said in result.output


def test_sale_create_of_a_file_with_a_bad_time_names_its_place(floodgate: Floodgate, tmp_path: Path) -> None:
    (tmp_path / "sale.json").write_text('{"starts_at": "soon"}')
    result = floodgate("create", "s", "--file", str(tmp_path / "sale.json"), "--ends", "+1h", *ITEM)
    assert result.exit_code == 1
    assert "#/starts_at must be a time of RFC 3339" in result.output


def test_sale_create_of_a_file_that_is_no_json_says_so(floodgate: Floodgate, tmp_path: Path) -> None:
    (tmp_path / "sale.json").write_text("[1]")
    result = floodgate("create", "s", "--file", str(tmp_path / "sale.json"))
    assert result.exit_code == 1
    assert "is no JSON object" in result.output
