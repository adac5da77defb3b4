"""A gateway as a process, from outside: keys, load, signals, revoked tokens, changed prices, and what /metrics says."""

import asyncio
import contextlib
import datetime as dt
import itertools
import json
import signal
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import nats
import pytest

from persistence.nats.stream import NAME
from persistence.postgres import catalogue, clients
from persistence.postgres.audit import audit
from persistence.postgres.connect import open_pool
from tests.load import Buyers, ask_again, order
from tests.served import Served

STOCK = 1_000_000


@pytest.fixture
async def served(postgres_url: str, nats_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"A": STOCK, "B": 10})
    await gateway.start()
    yield gateway
    await gateway.close()


@contextlib.asynccontextmanager
async def session(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(served.url, headers={"Authorization": f"Bearer {served.token}"}) as client:
        yield client


async def stored(served: Served) -> dict[str, asyncpg.Record]:
    return {str(row["order_id"]): row for row in await served.fetch("select order_id, total from orders")}


async def events_in_stream(served: Served) -> dict[str, int]:
    """How often each order's creation stands in the stream."""
    client = await nats.connect(served.nats_url)
    found: dict[str, int] = {}
    context = client.jetstream()
    state = (await context.stream_info(NAME)).state
    if state.messages:
        subscription = await context.subscribe("orders.created.>", ordered_consumer=True)
        for _ in range(state.messages):
            document = json.loads((await subscription.next_msg(timeout=10)).data)
            found[document["subject"]] = found.get(document["subject"], 0) + 1
    await client.close()
    return found


async def outbox_emptied(served: Served) -> None:
    while (await served.fetch("select count(*) as n from outbox"))[0]["n"]:
        await asyncio.sleep(0.05)


async def test_orders_same_key_50_times_at_once_is_one_order_and_one_body(served: Served) -> None:
    async with session(served) as client:

        async def place() -> tuple[int, bytes]:
            async with client.post("/v1/orders", json=order("A"), headers={"Idempotency-Key": "same"}) as answer:
                return answer.status, await answer.read()

        answers = await asyncio.gather(*(place() for _ in range(50)))
        assert {status for status, _ in answers} == {201}
        assert len({body for _, body in answers}) == 1
        async with client.post("/v1/orders", json=order("A", 2), headers={"Idempotency-Key": "same"}) as changed:
            assert (changed.status, (await changed.json(content_type=None))["code"]) == (422, "key_reused")
    assert len(await stored(served)) == 1


async def test_serve_sigterm_under_load_returns_every_lease_and_loses_nothing(served: Served) -> None:
    buyers = Buyers(served.url, served.token, "A", together=32, run="term")
    buying = asyncio.create_task(buyers.buy())
    while len(buyers.history.accepted) < 500:
        await asyncio.sleep(0.01)
    assert await served.stop(signal.SIGTERM) == 0, served.log()
    buyers.stop()
    history = await buying
    assert history.order_ids() <= (await stored(served)).keys()
    assert await served.fetch("select 1 from stock_lease where state = 'active'") == []
    assert (await audit(served.postgres_url)).clean


async def test_serve_killed_under_load_loses_nothing_and_answers_every_retry(served: Served) -> None:
    buyers = Buyers(served.url, served.token, "A", together=32, run="kill")
    buying = asyncio.create_task(buyers.buy())
    while len(buyers.history.accepted) < 500:
        await asyncio.sleep(0.01)
    await served.stop(signal.SIGKILL)
    buyers.stop()
    history = await buying
    assert history.order_ids() <= (await stored(served)).keys()
    await served.start()
    again = await ask_again(served.url, served.token, "A", set(list(history.accepted)[-50:]) | history.unknown)
    assert again.refused == {}
    assert again.unknown == set()
    assert {
        key: history.accepted[key] for key in again.accepted if key in history.accepted
    }.items() <= again.accepted.items()
    assert len(await stored(served)) == len(history.accepted.keys() | again.accepted.keys())
    assert (await audit(served.postgres_url)).clean


async def test_metrics_totals_equal_the_tables(served: Served) -> None:
    history = await Buyers(served.url, served.token, "A", together=8, run="count", orders=200).buy()
    sold_out = await Buyers(served.url, served.token, "B", together=4, run="scarce", orders=25).buy()
    async with session(served) as client, client.get("/metrics") as answer:
        assert answer.status == 200
        lines = (await answer.text()).splitlines()
    metrics = {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }
    (row,) = await served.fetch(
        "select (select count(*) from orders) as orders, count(*) as lines, sum(quantity)::bigint as units "
        "from order_lines"
    )
    assert len(history.accepted) == 200
    assert list(sold_out.refused.values()) == ["sold_out"] * 15
    assert metrics["floodgate_orders_created_total"] == row["orders"] == 210
    assert metrics["floodgate_order_lines_created_total"] == row["lines"]
    assert metrics["floodgate_order_units_created_total"] == row["units"]
    assert metrics['floodgate_orders_refused_total{code="sold_out"}'] == 15
    await outbox_emptied(served)
    assert await events_in_stream(served) == dict.fromkeys(map(str, await stored(served)), 1)


async def test_client_revoked_and_price_changed_take_effect_within_a_second(served: Served) -> None:
    """Judged by the times of the orders, which are the ledger's: how busy this machine is has no say in it."""
    pool = await open_pool(served.postgres_url, "test", 1, 10.0)
    numbers = itertools.count()
    async with session(served) as client:

        async def place() -> int:
            async with client.post(
                "/v1/orders", json=order("A"), headers={"Idempotency-Key": f"{next(numbers)}"}
            ) as got:
                return got.status if got.status != 201 else int((await got.json(content_type=None))["total"])

        assert await place() == 100
        await catalogue.put(pool, [catalogue.ProductRow("A", "Goods", 250, "CNY", stocked=True, active=True)])
        changed_at = await pool.fetchval("select clock_timestamp()")
        while await place() != 250:
            pass
        async with pool.acquire() as connection:
            await clients.revoke(connection, "buyers", None)
        revoked_at = await pool.fetchval("select clock_timestamp()")
        while await place() != 401:
            pass
    await pool.close()
    (row,) = await served.fetch(
        "select max(created_at) filter (where total = 100) as old_price, max(created_at) as last from orders"
    )
    assert row["old_price"] - changed_at < dt.timedelta(seconds=1)
    assert row["last"] - revoked_at < dt.timedelta(seconds=1)


async def test_serve_without_its_servers_says_503_and_recovers_when_they_come(served: Served, postgres_server) -> None:
    postgres_server.kill()
    async with session(served) as client:
        async with client.post("/v1/orders", json=order("A"), headers={"Idempotency-Key": "away"}) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (503, "ledger_away")
            assert answer.headers["Retry-After"] == "1"
        postgres_server.start()  # From this thread: the server is told to end when the thread that started it does.
        postgres_server.wait_ready()
        for _ in range(200):
            async with client.post("/v1/orders", json=order("A"), headers={"Idempotency-Key": "away"}) as answer:
                if answer.status == 201:
                    break
            await asyncio.sleep(0.05)
        assert answer.status == 201
    assert len(await stored(served)) == 1
    assert (await audit(served.postgres_url)).clean
