"""`floodgate product`: shows and changes the catalogue, through the HTTP edge like everybody else, so that a change is
checked by the same rules and is in force within a second.

`set` changes what it is told and keeps the rest; `load` replaces whole products.
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from gateway.cli import address, terminal
from gateway.cli.address import EdgeAddress
from gateway.cli.edge import SHORT_WAIT_S, Answer, Edge
from gateway.cli.examples import examples
from gateway.cli.preparing import accepted, at_once, product_path, stock_path
from gateway.cli.products_file import ProductsFileError, Row, read

COLUMNS = ("sku", "title", "price", "currency", "stocked", "active", "limit", "version")
PAGE = 200
FAILURES_SHOWN = 20


@examples(
    "floodgate product list",
    "floodgate product set MUG-001 --price 3900 --currency CNY",
)
@click.group()
def product() -> None:
    """Show and change the catalogue."""


@examples(
    'floodgate product set MUG-001 --price 3900 --currency CNY --title "A mug"',
    "floodgate product set MUG-001 --price 3500 --currency CNY --limit 2",
    "floodgate product set GIFT-WRAP --price 500 --currency CNY --no-stock",
)
@product.command("set")
@click.argument("sku")
@click.option("--price", type=int, required=True, metavar="MINOR", help="Price in minor units (1999 is 19.99).")
@click.option("--currency", required=True, help="ISO 4217, such as CNY.")
@click.option("--title", default=None, help="[default: what it is; of a new product its SKU]")
@click.option("--stock/--no-stock", "stocked", default=None, help="Whether units of it are counted.")
@click.option("--active/--inactive", "active", default=None, help="Whether it is for sale.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Units that one customer may hold.")
@click.option("--no-limit", is_flag=True, help="A customer may hold any number.")
@address.json_option
@address.edge_options
def set_product(
    sku: str,
    price: int,
    currency: str,
    title: str | None,
    stocked: bool | None,  # noqa: FBT001 - click passes it by name; it has three values
    active: bool | None,  # noqa: FBT001 - as above
    limit: int | None,
    url: str | None,
    token_file: Path | None,
    data: Path,
    *,
    no_limit: bool,
    as_json: bool,
) -> None:
    """Make a product, or change one."""
    if no_limit and limit is not None:
        raise click.UsageError("--limit and --no-limit do not go together.")
    change = {
        "title": title,
        "price": price,
        "currency": currency,
        "stocked": stocked,
        "active": active,
        "limit": limit,
    }
    told: dict[str, Any] = {name: value for name, value in change.items() if value is not None}
    if no_limit:
        told["limit"] = None
    target = address.edge_address(url, token_file, data)
    found = address.run(_set(target, sku, told))
    _say(found, as_json=as_json)


@examples(
    "floodgate product load products.csv",
    "floodgate product load products.ndjson --json",
)
@product.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@address.json_option
@address.edge_options
def load(file: Path, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """Put the products of a file.

    CSV with the header sku,title,price,currency[,stocked][,active][,units], or NDJSON with the same names. Where
    `units` is given it becomes the total of the stock.
    """
    target = address.edge_address(url, token_file, data)
    try:
        rows = read(file.read_bytes())
    except ProductsFileError as error:
        raise click.ClickException(f"{file}: {error}") from error
    failures = address.run(_load(target, rows))
    stock = sum(row.units is not None for row in rows)
    if as_json:
        terminal.say_json({"products": len(rows), "stock": stock, "failed": failures})
    else:
        click.echo(f"{len(rows) - len(failures):,} of {len(rows):,} products stand, {stock:,} rows name stock.")
    if failures:
        shown = "\n".join(f"  {failure}" for failure in failures[:FAILURES_SHOWN])
        raise click.ClickException(f"{len(failures)} rows of {file} were refused:\n{shown}")


@examples(
    "floodgate product show MUG-001",
    "floodgate product show MUG-001 --json",
)
@product.command()
@click.argument("sku")
@address.json_option
@address.edge_options
def show(sku: str, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """Show a product."""
    target = address.edge_address(url, token_file, data)
    _say(address.run(_show(target, sku)), as_json=as_json)


@examples(
    "floodgate product list",
    "floodgate product list --json | jq '.items[].sku'",
)
@product.command("list")
@address.json_option
@address.edge_options
def list_products(url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """List the catalogue in the order of the SKUs."""
    target = address.edge_address(url, token_file, data)
    found = address.run(_list(target))
    if as_json:
        terminal.say_json({"items": found})
    else:
        terminal.say_table(COLUMNS, [[item[column] for column in COLUMNS] for item in found])


async def _set(target: EdgeAddress, sku: str, told: dict[str, Any]) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        answer = await edge.ask("PATCH", product_path(sku), told)
        if answer.status == 404:
            answer = await edge.ask("PUT", product_path(sku), {"title": sku, **told})
        return accepted(answer, sku)


async def _show(target: EdgeAddress, sku: str) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        return accepted(await edge.ask("GET", product_path(sku)), sku)


async def _list(target: EdgeAddress) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": PAGE}
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        while True:
            page = accepted(await edge.ask("GET", f"/v1/products?{urlencode(query)}"), "the catalogue")
            found += page["items"]
            if not page.get("next_cursor"):
                return found
            query["cursor"] = page["next_cursor"]


async def _load(target: EdgeAddress, rows: list[Row]) -> list[str]:
    """Put every row; returns what was refused, by line of the file."""
    refused: list[tuple[int, str]] = []
    async with Edge(target.url, target.token) as edge:
        with terminal.progress(len(rows), "products") as bar:
            async for row, answer in at_once(rows, lambda row: _put(edge, row)):
                bar.update(1)
                if not answer.ok:
                    refused.append((row.at, f"line {row.at}, {row.sku}: {answer.complaint}"))
    return [text for _, text in sorted(refused)]


async def _put(edge: Edge, row: Row) -> Answer:
    answer = await edge.ask("PUT", product_path(row.sku), row.product)
    if answer.ok and row.units is not None:
        answer = await edge.ask("PUT", stock_path(row.sku), {"total": row.units})
    return answer


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(found)
    else:
        terminal.say_table(COLUMNS, [[found[column] for column in COLUMNS]])
