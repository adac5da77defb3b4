"""`floodgate sale`: makes, opens, closes and reports sales, through the HTTP edge like everybody else.

Times that are relative count from the server's clock, by which every sale opens, and not from this machine's.
"""

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click
import msgspec

from core_ext.shapes import Time
from gateway.cli import address, terminal
from gateway.cli.address import EdgeAddress
from gateway.cli.edge import SHORT_WAIT_S, Edge, EdgeError
from gateway.cli.examples import examples
from gateway.cli.preparing import accepted

COLUMNS = ("sale_id", "title", "state", "starts_at", "ends_at", "version")
ITEM_COLUMNS = ("sku", "price", "currency", "units", "limit")
REPORT_LINES = (
    "orders",
    "units",
    "returned_units",
    "unsold_units",
    "total_units",
    "buyers",
    "first_unit_at",
    "last_unit_at",
)
PAGE = 200
ITEM = re.compile(r"(.+?):([0-9]+):([0-9]+)(?::([0-9]+))?")
RELATIVE = re.compile(r"\+([0-9]{1,9})(s|m|h|d)")
TIME_FORMS = "2026-11-11T00:00:00+08:00, or from now on +30s, +2m, +1h, +1d"
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@examples(
    "floodgate sale list",
    "floodgate sale create double-11 --starts +30s --ends +2h --item MUG-001:3900:500:2",
)
@click.group()
def sale() -> None:
    """Make, open, close and report sales."""


@examples(
    "floodgate sale create double-11 --starts +30s --ends +2h --item MUG-001:3900:500:2",
    "floodgate sale create double-11 --file sale.json --replace",
)
@sale.command()
@click.argument("sale_id", metavar="ID")
@click.option("--starts", metavar="T", help=f"{TIME_FORMS}.")
@click.option("--ends", metavar="T", help="The same.")
@click.option("--item", "items", multiple=True, metavar="SKU:PRICE:UNITS[:LIMIT]", help="May be given many times.")
@click.option("--title", default=None, help="[default: the ID]")
@click.option("--payment-timeout", type=click.IntRange(min=1), metavar="S", help="Seconds to pay an order of the sale.")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON with starts_at, ends_at, title, payment_timeout_s, items; the options win over it.",
)
@click.option("--replace", is_flag=True, help="Replace the sale of this ID, if there is one.")
@address.json_option
@address.edge_options
def create(
    sale_id: str,
    starts: str | None,
    ends: str | None,
    items: tuple[str, ...],
    title: str | None,
    payment_timeout: int | None,
    file: Path | None,
    url: str | None,
    token_file: Path | None,
    data: Path,
    *,
    replace: bool,
    as_json: bool,
) -> None:
    """Make a sale. PRICE is in minor units; UNITS are the sale's own and not taken from the SKU's everyday stock; LIMIT
    is what one customer may hold.
    """
    told = {
        "starts_at": _time(starts, "--starts"),
        "ends_at": _time(ends, "--ends"),
        "title": title,
        "payment_timeout_s": payment_timeout,
        "items": [_item(text) for text in items] or None,
    }
    wanted = {"title": sale_id} | _read(file) | {name: value for name, value in told.items() if value is not None}
    missing = [name for name in ("starts_at", "ends_at", "items") if name not in wanted]
    if missing:
        raise click.UsageError(f"a sale needs {' and '.join(missing)}: give --starts, --ends and --item, or a --file")
    target = address.edge_address(url, token_file, data)
    _say(address.run(_create(target, sale_id, wanted, replace=replace)), as_json=as_json)


@examples(
    "floodgate sale show double-11",
    "floodgate sale show double-11 --json",
)
@sale.command()
@click.argument("sale_id", metavar="ID")
@address.json_option
@address.edge_options
def show(sale_id: str, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """Show a sale."""
    target = address.edge_address(url, token_file, data)
    _say(address.run(_ask(target, "GET", _path(sale_id), sale_id)), as_json=as_json)


@examples(
    "floodgate sale list",
    "floodgate sale list --json",
)
@sale.command("list")
@address.json_option
@address.edge_options
def list_sales(url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """List the sales in the order of their ids."""
    found = address.run(_list(address.edge_address(url, token_file, data)))
    if as_json:
        terminal.say_json({"items": found})
    else:
        terminal.say_table(COLUMNS, [[item[column] for column in COLUMNS] for item in found])


@examples("floodgate sale open double-11")
@sale.command("open")
@click.argument("sale_id", metavar="ID")
@address.json_option
@address.edge_options
def open_sale(sale_id: str, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """Open a sale now. In force everywhere within a second."""
    target = address.edge_address(url, token_file, data)
    _say(address.run(_ask(target, "POST", f"{_path(sale_id)}/open", sale_id)), as_json=as_json)


@examples("floodgate sale close double-11")
@sale.command()
@click.argument("sale_id", metavar="ID")
@address.json_option
@address.edge_options
def close(sale_id: str, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """End a sale now. In force everywhere within a second."""
    target = address.edge_address(url, token_file, data)
    _say(address.run(_ask(target, "POST", f"{_path(sale_id)}/close", sale_id)), as_json=as_json)


@examples(
    "floodgate sale report double-11",
    "floodgate sale report double-11 --json",
)
@sale.command()
@click.argument("sale_id", metavar="ID")
@address.json_option
@address.edge_options
def report(sale_id: str, url: str | None, token_file: Path | None, data: Path, *, as_json: bool) -> None:
    """Report what a sale has sold, how fast, and what it has refused."""
    target = address.edge_address(url, token_file, data)
    found = address.run(_ask(target, "GET", f"{_path(sale_id)}/report", sale_id))
    if as_json:
        terminal.say_json(found)
        return
    rate = found["units_per_second"]
    rows = [[name.replace("_", " "), found[name]] for name in REPORT_LINES]
    rows.append(["units per second", f"{rate['peak']:,} at most, {rate['mean']:,} on average"])
    rows += [[f"refused {code}", count] for code, count in found["refusals"].items()]
    terminal.say_table((found["sale_id"], ""), rows)


async def _create(target: EdgeAddress, sale_id: str, wanted: dict[str, Any], *, replace: bool) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        times = {name: wanted[name] for name in ("starts_at", "ends_at")}
        if any(RELATIVE.fullmatch(str(text)) for text in times.values()):
            now = accepted(await edge.ask("GET", "/v1/sales?limit=1"), "the server's time")["now"]
            times = {name: _resolved(str(text), datetime.fromisoformat(now)) for name, text in times.items()}
        headers = {} if replace else {"If-None-Match": "*"}
        answer = await edge.ask("PUT", _path(sale_id), wanted | times, headers)
    if answer.code == "version_mismatch":
        raise EdgeError(f"there is a sale {sale_id} already: --replace replaces it")
    return accepted(answer, sale_id)


async def _ask(target: EdgeAddress, method: str, path: str, sale_id: str) -> Any:
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        return accepted(await edge.ask(method, path), sale_id)


async def _list(target: EdgeAddress) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"limit": PAGE}
    async with Edge(target.url, target.token, SHORT_WAIT_S) as edge:
        while True:
            page = accepted(await edge.ask("GET", f"/v1/sales?{urlencode(query)}"), "the sales")
            found += page["items"]
            if not page.get("next_cursor"):
                return found
            query["cursor"] = page["next_cursor"]


def _path(sale_id: str) -> str:
    return f"/v1/sales/{quote(sale_id, safe='')}"


def _time(text: str | None, flag: str) -> str | None:
    """The text of a flag as it was given, when the server can take it or `_resolved` can make an instant of it."""
    try:
        if text is not None and not RELATIVE.fullmatch(text):
            msgspec.convert(text, Time)
    except msgspec.ValidationError as error:
        raise click.BadParameter(f"{text} is no time: it has to be like {TIME_FORMS}", param_hint=flag) from error
    return text


def _item(text: str) -> dict[str, Any]:
    matched = ITEM.fullmatch(text)
    if matched is None:
        raise click.BadParameter(
            f"{text} is not like SKU:PRICE:UNITS or SKU:PRICE:UNITS:LIMIT, all but the SKU whole numbers",
            param_hint="--item",
        )
    sku, price, units, limit = matched.groups()
    item: dict[str, Any] = {"sku": sku, "price": int(price), "units": int(units)}
    return item if limit is None else item | {"limit": int(limit)}


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file} is no JSON object: {error}") from error


def _resolved(text: str, now: datetime) -> str:
    """An instant as the server takes it."""
    matched = RELATIVE.fullmatch(text)
    if matched is None:
        return text
    try:
        return (now + timedelta(seconds=int(matched.group(1)) * SECONDS[matched.group(2)])).isoformat()
    except OverflowError as error:
        raise click.ClickException(f"{text} leads beyond what a time can be") from error


def _say(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(found)
        return
    terminal.say_table(COLUMNS, [[found[column] for column in COLUMNS]])
    click.echo()
    terminal.say_table(ITEM_COLUMNS, [[item[column] for column in ITEM_COLUMNS] for item in found["items"]])
