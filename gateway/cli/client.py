"""`floodgate client`: makes API clients and their tokens, straight in the ledger: there is no token to ask with before
the first one.

A token is shown once, or written to a file that only its owner can read; the ledger keeps its hash. A change is in
force at every gateway within a second.
"""

import datetime as dt
import re
from pathlib import Path
from typing import Any

import asyncpg
import click

from core_ext.limits import CHANNEL_CHARS_MAX
from deploy.local.edge import read_token
from deploy.local.folder import write_private
from gateway.cli import address, terminal
from gateway.cli.examples import examples
from gateway.domain.access import ANY_CHANNEL, SCOPES, new_token, token_hash
from persistence.postgres import clients
from persistence.postgres.clients import NameTakenError, StoredClient
from persistence.postgres.connect import connect

ALL = "all"
CONNECTION_NAME = "fg-cli"
HEADS = ("name", "token", "expires", "last used", "channels", "scopes")
TOKEN = ("token_id", "created_at", "expires_at", "last_used_at", "revoked_at")
NAME = re.compile("[a-z0-9-]{1,64}")
CHANNEL = re.compile(f"[a-z0-9-]{{1,{CHANNEL_CHARS_MAX}}}")

token_file_option = click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the token to this file (mode 0600) instead of the terminal.",
)
expires_option = click.option("--expires-days", type=click.IntRange(1, 36500), default=None, help="[default: never]")


@examples(
    "floodgate client list",
    "floodgate client add shop --scope orders:write --channel app --token-file shop.token",
)
@click.group()
def client() -> None:
    """Make, rotate and revoke the tokens of API clients."""


@examples(
    "floodgate client add shop --scope orders:write --scope orders:read --channel app",
    "floodgate client add ops --scope all --channel '*' --token-file ops.token",
)
@client.command(epilog="Scopes: " + "; ".join(f"{scope} - {allows}" for scope, allows in SCOPES.items()) + ".")
@click.argument("name", callback=lambda _ctx, _param, value: _named(value))
@click.option(
    "--scope", "scopes", type=click.Choice([*SCOPES, ALL]), multiple=True, required=True, help="May be repeated."
)
@click.option("--channel", "channels", multiple=True, help="Where it may sell, '*' for anywhere; may be repeated.")
@click.option("--if-missing", is_flag=True, help="Do nothing when the client and a live token in --token-file exist.")
@expires_option
@token_file_option
@address.servers_options
def add(
    name: str,
    scopes: tuple[str, ...],
    channels: tuple[str, ...],
    expires_days: int | None,
    token_file: Path | None,
    data: Path,
    config: Path | None,
    *,
    if_missing: bool,
) -> None:
    """Make a client with its first token."""
    if if_missing and token_file is None:
        raise click.UsageError("--if-missing needs --token-file: that is where a token is looked for")
    granted = sorted(SCOPES) if ALL in scopes else sorted(set(scopes))
    _check_channels(granted, channels)
    work = _add(
        address.ledger_url(data, config),
        name,
        granted,
        sorted(set(channels)),
        _expiry(expires_days),
        token_file,
        if_missing=if_missing,
    )
    _say_token(address.run(work), token_file)


@examples(
    "floodgate client rotate shop",
    "floodgate client rotate shop --expires-days 90 --token-file shop.token",
)
@client.command()
@click.argument("name")
@expires_option
@token_file_option
@address.servers_options
def rotate(name: str, expires_days: int | None, token_file: Path | None, data: Path, config: Path | None) -> None:
    """Give a client a second token.

    Revoke the first one when nothing uses it any more.
    """
    _say_token(
        address.run(_rotate(address.ledger_url(data, config), name, _expiry(expires_days), token_file)), token_file
    )


@examples(
    "floodgate client revoke shop --token-file old.token",
    "floodgate client revoke shop --all",
)
@client.command()
@click.argument("name")
@click.option("--all", "everything", is_flag=True, help="End every token of the client.")
@click.option(
    "--token-file", type=click.Path(dir_okay=False, path_type=Path), default=None, help="End the token in this file."
)
@click.option("--token-id", type=click.IntRange(1), default=None, help="End the token with this number.")
@address.servers_options
def revoke(
    name: str, token_file: Path | None, token_id: int | None, data: Path, config: Path | None, *, everything: bool
) -> None:
    """End tokens of a client."""
    if [everything, token_file is not None, token_id is not None].count(True) != 1:
        raise click.UsageError("name the tokens to end: one of --all, --token-file FILE and --token-id N")
    hash_ = _hash_in(token_file) if token_file else None
    ended = address.run(_revoke(address.ledger_url(data, config), name, hash_, token_id))
    if not (everything or ended):
        which = f"in {token_file}" if token_file else f"with the number {token_id}"
        raise click.ClickException(f"the token {which} is no live token of {name}")
    click.echo(f"{ended} tokens of {name} are revoked; no gateway takes them after a second.")


@examples(
    "floodgate client list",
    "floodgate client list --json",
)
@client.command("list")
@address.json_option
@address.servers_options
def list_clients(data: Path, config: Path | None, *, as_json: bool) -> None:
    """List the clients with their live tokens.

    Until when each token is good, and when it was used last.
    """
    found = address.run(_list(address.ledger_url(data, config)))
    if as_json:
        terminal.say_json({"items": [_told(stored) for stored in found]})
    else:
        terminal.say_table(HEADS, [row for stored in found for row in _rows(stored)])


async def _add(
    url: str,
    name: str,
    scopes: list[str],
    channels: list[str],
    expires_at: dt.datetime | None,
    token_file: Path | None,
    *,
    if_missing: bool,
) -> str | None:
    """The new token; None when nothing was to be done."""
    connection = await connect(url, CONNECTION_NAME)
    try:
        known = if_missing and await clients.exists(connection, name)
        if known and await _is_live(connection, name, token_file):
            return None
        token = new_token()
        async with connection.transaction():
            if known:
                await clients.revoke(connection, name, None)
                await clients.rotate(connection, name, token_hash(token), expires_at)
            else:
                await _make(connection, name, scopes, channels, token, expires_at)
            _keep(token, token_file)
        return token
    finally:
        await connection.close()


async def _make(
    connection: asyncpg.Connection,
    name: str,
    scopes: list[str],
    channels: list[str],
    token: str,
    expires_at: dt.datetime | None,
) -> None:
    try:
        await clients.add(connection, name, scopes, channels, token_hash(token), expires_at)
    except NameTakenError as error:
        raise click.ClickException(f"{error}; `floodgate client rotate {name}` gives it another token") from error


async def _rotate(url: str, name: str, expires_at: dt.datetime | None, token_file: Path | None) -> str:
    connection = await connect(url, CONNECTION_NAME)
    try:
        token = new_token()
        async with connection.transaction():
            await clients.rotate(connection, name, token_hash(token), expires_at)
            _keep(token, token_file)
        return token
    finally:
        await connection.close()


async def _revoke(url: str, name: str, hash_: bytes | None, token_id: int | None) -> int:
    connection = await connect(url, CONNECTION_NAME)
    try:
        return await clients.revoke(connection, name, hash_, token_id)
    finally:
        await connection.close()


async def _list(url: str) -> list[StoredClient]:
    connection = await connect(url, CONNECTION_NAME)
    try:
        return await clients.page(connection, "", None)
    finally:
        await connection.close()


async def _is_live(connection: asyncpg.Connection, name: str, token_file: Path | None) -> bool:
    """Whether the file holds a token of this client that is in force."""
    token = read_token(token_file) if token_file else ""
    wanted = (name, token_hash(token))
    return any((row["name"], row["token_hash"]) == wanted for row in await clients.live_tokens(connection))


def _keep(token: str, token_file: Path | None) -> None:
    # Inside the transaction: a token that cannot be kept is not made.
    if token_file:
        write_private(token_file, token + "\n")


def _say_token(token: str | None, token_file: Path | None) -> None:
    if token is None:
        click.echo(f"The client and its token in {token_file} exist; nothing was changed.")
    elif token_file:
        click.echo(f"The token is in {token_file}; it is in force within a second.")
    else:
        click.echo(token)
        click.echo("This token is shown once; it is in force within a second.", err=True)


def _told(stored: StoredClient) -> dict[str, Any]:
    """A client as `GET /v1/clients` tells it."""
    client = dict(stored.client)
    del client["client_id"]
    return client | {"tokens": [{name: token[name] for name in TOKEN} for token in stored.tokens]}


def _rows(stored: StoredClient) -> list[tuple[object, ...]]:
    """The client's lines of the table: one for each live token, or one that says that there is none."""
    client = stored.client
    terms = (" ".join(client["channels"]), " ".join(client["scopes"]))
    live = [token for token in stored.tokens if token["is_live"]]
    rows: list[tuple[object, ...]] = [
        (str(token["token_id"]), _moment(token["expires_at"]), _moment(token["last_used_at"])) for token in live
    ]
    return [(client["name"], *row, *terms) for row in rows or [(None, None, None)]]


def _moment(at: dt.datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M}Z"


def _hash_in(token_file: Path) -> bytes:
    token = read_token(token_file)
    if not token:
        raise click.ClickException(f"there is no token in {token_file}")
    return token_hash(token)


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise click.BadParameter("a name has 1 to 64 of a-z, 0-9 and -")
    return name


def _check_channels(scopes: list[str], channels: tuple[str, ...]) -> None:
    for channel in channels:
        if channel != ANY_CHANNEL and not CHANNEL.fullmatch(channel):
            raise click.UsageError(
                f"--channel {channel}: a channel has 1 to {CHANNEL_CHARS_MAX} of a-z, 0-9 and -, or is '*'"
            )
    if not channels and {"orders:write", "bulk"} & set(scopes):
        raise click.UsageError("a client that places orders needs a --channel to sell on, '*' for any")


def _expiry(days: int | None) -> dt.datetime | None:
    return None if days is None else dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
