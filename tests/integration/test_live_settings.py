"""Live settings in the ledger: versions are written one after the other, and running workers follow the newest."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from gateway import live
from gateway.settings import load
from persistence.postgres import live_settings
from persistence.postgres.connect import connect
from tests.api import call, running_worker
from tests.unit.fakes import FakeLog
from tests.worker_world import SKU, Shop, World, code_of, eventually, open_world, order

SHARDS_5 = json.dumps({"stock": {"shards": 5}})


@pytest.fixture
async def ledger(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(postgres_url, "fg-test")
    yield connection
    await connection.close()


@pytest.fixture
async def world(postgres_url: str, nats_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url, nats_url) as world:
        yield world
        await world.assert_clean()


async def write(world: World, **sections: Any) -> int:
    async with world.pool.acquire() as connection:
        version = await live_settings.apply(connection, json.dumps(sections), "test", None)
    assert version
    return version


async def follow(shop: Shop, version: int) -> None:
    async def is_so() -> bool:
        return shop.services.live.version == version

    await eventually(f"the worker applies version {version}", is_so)


async def test_current_before_any_version_is_none(ledger: asyncpg.Connection) -> None:
    assert await live_settings.current(ledger) == (0, None)


async def test_apply_writes_the_next_version_and_raises_the_topic(ledger: asyncpg.Connection) -> None:
    assert await live_settings.apply(ledger, "{}", "user:a", None) == 1
    assert await live_settings.apply(ledger, SHARDS_5, "user:b", "why") == 2
    topic, found = await live_settings.current(ledger)
    assert found is not None
    assert (topic, found.version, found.actor, found.reason) == (2, 2, "user:b", "why")
    assert json.loads(found.document) == {"stock": {"shards": 5}}


async def test_apply_to_another_version_than_the_one_in_force_changes_nothing(ledger: asyncpg.Connection) -> None:
    await live_settings.apply(ledger, "{}", "a", None)
    assert await live_settings.apply(ledger, SHARDS_5, "b", None, if_version=0) is None
    topic, found = await live_settings.current(ledger)
    assert found is not None
    assert (topic, found.version) == (1, 1)
    assert await live_settings.apply(ledger, SHARDS_5, "b", None, if_version=1) == 2


async def at_once(url: str, *calls: Any) -> list[Any]:
    connections = [await connect(url, "fg-test") for _ in calls]
    try:
        pairs = zip(calls, connections, strict=True)
        return await asyncio.gather(*(call(connection) for call, connection in pairs))
    finally:
        for connection in connections:
            await connection.close()


async def test_apply_by_several_at_once_gives_each_a_version(postgres_url: str, ledger: asyncpg.Connection) -> None:
    calls = [lambda c, n=n: live_settings.apply(c, SHARDS_5, f"user:{n}", None) for n in range(6)]
    written = await at_once(postgres_url, *calls)
    assert sorted(written) == [1, 2, 3, 4, 5, 6]
    found = await live_settings.history(ledger)
    assert [one.version for one in found] == [6, 5, 4, 3, 2, 1]
    assert {one.version: one.actor for one in found} == {v: f"user:{n}" for n, v in enumerate(written)}
    assert (await live_settings.current(ledger))[0] == 6


async def test_apply_by_two_who_saw_the_same_version_lets_one_win(
    postgres_url: str, ledger: asyncpg.Connection
) -> None:
    calls = [lambda c: live_settings.apply(c, SHARDS_5, "a", None, if_version=0)] * 5
    written = await at_once(postgres_url, *calls)
    assert sorted(written, key=str) == [1, None, None, None, None]
    assert len(await live_settings.history(ledger)) == 1


async def test_history_is_cut_at_its_limit(ledger: asyncpg.Connection) -> None:
    for _ in range(3):
        await live_settings.apply(ledger, "{}", "a", None)
    assert [one.version for one in await live_settings.history(ledger, 2)] == [3, 2]


async def test_rollback_writes_a_new_version_with_the_old_content(ledger: asyncpg.Connection) -> None:
    await live_settings.apply(ledger, SHARDS_5, "a", None)
    await live_settings.apply(ledger, "{}", "a", None)
    assert await live_settings.rollback(ledger, 1, "b", "back") == 3
    topic, found = await live_settings.current(ledger)
    assert found is not None
    assert (topic, found.version, found.actor, found.reason) == (3, 3, "b", "back")
    assert json.loads(found.document) == json.loads(SHARDS_5)


async def test_rollback_to_no_version_changes_nothing(ledger: asyncpg.Connection) -> None:
    assert await live_settings.rollback(ledger, 1, "b", None) is None
    assert await live_settings.current(ledger) == (0, None)


async def test_seed_writes_the_settings_once_and_says_where_later_ones_differ(
    postgres_url: str, ledger: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = FakeLog()
    monkeypatch.setattr("gateway.live.log", log)
    told = [load(environ={}, flags={"postgres.url": postgres_url, "stock.shards": shards}) for shards in (6, 7)]
    await live.seed(told[0])
    await live.seed(told[0])
    assert "live_settings_of_the_ledger_win" not in log.names
    await live.seed(told[1])
    assert log.names.count("live_settings_of_the_ledger_win") == 1
    (found,) = await live_settings.history(ledger)
    assert (found.version, found.actor) == (1, "file")
    assert json.loads(found.document)["stock"]["shards"] == 6


async def test_seed_by_several_at_once_writes_one_version(postgres_url: str, ledger: asyncpg.Connection) -> None:
    told = load(environ={}, flags={"postgres.url": postgres_url})
    await asyncio.gather(*(live.seed(told) for _ in range(5)))
    assert (await live_settings.current(ledger))[0] == 1
    assert len(await live_settings.history(ledger)) == 1


async def test_worker_follows_what_is_applied(world: World) -> None:
    shops = [await world.shop(), await world.shop()]
    assert [shop.services.live.stock.park_ms_max for shop in shops] == [5000, 5000]  # As it was told.
    version = await write(world, stock={"park_ms_max": 1234, "rule": [{"sku": "A*", "shards": 9}]})
    for shop in shops:
        await follow(shop, version)
        assert shop.services.live.stock.park_ms_max == 1234
        assert shop.services.live.shards_of("A-1") == 9


async def test_worker_that_starts_has_the_ledgers_version_before_it_takes_orders(world: World) -> None:
    await world.product()
    version = await write(world, limits={"rule": [{"sku": SKU, "units": 3}]})
    shop = await world.shop()
    assert shop.services.live.version == version
    assert shop.services.catalogue.products[SKU].limit == 3


async def test_worker_applies_limits_by_rule_to_the_products_it_has(world: World) -> None:
    await world.product()
    shop = await world.shop()
    assert shop.services.catalogue.products[SKU].limit is None
    await follow(shop, await write(world, limits={"rule": [{"sku": "85*", "units": 3}]}))
    assert shop.services.catalogue.products[SKU].limit == 3
    await follow(shop, await write(world))
    assert shop.services.catalogue.products[SKU].limit is None


async def test_worker_that_cannot_apply_a_version_keeps_the_former_and_says_so(world: World) -> None:
    shop = await world.shop()
    await follow(shop, await write(world, stock={"shards": 7}))
    await write(world, stock={"shards": 8, "colour": "blue"})

    async def says_so() -> bool:
        return "settings" in shop.services.faults()

    await eventually("the worker says that it keeps the former", says_so)
    assert (shop.services.live.version, shop.services.live.stock.shards) == (1, 7)
    assert "unknown setting stock.colour" in shop.services.faults()["settings"]
    assert not shop.services.ready()["settings"]
    assert (await shop.place("k-1", b"{}")).status == 422  # It goes on.
    await follow(shop, await write(world, stock={"shards": 9}))
    assert shop.services.faults().keys() == {"journal"}  # It has no folder for one.


async def test_worker_that_could_never_apply_a_version_takes_no_orders_until_it_can(world: World) -> None:
    await world.product()
    await write(world, limits={"rule": [{"sku": SKU, "units": 3, "colour": "blue"}]})
    shop = await world.shop(ready=False)
    services = shop.services

    async def all_else_is_ready() -> bool:
        parts = services.ready()
        return "settings" in services.faults() and all(parts[part] for part in ("ledger", "clock", "clients"))

    await eventually("the worker has all but settings", all_else_is_ready)
    token = await world.client("later")

    async def looked_again() -> bool:
        return code_of(await shop.place("k-1", token=token)) != "unauthenticated"

    await eventually("the worker knows a client that came later", looked_again)
    answer = await shop.place("k-1")
    assert (answer.status, code_of(answer)) == (503, "ledger_away")
    assert not services.takes_orders
    await follow(shop, await write(world, limits={"rule": [{"sku": SKU, "units": 3}]}))
    assert (await shop.buy("k-1", order(customer_id="u-1", quantity=3))).status == 201
    refused = await shop.buy("k-2", order(customer_id="u-1"))
    assert code_of(refused) == "limit_reached"


async def test_put_stock_of_a_new_sku_has_the_shards_of_its_rule(postgres_url: str, nats_url: str) -> None:
    connection = await connect(postgres_url, "fg-test")
    await live_settings.apply(connection, '{"stock": {"rule": [{"sku": "A*", "shards": 3}]}}', "test", None)
    async with running_worker(postgres_url, nats_url) as (app, _):
        for sku, body in (("A-1", b'{"total": 9}'), ("A-2", b'{"total": 9, "shards": 2}'), ("B", b'{"total": 9}')):
            await call(app, "PUT", f"/v1/products/{sku}", b'{"title":"t","price":1,"currency":"CNY"}')
            assert (await call(app, "PUT", f"/v1/stock/{sku}", body)).status == 200
    rows = await connection.fetch("select sku, shards, shards_fixed from stock_sku order by sku")
    await connection.close()
    assert [tuple(row) for row in rows] == [("A-1", 3, False), ("A-2", 2, True), ("B", 4, False)]
