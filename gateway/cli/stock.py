"""`floodgate stock`: shows and changes the units of a SKU, and where stock pinches, through the HTTP edge, where each
change of a total leaves a movement.

`set` names the total that there is to sell, sold units included, `adjust` by how much it changes; it can never go below
what is sold or promised.
"""

import asyncio
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click
import msgspec

from gateway.cli import address, terminal
from gateway.cli.address import EdgeAddress
from gateway.cli.edge import SHORT_WAIT_S, Edge, EdgeError
from gateway.cli.examples import examples
from gateway.cli.preparing import accepted, stock_path

COLUMNS = ("sku", "total", "held", "leased", "free", "owed", "shards")
GOING_ON = ("parked", "refills_per_s", "refused_per_s")
MOVEMENT = ("movement_id", "at", "delta", "total", "actor", "reason")
HAND = ("owner", "host", "pid", "units")
WATCHED = ("total", "held", "leased", "free", *GOING_ON)
WORST = ("sku", "sale", "total", "held", "leased", "free", "shards", *GOING_ON)
LOOK_EVERY_S = 1.0

sale_option = click.option("--sale", metavar="ID", default=None, help="The units that this sale has of the SKU.")


@examples(
    "floodgate stock show MUG-001",
    "floodgate stock set MUG-001 --units 500",
)
@click.group()
def stock() -> None:
    """Show and change stock."""


@examples(
    "floodgate stock set MUG-001 --units 500",
    'floodgate stock set MUG-001 --units 800 --reason "delivery 4711"',
)
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


@examples(
    'floodgate stock adjust MUG-001 --delta 40 --reason "delivery 4711"',
    'floodgate stock adjust MUG-001 --delta -3 --reason "broken" --key broken-4711',
)
@stock.command()
@click.argument("sku")
@click.option("--delta", type=int, required=True, help="Units that are added, or taken away when negative.")
@click.option("--reason", required=True, help="Kept with the movement.")
@click.option("--key", default=None, help="The same key moves units once.  [default: a new one]")
@address.json_option
@address.edge_options
def adjust(
    sku: str,
    delta: int,
    reason: str,
    key: str | None,
    url: str | None,
    token_file: Path | None,
    data: Path,
    *,
    as_json: bool,
) -> None:
    """Change the total of a SKU by so many units.

    Whatever else changes it at the same time. The same key moves units once, however often it is sent.
    """
    target = address.edge_address(url, token_file, data)
    told = {"delta": delta, "reason": reason}
    movement, is_replayed = address.run(_adjust(target, sku, told, key or str(uuid.uuid4())))
    if as_json:
        terminal.say_json(movement)
        return
    _say_movements([movement])
    if is_replayed:
        click.echo(f"No units have moved now: this is the movement that --key {key} has made before.")


@examples("floodgate stock movements MUG-001", "floodgate stock movements MUG-001 --limit 5 --json")
@stock.command()
@click.argument("sku")
@sale_option
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="So many at most.")
@address.json_option
@address.edge_options
def movements(
    sku: str, sale: str | None, limit: int, url: str | None, token_file: Path | None, data: Path, *, as_json: bool
) -> None:
    """List the changes of a SKU's total.

    Newest first: by whom, and why.
    """
    target = address.edge_address(url, token_file, data)
    query = {"limit": limit} | ({} if sale is None else {"sale_id": sale})
    found = address.run(_ask(target, "GET", f"{stock_path(sku)}/movements?{urlencode(query)}", sku))
    if as_json:
        terminal.say_json(found)
    else:
        _say_movements(found["items"])


@examples(
    "floodgate stock show MUG-001",
    "floodgate stock show MUG-001 --watch",
    "floodgate stock show MUG-001 --sale double-11 --json",
)
@stock.command()
@click.argument("sku")
@sale_option
@click.option("--watch", is_flag=True, help="Look again each second, until Ctrl-C.")
@address.json_option
@address.edge_options
def show(
    sku: str, sale: str | None, url: str | None, token_file: Path | None, data: Path, *, watch: bool, as_json: bool
) -> None:
    """Show where the units of a SKU are.

    In whose hands they are, how they are spread over the shards, and how many orders wait for them.
    """
    target, path = address.edge_address(url, token_file, data), _path(sku, sale)
    if not watch:
        _say(address.run(_ask(target, "GET", path, sku)), as_json=as_json)
        return
    with suppress(KeyboardInterrupt):
        address.run(_watch(target, path, sku, as_json=as_json))


@examples(
    "floodgate stock top",
    "floodgate stock top --limit 5 --json",
)
@stock.command()
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="So many SKUs at most.")
@address.json_option
@address.edge_options
def top(limit: int, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """List the SKUs whose stock pinches most.

    Those with orders refused for want of units first, then with orders that wait, then with refills.
    """
    target = address.edge_address(url, token_file, data)
    found = address.run(_ask(target, "GET", f"/v1/stock?limit={limit}", "stock"))
    if as_json:
        terminal.say_json(found)
    elif found["items"]:
        rows = ({"sale": item.get("sale_id")} | item for item in found["items"])
        terminal.say_table(WORST, [[row[column] for column in WORST] for row in rows])
    else:
        click.echo("Nothing goes on: no orders are refused or wait, and nobody refills.")


@examples(
    "floodgate stock reshard MUG-001 --shards 16",
    "floodgate stock reshard MUG-001 --shards 8 --sale double-11",
)
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
    """Spread a SKU's free units over other shards.

    While orders flow. More shards, less contention when many workers refill at once; fewer, less work for the last
    units. From then on no rule changes their number.
    """
    target = address.edge_address(url, token_file, data)
    _say(address.run(_ask(target, "PATCH", _path(sku, sale), sku, {"shards": shards})), as_json=as_json)


async def _set(target: EdgeAddress, sku: str, told: dict[str, Any]) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        accepted(await edge.ask("PUT", stock_path(sku), told), sku)
        return accepted(await edge.ask("GET", stock_path(sku)), sku)


async def _adjust(target: EdgeAddress, sku: str, told: dict[str, Any], key: str) -> tuple[Any, bool]:
    """The movement, and whether the key had made it before."""
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        try:
            answer = await edge.ask("POST", f"{stock_path(sku)}/adjustments", told, {"Idempotency-Key": key})
        except EdgeError as error:
            # Under a new key it could happen twice.
            raise EdgeError(f"{error}. Whether units have moved is not known: ask again with --key {key}") from error
        return accepted(answer, sku), "Idempotency-Replayed" in answer.headers


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


def _say_movements(found: Sequence[dict[str, Any]]) -> None:
    rows = ({"reason": None} | item | {"movement_id": str(item["movement_id"])} for item in found)
    terminal.say_table(MOVEMENT, [[row[column] for column in MOVEMENT] for row in rows])


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
