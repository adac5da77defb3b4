"""Every code of the registry, reached over HTTP at a whole worker: what the answer looks like, and that its operation
documents it. A code without a scenario fails.
"""

import asyncio
import base64
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
import structlog
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from core_ext.codes import FAULTS, PROBLEMS
from core_ext.limits import MONEY_MAX
from deploy.local.servers import NatsServer
from deploy.local.servers_postgres import PostgresServer
from gateway.app import Gateway
from gateway.domain.access import token_hash
from gateway.edge.bulk import LINES_AHEAD_MAX
from gateway.services import Services
from gateway.settings import Batch, Http, Limits, Nats, Orders, Postgres, RateRule, Secrets, Settings, Stock
from persistence.postgres import clients
from persistence.postgres.connect import connect
from tests.api import CLIENTS, TOKEN, App, Reply, call

SECRET = base64.b64encode(bytes(32)).decode()
WAIT_S = 20.0
ORDER = "/v1/orders/0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51"
JSON_PROBLEM = "application/problem+json"
NDJSON = "application/x-ndjson"
MEMBERS = {"sale_not_open": "opens_at", "rate_limited": "violated_policies", "invalid": "errors", "sold_out": "errors"}
RETRY = {"stock_returning", "overloaded", "ledger_away", "sale_not_open", "rate_limited"}  # have Retry-After
PLAIN = "85123A"

one_loop = pytest.mark.asyncio(loop_scope="module")


class Site:
    """A worker in this process, as a client sees it, with the bugs and locks that a test plants."""

    def __init__(self, app: App, services: Services, postgres_url: str) -> None:
        self.app = app
        self.services = services
        self.postgres_url = postgres_url
        self.asked: tuple[str, str] = ("", "")
        self._keys = itertools.count()

    async def ask(self, method: str, target: str, body: Any = None, token: str | None = TOKEN, **request: Any) -> Reply:
        self.asked = method, target.partition("?")[0]
        content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        return await call(self.app, method, target, content, token=token, **request)

    async def place(self, body: Any = None, key: str = "", token: str | None = TOKEN, **request: Any) -> Reply:
        headers = {"idempotency-key": key or f"k-{next(self._keys)}"}
        body = order() if body is None else body
        return await self.ask("POST", "/v1/orders", body, token, headers=headers, **request)

    async def patiently(self, body: Any, **request: Any) -> Reply:
        """As a buyer does whose units are on their way."""
        async with asyncio.timeout(WAIT_S):
            while True:
                reply = await self.place(body, **request)
                if reply.status < 500:
                    return reply

    async def product(self, sku: str, units: int | None = 100, **changes: Any) -> str:
        document = {"title": "T-LIGHT", "price": 255, "currency": "CNY", "stocked": units is not None} | changes
        assert (await self.ask("PUT", f"/v1/products/{sku}", document)).status in (200, 201)
        if units is not None:
            assert (await self.ask("PUT", f"/v1/stock/{sku}", {"total": units})).status == 200
        return sku

    async def sale(self, sale_id: str, starts_at: str, ends_at: str, sku: str = PLAIN) -> str:
        items = [{"sku": sku, "price": 99, "units": 10}]
        terms = {"title": "Sale", "starts_at": starts_at, "ends_at": ends_at, "items": items}
        assert (await self.ask("PUT", f"/v1/sales/{sale_id}", terms)).status in (200, 201)
        return sale_id

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Nothing is committed for so long; whoever waits for it is answered before the end."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            async with connection.transaction():
                await connection.execute("lock table orders in exclusive mode")
                yield
        finally:
            await connection.close()

    async def settled(self) -> None:
        """Wait until nothing of the test before is under way."""
        async with asyncio.timeout(WAIT_S):
            while not self.services.takes_orders or self.services.admission.in_flight or len(self.services.queue):
                await asyncio.sleep(0.01)


def order(sku: str = PLAIN, quantity: int = 1, **changes: Any) -> dict[str, Any]:
    return {"channel": "app", "currency": "CNY", "items": [{"sku": sku, "quantity": quantity}]} | changes


def settings(postgres_url: str, nats_url: str) -> Settings:
    """Small bounds, so that nobody waits long to meet them."""
    return Settings(
        http=Http(body_timeout_ms=200),
        batch=Batch(rows_max=1, queue_rows_max=1),
        stock=Stock(park_ms_max=300),
        orders=Orders(key_wait_ms_max=200, reply_ms_max=1000),
        limits=Limits(rate=(RateRule(client="nobody", requests_per_s=0.01, burst=1),)),
        postgres=Postgres(url=postgres_url),
        nats=Nats(url=nats_url),
        secrets=Secrets(master_keys=f"1:{SECRET}", hash_key=SECRET),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_site(
    postgres_server: PostgresServer, migrated_template: str, nats_server: NatsServer
) -> AsyncIterator[Site]:
    postgres_server.query(f"CREATE DATABASE every_code TEMPLATE {migrated_template}")
    url = postgres_server.url_of("every_code")
    connection = await connect(url, "test")
    for token, client in CLIENTS.items():
        await clients.add(
            connection, client.name, sorted(client.scopes), sorted(client.channels), token_hash(token), None
        )
    await connection.close()
    gateway = Gateway(settings(url, nats_server.url))
    site = Site(gateway, await gateway.start(), url)
    await site.settled()
    await site.product(PLAIN, 100_000)
    yield site
    await gateway.stop()
    postgres_server.query("DROP DATABASE every_code WITH (FORCE)")


@pytest_asyncio.fixture(loop_scope="module")
async def site(shared_site: Site) -> Site:
    await shared_site.settled()
    return shared_site


# What a client does to meet each code.


async def nothing_sold(site: Site) -> Reply:
    return await site.patiently(order(await site.product("NONE", 0)))


async def before_the_sale(site: Site) -> Reply:
    sale_id = await site.sale("next-year", "2099-01-01T00:00:00Z", "2099-01-02T00:00:00Z")
    return await site.place(order(sale_id=sale_id))


async def after_the_sale(site: Site) -> Reply:
    sale_id = await site.sale("last-year", "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
    return await site.place(order(sale_id=sale_id))


async def more_than_the_limit(site: Site) -> Reply:
    return await site.patiently(order(await site.product("LIMITED", limit=1), 2, customer_id="u-1"))


async def cancelled_twice(site: Site) -> Reply:
    placed = (await site.patiently(order())).json
    path = f"/v1/orders/{placed['order_id']}/cancel"
    assert (await site.ask("POST", path, {"reason": "x"}, headers={"if-match": '"1"'})).status == 200
    return await site.ask("POST", path, {"reason": "x"}, headers={"if-match": '"2"'})


async def paid_twice(site: Site) -> Reply:
    placed = (await site.patiently(order())).json
    path = f"/v1/orders/{placed['order_id']}/pay"
    assert (await site.ask("POST", path, {"reference": "p-1"}, headers={"if-match": '"1"'})).status == 200
    return await site.ask("POST", path, {"reference": "p-2"}, headers={"if-match": '"2"'})


async def impatient_retry(site: Site) -> Reply:
    await site.patiently(order())  # The units are at hand, so the first request gets as far as the lock.
    async with site.locked():
        first = asyncio.create_task(site.place(key="in-flight"))
        while not site.services.admission.in_flight:
            await asyncio.sleep(0.01)
        reply = await site.place(key="in-flight")
        await first
    return reply


async def less_than_is_held(site: Site) -> Reply:
    assert (await site.patiently(order(await site.product("HELD", 5), 3))).status == 201
    return await site.ask("PUT", "/v1/stock/HELD", {"total": 2})


async def a_name_twice(site: Site) -> Reply:
    wanted = {"name": "twin", "scopes": ["orders:read"]}
    await site.ask("POST", "/v1/clients", wanted)
    return await site.ask("POST", "/v1/clients", wanted)


async def a_third_token(site: Site) -> Reply:
    await site.ask("POST", "/v1/clients", {"name": "many", "scopes": ["orders:read"]})
    await site.ask("POST", "/v1/clients/many/tokens", {})
    return await site.ask("POST", "/v1/clients/many/tokens", {})


async def another_body_under_a_key(site: Site) -> Reply:
    assert (await site.patiently(order(), key="reused")).status == 201
    return await site.place(order(quantity=2), key="reused")


async def a_bug(site: Site) -> Reply:
    def planted(*_: object) -> None:
        raise RuntimeError("planted by the test")

    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        patch.setattr(site.services.reads, "opened", planted)
        return await site.ask("GET", ORDER)


async def the_last_unit_in_another_cart(site: Site) -> Reply:
    await site.product("LAST", 2)
    assert (await site.patiently(order("LAST"))).status == 201
    async with site.locked():
        first = asyncio.create_task(site.place(order("LAST")))
        while not site.services.admission.in_flight:
            await asyncio.sleep(0.01)
        reply = await site.place(order("LAST"))
        await first
    return reply


async def more_orders_than_may_wait(site: Site) -> Reply:
    await site.patiently(order())
    async with site.locked():
        replies = await asyncio.gather(*(site.place() for _ in range(8)))
    return next(reply for reply in replies if reply.code == "overloaded")


async def no_ledger(site: Site) -> Reply:
    await site.patiently(order())
    async with site.locked():
        return await site.place()


async def too_often(site: Site) -> Reply:
    await site.ask("GET", "/v1/products", token="fg_none")
    return await site.ask("GET", "/v1/products", token="fg_none")


async def never_reading(site: Site) -> Reply:
    """Lines without end to a client that takes no verdict; then the one verdict, as an answer of its own."""
    counters, reads = site.services.counters, asyncio.Event()
    headers = {"content-type": NDJSON}
    asking = asyncio.create_task(
        site.ask("POST", "/v1/orders/bulk", b"x\n" * (LINES_AHEAD_MAX + 1), headers=headers, reads=reads)
    )
    async with asyncio.timeout(WAIT_S):
        while not counters.refused["read_while_writing"]:
            await asyncio.sleep(0.01)
        reads.set()
        reply = await asking
    told = msgspec.json.decode(reply.body.splitlines()[-2])
    kept = [(name, value) for name, value in reply.headers if name != "content-type"]
    return Reply(told["status"], [*kept, ("content-type", JSON_PROBLEM)], msgspec.json.encode(told["problem"]))


Scenario = Callable[[Site], Awaitable[Reply]]
MET: dict[str, Scenario] = {
    "malformed_json": lambda site: site.place(b"{"),
    "key_missing": lambda site: site.ask("POST", "/v1/orders", order()),
    "key_invalid": lambda site: site.place(key="a b"),
    "bad_parameter": lambda site: site.ask("GET", "/v1/orders?colour=red"),
    "bad_cursor": lambda site: site.ask("GET", "/v1/orders?cursor=x"),
    "bad_request": lambda site: site.ask("PUT", "/v1/stock/A", {"total": 1}, headers={"if-match": "*"}),
    "read_while_writing": never_reading,
    "unauthenticated": lambda site: site.place(token=None),
    "scope_missing": lambda site: site.place(token="fg_manager"),
    "channel_forbidden": lambda site: site.place(order(channel="web"), token="fg_own"),
    "not_found": lambda site: site.ask("GET", ORDER),
    "method_not_allowed": lambda site: site.ask("DELETE", "/v1/orders"),
    "body_timeout": lambda site: site.place(stalled=True),
    "sold_out": nothing_sold,
    "sale_not_open": before_the_sale,
    "sale_closed": after_the_sale,
    "limit_reached": more_than_the_limit,
    "not_payable": paid_twice,
    "not_cancellable": cancelled_twice,
    "key_in_flight": impatient_retry,
    "below_held": less_than_is_held,
    "name_taken": a_name_twice,
    "tokens_full": a_third_token,
    "version_mismatch": lambda site: site.ask(
        "PATCH", f"/v1/products/{PLAIN}", {"active": True}, headers={"if-match": '"999"'}
    ),
    "body_too_large": lambda site: site.place(b" " * 65_537, token="fg_own"),
    "unsupported_media_type": lambda site: site.ask(
        "PUT", f"/v1/stock/{PLAIN}", b"<total/>", headers={"content-type": "text/xml"}
    ),
    "invalid": lambda site: site.place({}),
    "key_reused": another_body_under_a_key,
    "precondition_required": lambda site: site.ask("POST", f"{ORDER}/cancel", {"reason": "x"}),
    "rate_limited": too_often,
    "internal": a_bug,
    "stock_returning": the_last_unit_in_another_cart,
    "overloaded": more_orders_than_may_wait,
    "ledger_away": no_ledger,
}


async def without_stock(site: Site) -> Reply:
    await site.product("SERVICE", None)
    return await site.ask("PUT", "/v1/stock/SERVICE", {"total": 1})


async def not_for_sale(site: Site) -> Reply:
    return await site.place(order(await site.product("INACTIVE", active=False)))


async def beside_the_sale(site: Site) -> Reply:
    sale_id = await site.sale("open", "2020-01-01T00:00:00Z", "2099-01-02T00:00:00Z", await site.product("OFFERED"))
    return await site.place(order(sale_id=sale_id))


def priced(**changes: Any) -> dict[str, Any]:
    return order(adjustments=[{"type": "fee", "amount": 1, "label": "gift"} | changes])


FOUND: dict[str, Scenario] = {
    "unknown_field": lambda site: site.place(order(colour="red")),
    "required": lambda site: site.place({"channel": "app"}),
    "wrong_type": lambda site: site.place(order(channel=7)),
    "control_character": lambda site: site.place(order(note="a\x00")),
    "bad_format": lambda site: site.place(order(channel="App")),
    "bad_length": lambda site: site.place(order(note="")),
    "out_of_range": lambda site: site.place(order(quantity=0)),
    "bad_count": lambda site: site.place(order(items=[])),
    "scope_required": lambda site: site.place(priced(), token="fg_own"),
    "unknown_sku": lambda site: site.place(order("UNKNOWN")),
    "inactive_sku": not_for_sale,
    "currency_mismatch": lambda site: site.place(order(currency="EUR")),
    "unknown_line": lambda site: site.place(priced(line=2)),
    "total_out_of_range": lambda site: site.place(priced(amount=MONEY_MAX)),
    "unknown_sale": lambda site: site.place(order(sale_id="unknown")),
    "not_in_sale": beside_the_sale,
    "not_stocked": without_stock,
}


async def description(site: Site) -> dict[str, Any]:
    document: dict[str, Any] = (await call(site.app, "GET", "/schema/openapi.json")).json
    return document


async def documented(site: Site, status: int) -> dict[str, Any]:
    """The answers of this status that the operation last asked documents, by code."""
    method, path = site.asked
    document = await description(site)
    for template, methods in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in methods:
            answer = methods[method.lower()]["responses"][str(status)]
            examples: dict[str, Any] = answer["content"][JSON_PROBLEM]["examples"]
            assert ("Retry-After" in answer["headers"]) or not RETRY & examples.keys()
            return examples
    raise AssertionError(f"{method} {path} is not documented")


@one_loop
@pytest.mark.parametrize("code", PROBLEMS)
async def test_every_code_is_met_and_looks_as_the_registry_says(site: Site, code: str) -> None:
    reply = await MET[code](site)
    known, document = PROBLEMS[code], reply.json
    Draft202012Validator(await description(site) | {"$ref": "#/components/schemas/Problem"}).validate(document)
    assert (reply.code, reply.status) == (code, known.status), document
    assert document["type"] == f"urn:floodgate:problem:{code}"
    assert document["title"] == known.title
    assert (document["status"], document["retryable"]) == (known.status, known.retryable)
    assert document["request_id"] == reply.header("request-id")
    assert reply.header("cache-control") == "no-store"
    assert MEMBERS.get(code, "code") in document
    assert (int(reply.header("retry-after") or 0) > 0) is (code in RETRY)
    assert (reply.header("www-authenticate") is not None) is (known.status == 401)
    assert (reply.header("allow") is not None) is (known.status == 405)
    if code != "method_not_allowed":
        assert code in await documented(site, reply.status)


@one_loop
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_is_met_and_names_its_place(site: Site, fault: str) -> None:
    reply = await FOUND[fault](site)
    assert (reply.code, reply.status) == ("invalid", 422), reply.json
    entries = {entry["code"]: entry for entry in reply.json["errors"]}
    assert fault in entries
    assert re.fullmatch("#(/[^/]+)*", entries[fault]["pointer"])
    assert entries[fault]["detail"]


def test_every_code_has_one_scenario() -> None:
    assert MET.keys() == PROBLEMS.keys()
    assert FOUND.keys() == FAULTS.keys()
