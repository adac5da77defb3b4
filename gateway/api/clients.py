"""API clients and their tokens. A change is in force at every gateway within a second.

Nobody gives away more than he has: who makes a client or a token of one has every scope and channel that it gets.
Taking away needs none of them. A token stands in the answer that makes it, and in no other one, nor in any log.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

import asyncpg
from litestar import Response, delete, get, patch, post
from msgspec import UNSET, Meta

from core_ext.times import ms_of, text_of
from gateway.api import client_shapes as shapes
from gateway.api import examples
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, OPERATION, Operation, Parameter, Shown
from gateway.api.paging import LINK, parameters, read_page
from gateway.api.reading import read_if_match, read_json, services_of
from gateway.clock import Clock
from gateway.domain.access import ANY_CHANNEL, Client, new_token, token_hash
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from persistence.postgres import clients
from persistence.postgres.clients import NameTakenError, StoredClient, TokensFullError, UnknownClientError

PATH = "/v1/clients"
CURSOR_ROUTE = b"\x15"
SCOPES = ("clients:admin",)
CHANGE_TRIES = 5  # of a change without If-Match that others overtake
TOKEN_NUMBER = re.compile("[1-9][0-9]{0,17}")
ONCE = (
    "The token is shown in this answer and never again; it is in force within a second. "
    "A call whose answer was lost is not repeated: revoke the token that it made, and ask for another one."
)
AT_MOST = "At most your own scopes and channels can be given away."

NAME = Parameter("name", "path", Annotated[str, Meta(pattern=shapes.NAME_PATTERN)], "a-z, 0-9 and -", True, "app")
TOKEN_ID = Parameter("token_id", "path", Annotated[int, Meta(ge=1)], "The token's number", True, 12)
SHOWN = Shown("The client", shapes.Client, headers={"ETag": "The version of the client"}, example=examples.CLIENT)
LOCATION = {"Location": "Where the client is"}
SHOW = Operation(
    name="showClient",
    tag="Clients",
    summary="Show a client with its tokens",
    scopes=SCOPES,
    answers={200: SHOWN},
    problems=("not_found", "ledger_away"),
    parameters=(NAME,),
)
LIST = Operation(
    name="listClients",
    tag="Clients",
    summary="List clients, in order of their names",
    scopes=SCOPES,
    answers={
        200: Shown("A page", shapes.ClientPage, headers=LINK, example={"items": [examples.CLIENT], "next_cursor": None})
    },
    problems=("bad_cursor", "ledger_away"),
    parameters=parameters("Clients"),
)
CREATE = Operation(
    name="createClient",
    tag="Clients",
    summary="Make a client with its first token",
    description=f"{ONCE} {AT_MOST}",
    scopes=SCOPES,
    body=shapes.ClientIn,
    body_example=examples.CLIENT_IN,
    answers={
        201: Shown(
            "The client",
            shapes.NewClient,
            headers=SHOWN.headers | LOCATION,
            example={**examples.CLIENT, "token": examples.SHOWN_ONCE},
        )
    },
    problems=("channel_forbidden", "name_taken", "ledger_away"),
)
CHANGE = Operation(
    name="changeClient",
    tag="Clients",
    summary="Change the scopes and channels of a client",
    description=f"In force within a second, for the tokens that it has. {AT_MOST}",
    scopes=SCOPES,
    body=shapes.ClientChange,
    body_example={"channels": ["app", "web"]},
    answers={200: SHOWN},
    problems=("channel_forbidden", "not_found", "version_mismatch", "ledger_away"),
    parameters=(NAME, IF_MATCH),
)
ROTATE = Operation(
    name="createToken",
    tag="Clients",
    summary="Give a client one more token",
    description=(
        f"A client has at most {clients.TOKENS_MAX} live tokens: the one in use and the next. When nothing uses the "
        f"first one any more, revoke it. {ONCE} {AT_MOST}"
    ),
    scopes=SCOPES,
    body=shapes.TokenIn,
    body_example={"expires_at": "2027-11-10T00:00:00Z"},
    answers={
        201: Shown(
            "The token", shapes.NewToken, headers=LOCATION, example={**examples.TOKEN, "token": examples.SHOWN_ONCE}
        )
    },
    problems=("channel_forbidden", "not_found", "tokens_full", "version_mismatch", "ledger_away"),
    parameters=(NAME,),
)
REVOKE = Operation(
    name="revokeToken",
    tag="Clients",
    summary="End a token",
    description="No gateway takes it after a second. One that has ended stays so.",
    scopes=SCOPES,
    answers={204: Shown("It has ended", media_type="")},
    problems=("not_found", "ledger_away"),
    parameters=(NAME, TOKEN_ID),
)


@get(PATH + "/{name:str}", opt={OPERATION: SHOW})
async def show_client(request: AnyRequest) -> Response[bytes]:
    stored = await clients.get(services_of(request).pool, _read_name(request))
    if stored is None:
        raise refuse("not_found")
    return _answer(stored)


@get(PATH, opt={OPERATION: LIST})
async def list_clients(request: AnyRequest) -> Response[bytes]:
    page = read_page(request, CURSOR_ROUTE)
    found = await clients.page(services_of(request).pool, page.position.decode(), page.limit + 1)
    shown = [shapes.Client(**_shown(stored)) for stored in found[: page.limit]]
    cursor = page.cursor(shown[-1].name.encode()) if len(found) > page.limit else None
    return json_answer(shapes.ClientPage(shown, cursor), headers=page.link(PATH, cursor))


@post(PATH, opt={OPERATION: CREATE})
async def create_client(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    wanted = await read_json(request, shapes.ClientIn)
    expires_at = _read_expiry(wanted.expires_at, services.clock)
    scopes, channels = sorted(set(wanted.scopes)), sorted(set(wanted.channels))
    _check_grant(client_of(request), scopes, channels)
    token = new_token()
    async with services.pool.acquire() as connection:
        try:
            await clients.add(connection, wanted.name, scopes, channels, token_hash(token), expires_at)
        except NameTakenError as error:
            raise refuse("name_taken", "a name is never given again; the client may have another token") from error
        stored = await clients.get(connection, wanted.name)
    assert stored is not None
    headers = {"location": f"{PATH}/{wanted.name}", "etag": etag(stored.client["version"])}
    return json_answer(shapes.NewClient(**_shown(stored), token=token), 201, headers)


@patch(PATH + "/{name:str}", opt={OPERATION: CHANGE})
async def change_client(request: AnyRequest) -> Response[bytes]:
    services, name = services_of(request), _read_name(request)
    if_version = read_if_match(request)
    wanted = await read_json(request, shapes.ClientChange)
    for _ in range(CHANGE_TRIES):
        row = await _row(services.pool, name)
        if if_version not in (None, row["version"]):
            raise refuse("version_mismatch")
        scopes = row["scopes"] if wanted.scopes is UNSET else sorted(set(wanted.scopes))
        channels = row["channels"] if wanted.channels is UNSET else sorted(set(wanted.channels))
        _check_grant(client_of(request), set(scopes) - set(row["scopes"]), set(channels) - set(row["channels"]))
        changed = (scopes, channels) != (row["scopes"], row["channels"])
        async with services.pool.acquire() as connection:
            if not changed or await clients.change(connection, name, scopes, channels, row["version"]):
                stored = await clients.get(connection, name)
                assert stored is not None
                return _answer(stored)
    raise refuse("version_mismatch", "others have changed the client again and again")


@post(PATH + "/{name:str}/tokens", opt={OPERATION: ROTATE})
async def create_token(request: AnyRequest) -> Response[bytes]:
    services, name = services_of(request), _read_name(request)
    wanted = await read_json(request, shapes.TokenIn)
    expires_at = _read_expiry(wanted.expires_at, services.clock)
    token = new_token()
    for _ in range(CHANGE_TRIES):
        row = await _row(services.pool, name)
        _check_grant(client_of(request), row["scopes"], row["channels"])
        async with services.pool.acquire() as connection:
            token_id = await _rotate(connection, name, token, expires_at, row["version"])
            if token_id is not None:
                made = await clients.get(connection, name)
                assert made is not None
                (shown,) = (_shown_token(row) for row in made.tokens if row["token_id"] == token_id)
                return json_answer(shapes.NewToken(**shown, token=token), 201, {"location": f"{PATH}/{name}"})
    raise refuse("version_mismatch", "others have changed the client again and again")


@delete(PATH + "/{name:str}/tokens/{token_id:str}", opt={OPERATION: REVOKE})
async def revoke_token(request: AnyRequest) -> None:
    pool, name, number = services_of(request).pool, _read_name(request), request.path_params["token_id"]
    stored = await clients.get(pool, name)
    tokens = [] if stored is None else [row["token_id"] for row in stored.tokens]
    if not TOKEN_NUMBER.fullmatch(number) or int(number) not in tokens:
        raise refuse("not_found")
    async with pool.acquire() as connection:
        await clients.revoke(connection, name, token_id=int(number))


async def _rotate(
    connection: asyncpg.Connection, name: str, token: str, expires_at: datetime | None, version: int
) -> int | None:
    try:
        return await clients.rotate(connection, name, token_hash(token), expires_at, version)
    except UnknownClientError as error:
        raise refuse("not_found") from error
    except TokensFullError as error:
        raise refuse("tokens_full", str(error)) from error


async def _row(pool: asyncpg.Pool, name: str) -> asyncpg.Record:
    stored = await clients.get(pool, name)
    if stored is None:
        raise refuse("not_found")
    return stored.client


def _read_name(request: AnyRequest) -> str:
    name: str = request.path_params["name"]
    if not re.fullmatch(shapes.NAME_PATTERN, name):
        raise refuse("not_found")
    return name


def _read_expiry(moment: datetime | None, clock: Clock) -> datetime | None:
    if moment is not None and ms_of(moment) <= clock.now_ms():
        entry = {"detail": "must be in the future", "pointer": "#/expires_at", "code": "out_of_range"}
        raise ProblemError(Refusal("invalid", "the body is not valid", (entry,)))
    return moment


def _check_grant(admin: Client, scopes: Iterable[str], channels: Iterable[str]) -> None:
    """Whether somebody may give these away. Raises ProblemError."""
    missing = sorted(scope for scope in scopes if not admin.may(scope))
    if missing:
        raise refuse("scope_missing", f"to give away a scope takes having it: {', '.join(missing)}")
    if not all(map(_sells_on(admin), channels)):
        raise refuse("channel_forbidden", "to give away a channel takes having it")


def _sells_on(admin: Client) -> Callable[[str], bool]:
    return lambda channel: ANY_CHANNEL in admin.channels if channel == ANY_CHANNEL else admin.sells_on(channel)


def _answer(stored: StoredClient) -> Response[bytes]:
    return json_answer(shapes.Client(**_shown(stored)), headers={"etag": etag(stored.client["version"])})


def _shown(stored: StoredClient) -> dict[str, Any]:
    """The members of a `Client`."""
    row = stored.client
    return {
        "name": row["name"],
        "scopes": row["scopes"],
        "channels": row["channels"],
        "version": row["version"],
        "created_at": _text(row["created_at"]),
        "tokens": [shapes.Token(**_shown_token(token)) for token in stored.tokens],
    }


def _shown_token(row: asyncpg.Record) -> dict[str, Any]:
    """The members of a `Token`."""
    times = ("created_at", "expires_at", "last_used_at", "revoked_at")
    return {"token_id": row["token_id"]} | {name: _text(row[name]) for name in times}


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else text_of(ms_of(moment))
