"""Clients over HTTP, on a real ledger: what is changed is in force, a token is shown once, and nobody gives away more
than he has.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import structlog

from gateway.services import Services
from persistence.postgres.session import Session
from tests.api import CLIENTS, App, Reply, call, running_worker

ADMIN = ["clients:admin", "orders:read", "stock:read"]


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[tuple[App, Services]]:
    async with running_worker(postgres_url, nats_url) as running:
        yield running


@pytest.fixture
def app(world: tuple[App, Services]) -> App:
    return world[0]


async def make(app: App, name: str = "app", token: str = "fg_all", **more: Any) -> Reply:
    document = {"name": name, "scopes": ["orders:read"], "channels": ["app"]} | more
    return await call(app, "POST", "/v1/clients", msgspec.json.encode(document), token=token)


async def rotate(app: App, name: str = "app", token: str = "fg_all", **more: Any) -> Reply:
    return await call(app, "POST", f"/v1/clients/{name}/tokens", msgspec.json.encode(more), token=token)


async def change(app: App, change: dict[str, Any], match: str | None = None, token: str = "fg_all") -> Reply:
    headers = {} if match is None else {"if-match": match}
    return await call(app, "PATCH", "/v1/clients/app", msgspec.json.encode(change), headers, token=token)


async def until(app: App, token: str, status: int, target: str = "/v1/orders") -> None:
    """Wait until a request with the token is answered so."""
    async with asyncio.timeout(20):
        while (await call(app, "GET", target, token=token)).status != status:
            await asyncio.sleep(0.01)


@pytest.fixture
async def admin(app: App) -> str:
    """The token of somebody who administers clients, and may not do everything himself."""
    token = str((await make(app, "admin", scopes=ADMIN, channels=["app"])).json["token"])
    await until(app, token, 200)
    return token


async def test_create_client_answers_a_token_that_comes_into_force(app: App) -> None:
    reply = await make(app, channels=["web", "app", "web"])
    assert (reply.status, reply.header("location"), reply.header("etag")) == (201, "/v1/clients/app", '"1"')
    assert reply.header("cache-control") == "no-store"
    await until(app, reply.json["token"], 200)
    shown = (await call(app, "GET", "/v1/clients/app")).json
    assert (shown["scopes"], shown["channels"], len(shown["tokens"])) == (["orders:read"], ["app", "web"], 1)
    assert reply.json == shown | {"token": reply.json["token"]}


async def test_create_client_of_a_known_name_is_409(app: App) -> None:
    await make(app)
    reply = await make(app)
    assert (reply.status, reply.code) == (409, "name_taken")


async def test_create_client_with_an_expiry_shows_it(app: App) -> None:
    reply = await make(app, expires_at="2099-01-01T00:00:00+08:00")
    assert reply.json["tokens"][0]["expires_at"] == "2098-12-31T16:00:00.000Z"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"scopes": ["orders:read", "pii:read"]}, "scope_missing"),
        ({"channels": ["web"]}, "channel_forbidden"),
        ({"channels": ["*"]}, "channel_forbidden"),
    ],
)
async def test_client_that_is_given_more_than_the_giver_has_is_403(
    app: App, admin: str, more: dict[str, Any], code: str
) -> None:
    reply = await make(app, token=admin, **more)
    assert (reply.status, reply.code) == (403, code)
    assert (await make(app, token=admin)).status == 201
    assert (await change(app, more, token=admin)).code == code
    assert (await call(app, "GET", "/v1/clients/app")).json["version"] == 1


async def test_token_of_a_client_that_has_more_than_the_giver_is_403(app: App, admin: str) -> None:
    await make(app, "strong", scopes=["pii:read"])
    await make(app, "wide", channels=["*"])
    assert (await rotate(app, "strong", token=admin)).code == "scope_missing"
    assert (await rotate(app, "wide", token=admin)).code == "channel_forbidden"


async def test_change_that_takes_away_or_leaves_more_than_the_giver_has_is_done(app: App, admin: str) -> None:
    await make(app, scopes=["pii:read", "orders:read"], channels=["web"])
    assert (await change(app, {"channels": ["web", "app"]}, token=admin)).json["version"] == 2
    assert (await change(app, {"scopes": ["orders:read"]}, token=admin)).json["scopes"] == ["orders:read"]


async def test_change_client_is_in_force_for_the_tokens_that_it_has(app: App) -> None:
    token = (await make(app)).json["token"]
    await until(app, token, 200)
    reply = await change(app, {"scopes": ["stock:read"]}, match='"1"')
    assert (reply.status, reply.header("etag")) == (200, '"2"')
    await until(app, token, 403)
    await until(app, token, 200, "/v1/stock")


async def test_change_client_with_a_stale_etag_is_412(app: App) -> None:
    await make(app)
    assert (await change(app, {"channels": []}, match='"2"')).code == "version_mismatch"
    assert (await call(app, "GET", "/v1/clients/app")).json["channels"] == ["app"]


async def test_change_client_to_what_it_is_changes_nothing(app: App) -> None:
    await make(app)
    assert (await change(app, {})).json["version"] == 1
    assert (await change(app, {"channels": ["app", "app"]})).json["version"] == 1


async def test_tokens_of_a_client_are_two_at_most(app: App) -> None:
    first = (await make(app)).json["token"]
    second = await rotate(app)
    assert (second.status, second.header("location")) == (201, "/v1/clients/app")
    await until(app, second.json["token"], 200)
    await until(app, first, 200)
    third = await rotate(app)
    assert (third.status, third.code) == (409, "tokens_full")


async def test_tokens_of_a_client_asked_for_at_once_are_two_at_most(app: App) -> None:
    await make(app)
    codes = [reply.code for reply in await asyncio.gather(*(rotate(app) for _ in range(6)))]
    assert (codes.count(None), codes.count("tokens_full")) == (1, 5)


async def test_token_that_has_expired_makes_room(app: App, world: tuple[App, Services]) -> None:
    await make(app)
    await rotate(app, expires_at="2099-01-01T00:00:00Z")
    await world[1].pool.execute("update api_token set expires_at = now() where expires_at is not null")
    assert (await rotate(app)).status == 201


async def test_revoke_token_ends_it_and_leaves_the_other(app: App) -> None:
    old = (await make(app)).json
    new = (await rotate(app)).json
    target = f"/v1/clients/app/tokens/{old['tokens'][0]['token_id']}"
    for _ in range(2):
        reply = await call(app, "DELETE", target)
        assert (reply.status, reply.body) == (204, b"")
    await until(app, old["token"], 401)
    await until(app, new["token"], 200)
    tokens = (await call(app, "GET", "/v1/clients/app")).json["tokens"]
    assert [token["revoked_at"] is None for token in tokens] == [True, False]
    assert (await rotate(app)).status == 201


async def test_client_that_does_not_exist_is_not_found(app: App) -> None:
    for name in ("none", "A", "%00", "a%2Fb"):
        path = f"/v1/clients/{name}"
        assert (await call(app, "GET", path)).code == "not_found"
        assert (await call(app, "PATCH", path, b"{}")).code == "not_found"
        assert (await rotate(app, name)).code == "not_found"


async def test_token_that_does_not_exist_is_not_found(app: App) -> None:
    await make(app)
    for number in ("0", "x", "999999", "9" * 30, "-1"):
        assert (await call(app, "DELETE", f"/v1/clients/app/tokens/{number}")).code == "not_found"


async def test_token_of_another_client_is_not_found_and_lives(app: App) -> None:
    await make(app)
    other = (await make(app, "other")).json
    number = other["tokens"][0]["token_id"]
    assert (await call(app, "DELETE", f"/v1/clients/app/tokens/{number}")).code == "not_found"
    assert (await call(app, "GET", "/v1/clients/other")).json["tokens"][0]["revoked_at"] is None


async def test_list_clients_page_by_page_has_each_once_and_no_token(app: App) -> None:
    secret = (await make(app)).json["token"]
    target, seen = "/v1/clients?limit=2", []
    while target:
        reply = await call(app, "GET", target)
        assert secret not in reply.body.decode()
        seen += [item["name"] for item in reply.json["items"]]
        link = reply.header("link")
        target = link.removeprefix("<").removesuffix('>; rel="next"') if link else ""
    assert seen == sorted(["app", *(client.name for client in CLIENTS.values())])


async def test_list_clients_with_a_cursor_of_another_list_is_refused(app: App) -> None:
    await call(app, "PUT", "/v1/products/A", b'{"title":"t","price":1,"currency":"CNY"}')
    await call(app, "PUT", "/v1/products/B", b'{"title":"t","price":1,"currency":"CNY"}')
    cursor = (await call(app, "GET", "/v1/products?limit=1")).json["next_cursor"]
    assert (await call(app, "GET", f"/v1/clients?cursor={cursor}")).code == "bad_cursor"


async def test_last_use_of_a_token_is_shown_once_written(
    app: App, world: tuple[App, Services], postgres_url: str
) -> None:
    token = (await make(app)).json["token"]
    await until(app, token, 200)
    session = Session(postgres_url, "test")
    await world[1].access.flush(session)
    await session.close()
    shown = {item["name"]: item["tokens"][0] for item in (await call(app, "GET", "/v1/clients")).json["items"]}
    assert shown["app"]["last_used_at"] >= shown["app"]["created_at"]
    assert shown["nobody"]["last_used_at"] is None


async def test_tokens_are_in_no_log(app: App) -> None:
    with structlog.testing.capture_logs() as logs:
        secrets = [(await make(app)).json["token"], (await rotate(app)).json["token"]]
        await rotate(app)
    assert not [entry for entry in logs if any(secret in repr(entry) for secret in secrets)]
