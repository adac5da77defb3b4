"""`floodgate stock`: shows and sets the units of a SKU, and where stock pinches, through the HTTP edge, where each
change of a total leaves a movement.

`set` names the total that there is to sell, sold units included; it can never go below what is sold or promised.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from gateway.cli import address, terminal
from gateway.cli.address import EdgeAddress
from gateway.cli.edge import SHORT_WAIT_S, Edge
from gateway.cli.preparing import accepted, stock_path

COLUMNS = ("sku", "total", "held", "leased", "free", "owed", "shards")
GOING_ON = ("parked", "refills_per_s", "refused_per_s")
HAND = ("owner", "host", "pid", "units")
WATCHED = ("total", "held", "leased", "free", *GOING_ON)
WORST = ("sku", "sale", "total", "held", "leased", "free", "shards", *GOING_ON)
LOOK_EVERY_S = 1.0

sale_option = click.option("--sale", metavar="ID", default=None, help="The units that this sale has of the SKU.")


@click.group()
def stock() -> None:
    """Show and change stock."""


@stock.command("set")
@click.argument("sku")
@click.option("--units", type=click.IntRange(min=0), required=True, help="The total, sold units included.")
@click.option(
    "--shards", type=click.IntRange(1, 256), default=None, help="Over how many shards the free units are spread."
)
@click.option("--reason", default=None, help="Kept with the movement.")
@address.json_option
@address.edge_options
def set_stock(
    sku: str,
    units: int,
    shards: int | None,
    reason: str | None,
    url: str | None,
    token_file: Path | None,
    data: Path,
    *,
    as_json: bool,
) -> None:
    """Set the total of a SKU."""
    body = {"total": units, "shards": shards, "reason": reason}
    told = {name: value for name, value in body.items() if value is not None}
    target = address.edge_address(url, token_file, data)
    _say(address.run(_set(target, sku, told)), as_json=as_json)


@stock.command()
@click.argument("sku")
@sale_option
@click.option("--watch", is_flag=True, help="Look again each second, until Ctrl-C.")
@address.json_option
@address.edge_options
def show(
    sku: str, sale: str | None, url: str | None, token_file: Path | None, data: Path, *, watch: bool, as_json: bool
) -> None:
    """Show where the units of a SKU are, in whose hands, and how many orders wait for them."""
    target, path = address.edge_address(url, token_file, data), _path(sku, sale)
    if not watch:
        _say(address.run(_ask(target, "GET", path, sku)), as_json=as_json)
        return
    with suppress(KeyboardInterrupt):
        address.run(_watch(target, path, sku, as_json=as_json))


@stock.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="So many SKUs at most.")
@address.json_option
@address.edge_options
def top(limit: int, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """List the SKUs whose stock pinches most: orders refused for want of units, orders that wait, refills."""
    target = address.edge_address(url, token_file, data)
    found = address.run(_ask(target, "GET", f"/v1/stock?limit={limit}", "stock"))
    if as_json:
        terminal.say_json(found)
    elif found["items"]:
        rows = ({"sale": item.get("sale_id")} | item for item in found["items"])
        terminal.say_table(WORST, [[row[column] for column in WORST] for row in rows])
    else:
        click.echo("Nothing goes on: no orders are refused or wait, and nobody refills.")


@stock.command()
@click.argument("sku")
@click.option(
    "--shards", type=click.IntRange(1, 256), required=True, help="Over how many shards the free units are spread."
)
@sale_option
@address.json_option
@address.edge_options
def reshard(
    sku: str, shards: int, sale: str | None, url: str | None, token_file: Path | None, data: Path, *, as_json: bool
) -> None:
    """Spread the free units of a SKU over other shards, while orders flow. More shards, less contention when many
    workers refill at once; fewer, less work for the last units. From then on no rule changes their number.
    """
    target = address.edge_address(url, token_file, data)
    _say(address.run(_ask(target, "PATCH", _path(sku, sale), sku, {"shards": shards})), as_json=as_json)


async def _set(target: EdgeAddress, sku: str, told: dict[str, Any]) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        accepted(await edge.ask("PUT", stock_path(sku), told), sku)
        return accepted(await edge.ask("GET", stock_path(sku)), sku)


async def _ask(target: EdgeAddress, method: str, path: str, what: str, document: Any = None) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        return accepted(await edge.ask(method, path, document), what)


async def _watch(target: EdgeAddress, path: str, sku: str, *, as_json: bool) -> None:
    """A page that is drawn anew at a terminal; a line for each look elsewhere, or as JSON."""
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        while True:
            found = accepted(await edge.ask("GET", path), sku)
            if as_json:
                click.echo(msgspec.json.encode(found).decode())
            elif sys.stdout.isatty():
                click.clear()
                _say(found, as_json=False)
            else:
                click.echo("  ".join([found["sku"], *(f"{name} {found[name]:,}" for name in WATCHED)]))
            sys.stdout.flush()
            await asyncio.sleep(LOOK_EVERY_S)


def _path(sku: str, sale: str | None) -> str:
    return stock_path(sku) if sale is None else f"{stock_path(sku)}?{urlencode({'sale_id': sale})}"


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(found)
        return
    terminal.say_table(COLUMNS, [[found[column] for column in COLUMNS]])
    click.echo("free by shard  " + "  ".join(f"{units:,}" for units in found["per_shard"]))
    click.echo("  ".join(f"{name} {found[name]:,}" for name in GOING_ON))
    if found["hands"]:
        click.echo()
        rows = (hand | {"pid": str(hand["pid"])} for hand in found["hands"])
        terminal.say_table(HAND, [[row[column] for column in HAND] for row in rows])
