"""Who may do what, over HTTP at a whole worker: every route with every scope alone, with none and with all; tokens that
are none; what belongs to another client or channel; and what is personal.

The table says it once more than the routes do: a new route needs a row, and a route that lets others in fails.
"""

import asyncio
import datetime as dt
import itertools
import re
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from litestar import Litestar
from litestar.routes import HTTPRoute

from deploy.local.servers import NatsServer
from deploy.local.servers_postgres import PostgresServer
from gateway import api
from gateway.api.operations import OPERATION, Operation
from gateway.domain.access import SCOPES, token_hash
from persistence.postgres import clients
from persistence.postgres.connect import connect
from tests.api import TOKEN, App, Reply, call, running_worker

OPEN = None  # needs no token
ANYBODY: frozenset[str] = frozenset()  # with a valid token
ORDERS_READ = frozenset({"orders:read", "orders:read:all"})


def only(*scopes: str) -> frozenset[str]:
    return frozenset(scopes)


# Route -> scopes that open it, each alone.
OPENED_BY: dict[str, frozenset[str] | None] = {
    "GET /livez": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": only("metrics:read"),
    "GET /schema": OPEN,
    "GET /schema/assets/{name}": OPEN,
    "GET /schema/asyncapi.json": OPEN,
    "GET /schema/events": OPEN,
    "GET /schema/events/{file}": OPEN,
    "GET /schema/openapi.json": OPEN,
    "POST /v1/orders": only("orders:write"),
    "GET /v1/orders": ORDERS_READ,
    "GET /v1/orders/{order_id}": ORDERS_READ,
    "POST /v1/orders/bulk": only("bulk"),
    "POST /v1/orders/{order_id}/pay": only("orders:price"),
    "POST /v1/orders/{order_id}/cancel": only("orders:manage", "orders:write"),
    "GET /v1/products": ANYBODY,
    "GET /v1/products/{sku}": ANYBODY,
    "PUT /v1/products/{sku}": only("catalogue:write"),
    "PATCH /v1/products/{sku}": only("catalogue:write"),
    "GET /v1/stock": only("stock:read"),
    "GET /v1/stock/{sku}": only("stock:read"),
    "PUT /v1/stock/{sku}": only("stock:write"),
    "PATCH /v1/stock/{sku}": only("stock:write"),
    "POST /v1/stock/{sku}/adjustments": only("stock:write"),
    "GET /v1/stock/{sku}/movements": only("stock:read"),
    "GET /v1/availability": only("stock:read", "orders:write"),
    "GET /v1/sales": ANYBODY,
    "GET /v1/sales/{sale_id}": ANYBODY,
    "PUT /v1/sales/{sale_id}": only("catalogue:write"),
    "POST /v1/sales/{sale_id}/open": only("catalogue:write"),
    "POST /v1/sales/{sale_id}/close": only("catalogue:write"),
    "GET /v1/sales/{sale_id}/report": only("orders:read:all"),
    "GET /v1/clients": only("clients:admin"),
    "POST /v1/clients": only("clients:admin"),
    "GET /v1/clients/{name}": only("clients:admin"),
    "PATCH /v1/clients/{name}": only("clients:admin"),
    "POST /v1/clients/{name}/tokens": only("clients:admin"),
    "DELETE /v1/clients/{name}/tokens/{token_id}": only("clients:admin"),
    "GET /v1/settings": only("config:write"),
    "PUT /v1/settings": only("config:write"),
    "GET /v1/settings/history": only("config:write"),
    "POST /v1/settings/rollback": only("config:write"),
}
CLOSED = [route for route, scopes in OPENED_BY.items() if scopes is not OPEN]
ALONE = {scope: f"fg_alone_{scope}" for scope in SCOPES}  # scope -> the token of a client that has no other one
NO_TOKENS = (None, "", "fg_unknown", "fg_past", "fg_revoked")
BUYERS = {  # token -> scopes and channels of a client that orders
    "fg_web_1": ({"orders:write", "orders:read"}, ["web"]),
    "fg_web_2": ({"orders:write", "orders:read"}, ["web"]),
    "fg_all_but_pii": (set(SCOPES) - {"pii:read"}, ["*"]),
    "fg_support": ({"orders:read:all", "pii:read"}, []),
    "fg_warehouse": ({"orders:read:all", "orders:manage"}, []),
}
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
PERSONAL: dict[str, Any] = {"note": "请放门口", "ship_to": {"name": "王小明", "city": "上海"}}
MASKED: dict[str, Any] = {"note": "***", "ship_to": {"name": "***", "city": "***"}}
WAIT_S = 20.0

one_loop = pytest.mark.asyncio(loop_scope="module")
keys = itertools.count()


def operations() -> dict[str, Operation]:
    """Every route of the application, and what it says about itself."""
    routes = [route for route in Litestar(api.HANDLERS, openapi_config=None).routes if isinstance(route, HTTPRoute)]
    return {
        f"{method} {route.path_format}": handler.opt[OPERATION]
        for route in routes
        for handler in route.route_handlers
        if handler.http_methods != {"OPTIONS"}
        for method in handler.http_methods
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def app(postgres_server: PostgresServer, migrated_template: str, nats_server: NatsServer) -> AsyncIterator[App]:
    """A worker that knows a client for every row and column of the matrix, and sells one product."""
    postgres_server.query(f"CREATE DATABASE authorization_matrix TEMPLATE {migrated_template}")
    url = postgres_server.url_of("authorization_matrix")
    connection = await connect(url, "test")
    for scope, token in ALONE.items():
        await clients.add(connection, f"alone-{scope}".replace(":", "-"), [scope], ["*"], token_hash(token), None)
    for token, (scopes, channels) in BUYERS.items():
        await clients.add(connection, token.replace("_", "-"), sorted(scopes), channels, token_hash(token), None)
    await clients.add(connection, "revoked", list(SCOPES), ["*"], token_hash("fg_revoked"), None)
    await clients.add(connection, "past", list(SCOPES), ["*"], token_hash("fg_past"), PAST)
    await connection.close()
    async with running_worker(url, nats_server.url) as (running, _):
        product = {"title": "T-LIGHT", "price": 255, "currency": "CNY", "stocked": False}
        assert (await ask(running, "PUT", "/v1/products/85123A", product)).status == 201
        await revoke(running, "revoked", "fg_revoked")
        yield running
    postgres_server.query("DROP DATABASE authorization_matrix WITH (FORCE)")


async def ask(app: App, method: str, target: str, body: Any = None, token: str | None = TOKEN, **request: Any) -> Reply:
    return await call(app, method, target, None if body is None else msgspec.json.encode(body), token=token, **request)


async def revoke(app: App, name: str, token: str) -> None:
    """End the only token of a client, and wait until the worker knows."""
    (shown,) = (await ask(app, "GET", f"/v1/clients/{name}")).json["tokens"]
    assert (await ask(app, "DELETE", f"/v1/clients/{name}/tokens/{shown['token_id']}")).status == 204
    await refused(app, token)


async def refused(app: App, token: str) -> None:
    """Wait until the token is none."""
    async with asyncio.timeout(WAIT_S):
        while (await ask(app, "GET", "/v1/products", token=token)).status != 401:
            await asyncio.sleep(0.01)


async def try_route(app: App, route: str, token: str | None) -> list[Reply]:
    """Ask a route for something that is not there, with nothing in it; a GET as HEAD, too."""
    method, template = route.split()
    target = re.sub(r"\{\w+\}", "nothing", template)
    methods = ["GET", "HEAD"] if method == "GET" else [method]
    return [await ask(app, method, target, token=token) for method in methods]


async def place(app: App, token: str = TOKEN, key: str = "", **changes: Any) -> Reply:
    order = {"channel": "web", "currency": "CNY", "items": [{"sku": "85123A", "quantity": 1}]} | changes
    headers = {"idempotency-key": key or f"k-{next(keys)}"}
    return await ask(app, "POST", "/v1/orders", order, token, headers=headers)


async def cancel(app: App, path: str, token: str) -> Reply:
    return await ask(app, "POST", f"{path}/cancel", {"reason": "twice"}, token, headers={"if-match": '"1"'})


async def placed_by(app: App, token: str, **changes: Any) -> str:
    """Where the order is."""
    reply = await place(app, token, **changes)
    assert reply.status == 201, reply.json
    return reply.header("location") or ""


def personal_of(document: dict[str, Any]) -> dict[str, Any]:
    return {name: document[name] for name in PERSONAL}


def test_authorization_table_has_every_route_and_says_what_it_says() -> None:
    assert {route: None if o.is_open else set(o.scopes) for route, o in operations().items()} == OPENED_BY


@one_loop
@pytest.mark.parametrize("route", CLOSED)
async def test_authorization_with_one_scope_alone_opens_what_the_table_says(app: App, route: str) -> None:
    opened_by = OPENED_BY[route]
    assert opened_by is not None
    for scope, token in ALONE.items():
        for reply in await try_route(app, route, token):
            is_open = not opened_by or scope in opened_by
            assert (reply.status == 403) is not is_open, (scope, reply)
            assert reply.status != 401


@one_loop
@pytest.mark.parametrize("route", CLOSED)
async def test_authorization_with_no_scope_opens_what_needs_none_and_with_all_everything(app: App, route: str) -> None:
    for reply in await try_route(app, route, "fg_none"):
        assert (reply.status == 403) is bool(OPENED_BY[route])
    for reply in await try_route(app, route, TOKEN):
        assert reply.status not in (401, 403)


@one_loop
@pytest.mark.parametrize("route", CLOSED)
async def test_authorization_without_a_valid_token_is_401(app: App, route: str) -> None:
    for token in NO_TOKENS:
        for reply in await try_route(app, route, token):
            assert reply.status == 401, token
            assert reply.header("www-authenticate") == 'Bearer realm="floodgate"'


@one_loop
async def test_authorization_ends_when_the_token_expires(app: App) -> None:
    for life_s in (2, 4, 8, 16):
        expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=life_s)
        wanted = {"name": f"brief-{life_s}", "scopes": ["stock:read"], "expires_at": expires_at}
        token = (await ask(app, "POST", "/v1/clients", wanted)).json["token"]
        met = set[int]()
        while dt.datetime.now(dt.UTC) < expires_at:
            met.add((await ask(app, "GET", "/v1/products", token=token)).status)
            await asyncio.sleep(0.02)
        if 200 in met:  # Else the machine was too slow to let anybody in.
            await refused(app, token)
            return
    raise AssertionError("the token was never let in")


@one_loop
@pytest.mark.parametrize("route", [route for route in OPENED_BY if OPENED_BY[route] is OPEN])
async def test_authorization_of_an_open_route_needs_no_token(app: App, route: str) -> None:
    for reply in await try_route(app, route, None):
        assert reply.status in (200, 404)


@one_loop
async def test_order_of_another_client_is_as_if_it_were_not_there(app: App) -> None:
    path = await placed_by(app, "fg_web_1", external_id="mine", key="foreign-key")
    assert (await ask(app, "GET", path, token="fg_web_1")).status == 200
    missing = (await ask(app, "GET", "/v1/orders/0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51", token="fg_web_2")).json
    for reply in (await ask(app, "GET", path, token="fg_web_2"), await cancel(app, path, "fg_web_2")):
        assert (reply.status, reply.code) == (404, "not_found")
        assert reply.json | {"request_id": ""} == missing | {"request_id": ""}
    for query in ("external_id=mine", "idempotency_key=foreign-key", "limit=200"):
        orders = (await ask(app, "GET", f"/v1/orders?{query}", token="fg_web_2")).json["items"]
        assert path.rpartition("/")[2] not in {order["order_id"] for order in orders}


@one_loop
async def test_order_of_another_client_is_seen_by_who_reads_all(app: App) -> None:
    path = await placed_by(app, "fg_web_1", external_id="seen")
    assert (await ask(app, "GET", path, token="fg_support")).status == 200
    listed = (await ask(app, "GET", "/v1/orders?external_id=seen", token="fg_support")).json["items"]
    assert [order["order_id"] for order in listed] == [path.rpartition("/")[2]]


@one_loop
async def test_order_of_another_client_is_cancelled_by_who_manages_and_reads_all(app: App) -> None:
    path = await placed_by(app, "fg_web_1")
    assert (await cancel(app, path, "fg_support")).status == 403
    assert (await cancel(app, path, ALONE["orders:manage"])).status == 404
    assert (await cancel(app, path, "fg_warehouse")).status == 200


@one_loop
async def test_order_under_a_key_of_another_client_is_another_order(app: App) -> None:
    first, second = await place(app, "fg_web_1", "shared-key"), await place(app, "fg_web_2", "shared-key")
    assert first.status == second.status == 201
    assert first.json["order_id"] != second.json["order_id"]


@one_loop
async def test_cursor_of_another_client_is_refused(app: App) -> None:
    for _ in range(2):
        await placed_by(app, "fg_web_1")
    cursor = (await ask(app, "GET", "/v1/orders?limit=1", token="fg_web_1")).json["next_cursor"]
    assert (await ask(app, "GET", f"/v1/orders?limit=1&cursor={cursor}", token="fg_web_1")).status == 200
    assert (await ask(app, "GET", f"/v1/orders?limit=1&cursor={cursor}", token="fg_web_2")).code == "bad_cursor"


@one_loop
@pytest.mark.parametrize(
    ("channel", "code"), [("web", None), ("app", "channel_forbidden"), ("we", "channel_forbidden")]
)
async def test_order_on_another_channel_is_403(app: App, channel: str, code: str | None) -> None:
    reply = await place(app, "fg_web_1", channel=channel)
    assert (reply.status, reply.code) == ((201 if code is None else 403), code)


@one_loop
async def test_order_of_a_client_without_channels_is_403_and_with_all_is_not(app: App) -> None:
    token = (await ask(app, "POST", "/v1/clients", {"name": "mute", "scopes": ["orders:write"]})).json["token"]
    async with asyncio.timeout(WAIT_S):
        while (reply := await place(app, token)).status == 401:
            await asyncio.sleep(0.01)
    assert (reply.status, reply.code) == (403, "channel_forbidden")
    assert (await place(app, TOKEN, channel="any-channel")).status == 201


@one_loop
async def test_personal_fields_are_masked_for_who_may_not_read_them(app: App) -> None:
    path = await placed_by(app, TOKEN, external_id="personal", **PERSONAL)
    listed = "/v1/orders?external_id=personal"
    for token, shown in (("fg_all_but_pii", MASKED), ("fg_warehouse", MASKED), ("fg_support", PERSONAL)):
        assert personal_of((await ask(app, "GET", path, token=token)).json) == shown
        (order,) = (await ask(app, "GET", listed, token=token)).json["items"]
        assert personal_of(order) == shown
    assert personal_of((await cancel(app, path, "fg_all_but_pii")).json) == MASKED


@one_loop
async def test_personal_fields_of_an_order_just_placed_are_masked_as_everywhere(app: App) -> None:
    for _ in range(2):  # The second time it is replayed.
        placed = await place(app, "fg_all_but_pii", "masked", **PERSONAL)
        assert (placed.status, personal_of(placed.json)) == (201, MASKED)


@one_loop
async def test_client_cannot_give_away_what_it_does_not_have(app: App) -> None:
    wanted = {"name": "puppet", "scopes": ["pii:read"], "channels": []}
    reply = await ask(app, "POST", "/v1/clients", wanted, ALONE["clients:admin"])
    assert (reply.status, reply.code) == (403, "scope_missing")
    assert (await ask(app, "GET", "/v1/clients/puppet")).status == 404
    for path in ("/v1/clients/shop/tokens", "/v1/clients/support/tokens"):
        assert (await ask(app, "POST", path, {}, ALONE["clients:admin"])).status in (403, 404)


@one_loop
async def test_client_that_loses_a_scope_is_refused_within_a_second_or_so(app: App) -> None:
    made = await ask(app, "POST", "/v1/clients", {"name": "losing", "scopes": ["stock:read", "orders:read"]})
    token = made.json["token"]
    async with asyncio.timeout(WAIT_S):
        while (await ask(app, "GET", "/v1/stock", token=token)).status != 200:
            await asyncio.sleep(0.01)
    assert (await ask(app, "PATCH", "/v1/clients/losing", {"scopes": ["orders:read"]})).status == 200
    async with asyncio.timeout(WAIT_S):
        while (await ask(app, "GET", "/v1/stock", token=token)).status != 403:
            await asyncio.sleep(0.01)
    assert (await ask(app, "GET", "/v1/orders", token=token)).status == 200
