"""The doctor with real servers: each is asked, and is well."""

import json

import asyncpg
from click.testing import CliRunner

from deploy.local.ports import pick_free
from gateway.cli import main
from gateway.cli.doctor import servers
from gateway.cli.doctor.report import FAULT, OK, WARNING
from gateway.settings import Settings


def test_doctor_asks_the_servers_that_the_settings_name(postgres_url: str, redis_url: str, nats_url: str) -> None:
    environment = {
        "FLOODGATE_POSTGRES__URL": postgres_url,
        "FLOODGATE_REDIS__URL": redis_url,
        "FLOODGATE_NATS__URL": nats_url,
        "FLOODGATE_HTTP__PORT": str(pick_free()),
    }
    result = CliRunner(env=environment).invoke(main, ["doctor", "--json"])
    found = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert found["PostgreSQL"]["said"].startswith("18.")
    assert found["Redis"]["said"].startswith("Valkey 9.")
    assert found["NATS"]["said"].startswith("2.")
    assert "with JetStream" in found["NATS"]["said"]
    assert [found[name]["status"] for name in ("PostgreSQL", "durability", "clock", "Redis", "NATS")] == [OK] * 5


async def test_postgres_that_would_lose_orders_is_found(postgres_url: str) -> None:
    database = postgres_url.rpartition("/")[2]
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(f"alter database {database} set synchronous_commit = off")
    await connection.close()
    found = {check.name: check for check in await servers.postgres(postgres_url, Settings())}
    assert found["durability"].status == FAULT
    assert "synchronous_commit = off" in found["durability"].said


async def test_servers_that_refuse_the_secret_are_found(postgres_url: str, redis_url: str, nats_url: str) -> None:
    (postgres,) = await servers.postgres(_with_wrong_secret(postgres_url), Settings())
    assert (postgres.status, "password authentication failed" in postgres.said) == (FAULT, True)
    assert (await servers.nats(_with_wrong_secret(nats_url))).status == FAULT
    assert (await servers.redis(_with_wrong_secret(redis_url))).status == WARNING


def _with_wrong_secret(url: str) -> str:
    head, _, tail = url.rpartition("@")
    return f"{head[:-1]}{'0' if head[-1] != '0' else '1'}@{tail}"
