"""The live settings over HTTP, on a real ledger: versions, preconditions, faults by pointer, and a worker that
follows.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.services import Services
from gateway.settings import Limits, Stock
from persistence.postgres import live_settings
from persistence.postgres.connect import connect
from tests.api import App, Reply, call, running_worker

PATH = "/v1/settings"
RULE = {"sku": "SALE-*", "shards": 16}


@pytest.fixture
async def worker(postgres_url: str, nats_url: str) -> AsyncIterator[tuple[App, Services]]:
    async with running_worker(postgres_url, nats_url) as running:
        yield running


@pytest.fixture
def app(worker: tuple[App, Services]) -> App:
    return worker[0]


def as_json(section: Stock | Limits) -> Any:
    return msgspec.json.decode(msgspec.json.encode(section))


async def put(app: App, match: str | None, reason: str | None = None, **stock: Any) -> Reply:
    """Put settings with this section `stock`; `match` is an ETag, `*` for none yet."""
    document = {"stock": stock, "limits": {}} | ({} if reason is None else {"reason": reason})
    name = "if-none-match" if match == "*" else "if-match"
    return await call(app, "PUT", PATH, msgspec.json.encode(document), {} if match is None else {name: match})


async def versions(app: App) -> list[int]:
    return [item["version"] for item in (await call(app, "GET", f"{PATH}/history")).json["items"]]


async def test_get_settings_before_any_version_shows_the_processes_own(app: App) -> None:
    reply = await call(app, "GET", PATH)
    assert (reply.status, reply.header("etag"), reply.json["version"]) == (200, None, 0)
    assert reply.json["stock"] == as_json(Stock(park_ms_max=5000))


async def test_put_settings_makes_the_next_version_that_get_shows(app: App) -> None:
    reply = await put(app, "*", reason="the 11th", shards=8, rule=[RULE])
    assert (reply.status, reply.header("etag")) == (200, '"1"')
    shown = reply.json
    assert (shown["version"], shown["actor"], shown["reason"]) == (1, "client:shop", "the 11th")
    assert shown["stock"] == as_json(Stock(shards=8)) | {"rule": [RULE]}
    assert shown["limits"] == as_json(Limits())
    again = await call(app, "GET", PATH)
    assert (again.json, again.header("etag")) == (shown, '"1"')


async def test_put_settings_is_followed_by_the_worker(worker: tuple[App, Services]) -> None:
    app, services = worker
    await put(app, "*", shards=8)
    async with asyncio.timeout(20):
        while services.live.version != 1:
            await asyncio.sleep(0.01)
    assert services.live.stock == Stock(shards=8)


async def test_put_settings_goes_to_the_default_where_nothing_is_said(app: App) -> None:
    await put(app, "*", shards=8, low_units=5)
    assert (await put(app, '"1"', low_units=6)).json["stock"] == as_json(Stock(low_units=6))


async def test_put_settings_without_a_version_is_428_and_changes_nothing(app: App) -> None:
    reply = await put(app, None, shards=8)
    assert (reply.status, reply.code) == (428, "precondition_required")
    assert await versions(app) == []


@pytest.mark.parametrize("match", ['"2"', "*", '"x"'])
async def test_put_settings_for_another_version_is_412_and_changes_nothing(app: App, match: str) -> None:
    await put(app, "*", shards=8)
    reply = await put(app, match, shards=9)
    assert (reply.status, reply.code) == (412, "version_mismatch")
    assert await versions(app) == [1]


async def test_put_settings_of_two_at_once_makes_one_version(app: App) -> None:
    await put(app, "*", shards=8)
    replies = await asyncio.gather(*(put(app, '"1"', shards=shards) for shards in (5, 6)))
    assert sorted(reply.status for reply in replies) == [200, 412]
    assert await versions(app) == [2, 1]


async def test_put_settings_that_are_in_force_makes_no_version(app: App) -> None:
    await put(app, "*", shards=8)
    reply = await put(app, '"1"', shards=8)
    assert (reply.status, reply.header("etag")) == (200, '"1"')
    assert await versions(app) == [1]


@pytest.mark.parametrize(
    ("document", "code", "pointer"),
    [
        ({"stock": {"shards": 0}, "limits": {}}, "out_of_range", "#/stock/shards"),
        ({"stock": {"shards": "8"}, "limits": {}}, "wrong_type", "#/stock/shards"),
        ({"stock": {"shard": 8}, "limits": {}}, "unknown_field", "#/stock/shard"),
        ({"stock": {"rule": [RULE, {"sku": "A"}]}, "limits": {}}, "required", "#/stock/rule/1/shards"),
        ({"stock": {"rule": [RULE] * 1001}, "limits": {}}, "bad_count", "#/stock/rule"),
        ({"stock": {"rule": [RULE | {"sku": ""}]}, "limits": {}}, "bad_length", "#/stock/rule/0/sku"),
        ({"stock": {"rule": [RULE | {"sku": "a\0"}]}, "limits": {}}, "control_character", "#/stock/rule/0/sku"),
        ({"stock": {}}, "required", "#/limits"),
        ({"stock": {}, "limits": {}, "http": {"port": 1}}, "unknown_field", "#/http"),
        ({"stock": {}, "limits": {}, "a/b~": 1}, "unknown_field", "#/a~1b~0"),
        ({"stock": {}, "limits": {}, "reason": ""}, "bad_length", "#/reason"),
        ([], "wrong_type", "#"),
    ],
)
async def test_put_settings_that_are_invalid_points_at_the_fault(
    app: App, document: Any, code: str, pointer: str
) -> None:
    reply = await call(app, "PUT", PATH, msgspec.json.encode(document), {"if-none-match": "*"})
    assert (reply.status, reply.code) == (422, "invalid")
    assert [(error["code"], error["pointer"]) for error in reply.json["errors"]] == [(code, pointer)]
    assert await versions(app) == []


async def test_put_settings_that_contradict_one_another_points_at_the_fault(app: App) -> None:
    rate = {"client": "*", "requests_per_s": 0.001, "burst": 100000}
    document = {"stock": {}, "limits": {"rate": [rate]}}
    reply = await call(app, "PUT", PATH, msgspec.json.encode(document), {"if-none-match": "*"})
    assert (reply.status, reply.code) == (422, "invalid")
    assert reply.json["errors"][0]["pointer"].startswith("#/limits/rate/0")
    assert await versions(app) == []


async def test_put_settings_names_every_fault(app: App) -> None:
    reply = await put(app, "*", shards=0, low_units="x")
    assert [error["pointer"] for error in reply.json["errors"]] == ["#/stock/shards", "#/stock/low_units"]
    assert "from 1 to 256" in reply.json["errors"][0]["detail"]


async def test_history_has_the_newest_first_and_as_many_as_asked_for(app: App) -> None:
    for match, shards in (("*", 5), ('"1"', 6), ('"2"', 7)):
        await put(app, match, shards=shards)
    shown = (await call(app, "GET", f"{PATH}/history?limit=2")).json["items"]
    assert [(item["version"], item["stock"]["shards"]) for item in shown] == [(3, 7), (2, 6)]
    assert (await call(app, "GET", f"{PATH}/history?limit=0")).code == "bad_parameter"


async def roll_back(app: App, version: int, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    body = msgspec.json.encode({"version": version, **more})
    return await call(app, "POST", f"{PATH}/rollback", body, headers or {})


async def test_rollback_brings_old_content_back_as_a_new_version(app: App) -> None:
    await put(app, "*", shards=5)
    await put(app, '"1"', shards=6)
    reply = await roll_back(app, 1, reason="worse")
    assert (reply.status, reply.header("etag"), reply.json["stock"]["shards"]) == (200, '"3"', 5)
    assert (reply.json["reason"], reply.json["actor"]) == ("worse", "client:shop")
    again = await roll_back(app, 1)
    assert (again.status, again.json["version"]) == (200, 3)


async def test_rollback_without_a_reason_says_where_to(app: App) -> None:
    await put(app, "*", shards=5)
    await put(app, '"1"', shards=6)
    assert (await roll_back(app, 1)).json["reason"] == "rollback to version 1"


async def test_rollback_to_no_version_is_not_found(app: App) -> None:
    assert (await roll_back(app, 1)).code == "not_found"
    await put(app, "*", shards=5)
    assert (await roll_back(app, 2)).code == "not_found"


async def test_rollback_meant_for_another_version_changes_nothing(app: App) -> None:
    await put(app, "*", shards=5)
    await put(app, '"1"', shards=6)
    assert (await roll_back(app, 1, {"if-match": '"1"'})).code == "version_mismatch"
    assert (await roll_back(app, 1, {"if-match": '"2"'})).status == 200


async def test_rollback_to_content_of_another_release_is_invalid(app: App, postgres_url: str) -> None:
    connection = await connect(postgres_url, "test")
    for document in ('{"stock": {"colour": "blue"}}', '{"stock": {}}'):
        await live_settings.apply(connection, document, "file", None)
    await connection.close()
    reply = await roll_back(app, 1)
    assert (reply.code, reply.json["errors"][0]["pointer"]) == ("invalid", "#/version")
    assert await versions(app) == [2, 1]


async def test_settings_of_another_release_are_shown_as_they_stand(app: App, postgres_url: str) -> None:
    connection = await connect(postgres_url, "test")
    await live_settings.apply(connection, '{"stock": {"colour": "blue"}}', "file", None)
    await connection.close()
    shown = (await call(app, "GET", PATH)).json
    assert (shown["version"], shown["stock"]) == (1, {"colour": "blue"})
    assert (await put(app, '"1"', shards=5)).json["version"] == 2


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", PATH), ("PUT", PATH), ("GET", f"{PATH}/history"), ("POST", f"{PATH}/rollback")],
)
async def test_settings_need_their_scope(app: App, method: str, path: str) -> None:
    reply = await call(app, method, path, b"{}" if method != "GET" else None, token="fg_own")
    assert (reply.status, reply.code) == (403, "scope_missing")
