"""`floodgate stock`: shows and sets the units of a SKU, through the HTTP edge, where each change leaves a movement.

`set` names the total that there is to sell, sold units included; it can never go below what is sold or promised.
"""

from pathlib import Path
from typing import Any

import click

from gateway.cli import address, terminal
from gateway.cli.address import EdgeAddress
from gateway.cli.edge import SHORT_WAIT_S, Edge
from gateway.cli.preparing import accepted, stock_path

COLUMNS = ("sku", "total", "held", "leased", "free", "owed", "shards")


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
@address.json_option
@address.edge_options
def show(sku: str, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """Show where the units of a SKU are."""
    target = address.edge_address(url, token_file, data)
    _say(address.run(_show(target, sku)), as_json=as_json)


async def _set(target: EdgeAddress, sku: str, told: dict[str, Any]) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        accepted(await edge.ask("PUT", stock_path(sku), told), sku)
        return accepted(await edge.ask("GET", stock_path(sku)), sku)


async def _show(target: EdgeAddress, sku: str) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        return accepted(await edge.ask("GET", stock_path(sku)), sku)


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(found)
        return
    terminal.say_table(COLUMNS, [[found[column] for column in COLUMNS]])
    click.echo("free by shard  " + "  ".join(f"{units:,}" for units in found["per_shard"]))
