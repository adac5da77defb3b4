"""Orders in bulk at a whole worker: what becomes of each line, in the ledger and in its verdict."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.services import Services
from gateway.settings import Batch
from persistence.postgres.audit import audit
from tests.api import App, Reply, call, running_worker

WAIT_S = 20.0
PATH = "/v1/orders/bulk"
NDJSON = {"content-type": "application/x-ndjson"}
keys = itertools.count()


class Till:
    """A worker in this process, and what is asked of it."""

    def __init__(self, app: App, services: Services, postgres_url: str) -> None:
        self.app = app
        self.services = services
        self.postgres_url = postgres_url

    async def ask(self, method: str, target: str, document: Any, **request: Any) -> Reply:
        return await call(self.app, method, target, msgspec.json.encode(document), **request)

    async def product(self, sku: str, units: int, **changes: Any) -> None:
        document = {"title": "T-LIGHT", "price": 255, "currency": "CNY"} | changes
        assert (await self.ask("PUT", f"/v1/products/{sku}", document)).status == 201
        assert (await self.ask("PUT", f"/v1/stock/{sku}", {"total": units})).status == 200
        async with asyncio.timeout(WAIT_S):
            while sku not in self.services.catalogue.products:
                await asyncio.sleep(0.01)

    async def bulk(self, *lines: bytes, **request: Any) -> Reply:
        return await call(self.app, "POST", PATH, b"\n".join(lines), headers=NDJSON, **request)

    async def verdicts(self, *lines: bytes, **request: Any) -> list[dict[str, Any]]:
        reply = await self.bulk(*lines, **request)
        assert reply.status == 200, reply.body
        *told, last = map(msgspec.json.decode, reply.body.splitlines())
        assert last["summary"]["lines"] == len(told)
        return told

    async def stored(self) -> set[str]:
        return {str(row["order_id"]) for row in await self.services.pool.fetch("select order_id from orders")}

    async def assert_clean(self) -> None:
        report = await audit(self.postgres_url)
        assert report.clean, [finding for finding in report.findings if finding.count]


@pytest.fixture
async def till(postgres_url: str, nats_url: str) -> AsyncIterator[Till]:
    async with running_worker(postgres_url, nats_url) as (app, services):
        yield Till(app, services, postgres_url)


def order(sku: str = "A", quantity: int = 1, **fields: Any) -> bytes:
    return msgspec.json.encode(
        {"channel": "app", "currency": "CNY", "items": [{"sku": sku, "quantity": quantity}]} | fields
    )


def line(body: bytes = b"", key: str = "") -> bytes:
    return b'{"idempotency_key":"%b","order":%b}' % ((key or f"k-{next(keys)}").encode(), body or order())


def codes(verdicts: list[dict[str, Any]]) -> list[str]:
    return [verdict["problem"]["code"] if "problem" in verdict else "ok" for verdict in verdicts]


def order_ids(verdicts: list[dict[str, Any]]) -> list[str]:
    return [verdict["order_id"] for verdict in verdicts if "order_id" in verdict]


async def test_bulk_orders_are_in_the_ledger_when_their_verdict_says_so(till: Till) -> None:
    await till.product("A", 5000)
    verdicts = await till.verdicts(*(line() for _ in range(3000)))
    assert codes(verdicts) == ["ok"] * 3000
    assert [verdict["line"] for verdict in verdicts] == [*range(1, 3001)]
    assert set(order_ids(verdicts)) == await till.stored()
    assert len(await till.stored()) == 3000
    await till.assert_clean()


async def test_bulk_sent_again_gets_the_same_orders(till: Till) -> None:
    await till.product("A", 500)
    lines = [line() for _ in range(200)]
    first, again = await till.verdicts(*lines), await till.verdicts(*lines)
    assert order_ids(first) == order_ids(again)
    assert {verdict.get("replayed") for verdict in first} == {None}
    assert {verdict.get("replayed") for verdict in again} == {True}
    assert len(await till.stored()) == 200


async def test_bulk_key_is_the_key_of_a_single_order(till: Till) -> None:
    await till.product("A", 500)
    body = order(note="请放门口")
    headers = {"idempotency-key": '"both"'}
    (verdict,) = await till.verdicts(line(body, "both"))
    single = await call(till.app, "POST", "/v1/orders", body, headers=headers)
    assert (single.status, single.header("idempotency-replayed")) == (201, "true")
    assert single.json["order_id"] == verdict["order_id"]
    placed = await call(till.app, "POST", "/v1/orders", body, headers={"idempotency-key": "first"})
    (verdict,) = await till.verdicts(line(body, "first"))
    assert (verdict["order_id"], verdict["replayed"]) == (placed.json["order_id"], True)


async def test_bulk_key_twice_is_one_order(till: Till) -> None:
    await till.product("A", 500)
    body = order()
    first, same, other = await till.verdicts(line(body, "k"), line(body, "k"), line(order(quantity=2), "k"))
    assert first["order_id"] == same["order_id"]
    assert same["replayed"] is True
    assert codes([other]) == ["key_reused"]
    assert len(await till.stored()) == 1


async def test_bulk_line_that_is_refused_leaves_the_others_alone(till: Till) -> None:
    await till.product("A", 500)
    verdicts = await till.verdicts(
        line(),
        line(order("NONE")),
        b"nonsense",
        line(order(quantity=0)),
        line(order(channel="App")),
        line(),
    )
    assert codes(verdicts) == ["ok", "invalid", "malformed_json", "invalid", "invalid", "ok"]
    (fault,) = verdicts[1]["problem"]["errors"]
    assert (fault["code"], fault["pointer"]) == ("unknown_sku", "#/items/0/sku")


async def test_bulk_sells_what_there_is_and_not_more(till: Till) -> None:
    await till.product("FEW", 30)
    verdicts = await till.verdicts(*(line(order("FEW")) for _ in range(100)))
    assert sorted(set(codes(verdicts))) == ["ok", "sold_out"]
    assert codes(verdicts).count("ok") == 30
    await till.assert_clean()


async def test_bulk_holds_limits_per_customer(till: Till) -> None:
    await till.product("LIMITED", 100, limit=2)
    verdicts = await till.verdicts(*(line(order("LIMITED", customer_id=f"u-{at % 2}")) for at in range(8)))
    assert codes(verdicts).count("ok") == 4
    assert codes(verdicts).count("limit_reached") == 4


async def test_bulk_beyond_all_bounds_of_the_queue_is_never_told_overloaded(postgres_url: str, nats_url: str) -> None:
    small = Batch(rows_max=20, queue_rows_max=40)
    async with running_worker(postgres_url, nats_url, batch=small) as (app, services):
        till = Till(app, services, postgres_url)
        await till.product("A", 5000)
        answers = await asyncio.gather(*(till.verdicts(*(line() for _ in range(300))) for _ in range(4)))
        assert [codes(verdicts) for verdicts in answers] == [["ok"] * 300] * 4


async def test_bulk_lets_live_orders_pass(till: Till) -> None:
    await till.product("A", 20_000)
    live = 0
    async with asyncio.TaskGroup() as group:
        loading = group.create_task(till.verdicts(*(line() for _ in range(6000))))
        while not loading.done():
            reply = await call(till.app, "POST", "/v1/orders", order(), headers={"idempotency-key": f"live-{live}"})
            assert reply.status == 201
            live += not loading.done()
    assert live > 5, "each waited for the file"
    assert codes(loading.result()) == ["ok"] * 6000


async def test_bulk_of_another_content_type_is_refused(till: Till) -> None:
    reply = await call(till.app, "POST", PATH, line())
    assert (reply.status, reply.code) == (415, "unsupported_media_type")


async def test_bulk_needs_its_scope(till: Till) -> None:
    assert (await till.bulk(line(), token="fg_own")).code == "scope_missing"
    assert (await till.bulk(line(), token=None)).code == "unauthenticated"


async def test_bulk_requests_at_once_are_bounded(till: Till) -> None:
    till.services.bulk.streams = till.services.bulk.streams_max
    reply = await till.bulk(line())
    assert (reply.status, reply.code, reply.header("retry-after")) == (503, "overloaded", "1")
    till.services.bulk.streams = 0
    assert (await till.bulk(line(order("NONE")))).status == 200
