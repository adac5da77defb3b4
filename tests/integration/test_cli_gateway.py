"""The commands that talk to a gateway, with a real one: catalogue, stock, and the replay of a small dirty file."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from tests.served import Served

# Two sales, one of them a guest's with a gift and a repeated SKU; a refused one; a charge; a cancellation.
INVOICES = """\
InvoiceNo,StockCode,Description,Quantity,UnitPrice,CustomerID,Country
1,85123A,HEART HOLDER,6,2.55,17850,United Kingdom
1,POST,POSTAGE,1,18.00,17850,United Kingdom
2,85123a,heart holder,2,1.00,,France
2,85123a,heart holder,3,1.00,,France
2,GIFT,BOX,1,0,,France
3,85123A,DAMAGED,-4,0,,United Kingdom
C4,85123A,HEART HOLDER,-6,2.55,17850,United Kingdom
"""


class Floodgate:
    """The command line, and the gateway that it talks to."""

    def __init__(self, served: Served, token_file: Path) -> None:
        self.served = served
        self._environment = {"FLOODGATE_URL": served.url, "FLOODGATE_TOKEN_FILE": str(token_file)}

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self._environment).invoke(main, arguments)

    def json(self, *arguments: str) -> Any:
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def fetch(self, query: str) -> list[Any]:
        return asyncio.run(self.served.fetch(query))


@pytest.fixture
def floodgate(postgres_url: str, nats_url: str, tmp_path: Path) -> Iterator[Floodgate]:
    served = Served(postgres_url, nats_url)
    asyncio.run(served.prepare({"A": 10}))
    asyncio.run(served.start())
    (tmp_path / "token").write_text(served.token)
    yield Floodgate(served, tmp_path / "token")
    asyncio.run(served.close())


@pytest.fixture
def invoices(tmp_path: Path) -> str:
    file = tmp_path / "invoices.csv"
    file.write_text(INVOICES)
    return str(file)


def test_product_set_makes_then_changes_and_keeps_the_rest(floodgate: Floodgate) -> None:
    name = "a/b 茶"
    floodgate.json("product", "set", name, "--price", "100", "--currency", "CNY", "--title", "Tea", "--inactive")

    changed = floodgate.json("product", "set", name, "--price", "200", "--currency", "CNY")

    assert changed == {
        "sku": name, "title": "Tea", "price": 200, "currency": "CNY", "stocked": True, "active": False, "version": 2,
        "limit": None,
    }  # fmt: skip
    assert floodgate.json("product", "show", name) == changed


def test_product_set_limit_sets_keeps_and_removes_it(floodgate: Floodgate) -> None:
    told = ("product", "set", "L", "--price", "100", "--currency", "CNY")
    limits = [floodgate.json(*told, *more)["limit"] for more in (("--limit", "2"), (), ("--no-limit",))]
    assert limits == [2, 2, None]


def test_product_set_with_a_limit_and_none_is_refused(floodgate: Floodgate) -> None:
    result = floodgate("product", "set", "L", "--price", "1", "--currency", "CNY", "--limit", "2", "--no-limit")
    assert result.exit_code == 2
    assert "--no-limit" in result.output


def test_product_set_refused_names_the_fault_and_exits_1(floodgate: Floodgate) -> None:
    result = floodgate("product", "set", "B", "--price", "-1", "--currency", "yuan")

    assert result.exit_code == 1
    assert "#/price" in result.output
    assert "#/currency" in result.output


def test_product_list_of_many_pages_has_every_one_once(floodgate: Floodgate, tmp_path: Path) -> None:
    file = tmp_path / "products.csv"
    rows = [f"P{number:03d},Product {number},{number},CNY,{number}" for number in range(250)]
    file.write_text("\n".join(["sku,title,price,currency,units", *rows]))

    assert floodgate.json("product", "load", str(file)) == {"products": 250, "stock": 250, "failed": []}
    listed = [item["sku"] for item in floodgate.json("product", "list")["items"]]
    assert listed == ["A", *(f"P{number:03d}" for number in range(250))]
    assert floodgate.json("stock", "show", "P249")["total"] == 249


def test_product_load_with_refused_rows_puts_the_others_and_exits_1(floodgate: Floodgate, tmp_path: Path) -> None:
    file = tmp_path / "products.ndjson"
    good, bad = ({"sku": sku, "title": "T", "price": 1, "currency": money} for sku, money in (("G", "CNY"), ("B", "¥")))
    file.write_text("\n".join(map(json.dumps, (good, bad))))

    result = floodgate("product", "load", str(file))

    assert result.exit_code == 1
    assert "line 2, B: 422 invalid: #/currency" in result.output
    assert floodgate("product", "show", "G").exit_code == 0


def test_stock_set_then_show_tells_where_the_units_are(floodgate: Floodgate) -> None:
    shown = floodgate.json("stock", "set", "A", "--units", "12", "--shards", "3")

    assert (shown["total"], shown["free"], shown["shards"], len(shown["per_shard"])) == (12, 12, 3, 3)
    assert "12" in floodgate("stock", "show", "A").stdout


def test_stock_show_of_unknown_sku_exits_1(floodgate: Floodgate) -> None:
    result = floodgate("stock", "show", "nothing")

    assert result.exit_code == 1
    assert "404 not_found" in result.output


def test_replay_prepared_file_accepts_refuses_and_counts(floodgate: Floodgate, invoices: str) -> None:
    result = floodgate.json("replay", invoices, "--channel", "online-retail", "--prepare")

    seconds = result.pop("seconds")
    assert seconds >= 0
    assert result == {
        "accepted": 2, "replayed": 0, "refused": 1, "refused_by_code": {"invalid": 1}, "cancellations": 1,
        "adjustments": 0, "lines": 5, "units": 13, "value": 6 * 255 + 1800 + 500,
    }  # fmt: skip
    orders = floodgate.fetch("select external_id, status, customer_id, total, metadata from orders order by order_id")
    assert [tuple(row) for row in orders] == [
        ("1", "paid", "17850", 3330, '{"country":"United Kingdom"}'),
        ("2", "paid", None, 500, '{"country":"France"}'),
    ]


def test_replay_a_second_time_accepts_none_and_changes_nothing(floodgate: Floodgate, invoices: str) -> None:
    tables = ("product", "stock_movement", "orders", "order_lines", "order_history", "idempotency_key")
    everything = " union all ".join(
        f"select '{name}', (select json_agg(t order by t::text)::text from {name} t)" for name in tables
    )
    floodgate.json("replay", invoices, "--channel", "online-retail", "--prepare")
    before = floodgate.fetch(everything)

    result = floodgate.json("replay", invoices, "--channel", "online-retail", "--prepare")

    assert (result["accepted"], result["replayed"], result["refused"], result["units"]) == (0, 2, 1, 0)
    assert floodgate.fetch(everything) == before


def test_replay_unprepared_file_is_refused_order_by_order(floodgate: Floodgate, invoices: str) -> None:
    result = floodgate("replay", invoices, "--channel", "online-retail")

    assert result.exit_code == 0
    assert "refused        3  (invalid 3)" in result.stdout


def test_replay_with_wrong_token_stops_at_once_and_exits_1(floodgate: Floodgate, invoices: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("fg_wrong")

    result = floodgate("replay", invoices, "--channel", "online-retail")

    assert result.exit_code == 1
    assert "does not permit it: 401 unauthenticated" in result.output


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bnot gzip", b"a,b\n1,2\n"])
def test_replay_of_another_file_says_so_and_exits_1(floodgate: Floodgate, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)

    result = floodgate("replay", str(tmp_path / "file"), "--channel", "online-retail")

    assert result.exit_code == 1
    assert str(tmp_path / "file") in result.output
