"""A model consumer of Floodgate's events: copy it and change `apply`.

It counts what was sold of each SKU in a database of your own. It loses no event and counts none twice, whatever is
killed or cut: it acknowledges an event after committing its effect and its id in one transaction. Any number may run
at once. What fails ten times is put aside in the table `dead_letter`.

    pip install asyncpg nats-py
    python consumer.py --nats nats://127.0.0.1:4222 --postgres postgresql://me@127.0.0.1/mine

With the user of a team (`floodgate events user`), whose durables are made already: --domain and --durable, too.
"""

import argparse
import asyncio
import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

DURABLE = "example-sales"  # One name per team: all processes with this name share the work.
SUBJECT = "orders.created.>"
TYPE = "com.floodgate.order.created.v1"  # Others, which a durable for more subjects brings, change nothing.
ATTEMPTS_MAX = 10
KEPT = timedelta(days=8)  # Of ids: the stream keeps events for 7 days.
FORGET_EVERY_S = 3600
RESENT = "Floodgate-Resent"  # A header of what `floodgate events resend` sends, however old it is.
SCHEMA = """
create table if not exists seen_event (event_id text primary key, seen_at timestamptz not null default now());
create table if not exists sku_sales (sku text primary key, units bigint not null, value bigint not null);
create table if not exists dead_letter (event_id text primary key, event text not null, error text not null);
"""
COUNT = """insert into sku_sales values ($1, $2, $3) on conflict (sku) do update
           set units = sku_sales.units + excluded.units, value = sku_sales.value + excluded.value"""
REMEMBER = "insert into seen_event (event_id) values ($1) on conflict do nothing returning true"
FORGET = """delete from seen_event where ctid = any(array(
            select ctid from seen_event where seen_at < now() - $1::interval limit 100000))"""
LETTER = "insert into dead_letter values ($1, $2, $3) on conflict do nothing"


async def apply(database: asyncpg.Connection, event: dict[str, Any]) -> None:
    """The effect of one event. Runs inside the transaction that remembers the event's id."""
    if event["type"] != TYPE:
        return
    rows = [(item["sku"], item["quantity"], item["amount"]) for item in event["data"]["items"]]
    await database.executemany(COUNT, sorted(rows))  # Locks in one order: no deadlocks.


def is_too_old(event: dict[str, Any], message: Msg) -> bool:
    """Whether it was sent again from a time whose ids are forgotten: nobody knows whether it was counted."""
    if RESENT not in (message.headers or {}):
        return False
    return datetime.fromisoformat(event["time"]) < datetime.now(UTC) - KEPT + timedelta(days=1)


async def handle(database: asyncpg.Pool, message: Msg) -> None:
    """Count an event once, then acknowledge it. A lost acknowledgement only brings it again."""
    done = "known:"
    try:
        event = json.loads(message.data)
        async with database.acquire() as connection, connection.transaction():
            if not is_too_old(event, message) and await connection.fetchval(REMEMBER, event["id"]):
                await apply(connection, event)
                done = "counted:"
    except (ValueError, KeyError, TypeError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        await set_aside(database, message, error)
    else:
        await message.ack()
        print(done, event["id"])


async def set_aside(database: asyncpg.Pool, message: Msg, error: Exception) -> None:
    """An event that cannot be applied comes again, ten times in all, and is then kept for a person to look at."""
    if message.metadata.num_delivered < ATTEMPTS_MAX:
        await message.nak(delay=5)
        return
    event_id = (message.headers or {}).get("Nats-Msg-Id", f"sequence {message.metadata.sequence.stream}")
    print("dead letter:", event_id)
    await database.execute(LETTER, event_id, message.data.decode(errors="replace").replace("\0", ""), repr(error))
    await message.term()


async def fetch(events: JetStreamContext.PullSubscription) -> list[Msg]:
    """What there is. When nothing comes the consumer is looked up, which raises if it is gone."""
    try:
        return await events.fetch(100, timeout=1)
    except TimeoutError:  # nats-py raises its own, and the one that it is derived from.
        await events.consumer_info()
        return []


async def bind(client: Client, durable: str, domain: str | None) -> JetStreamContext.PullSubscription:
    """The durable consumer, made unless it is there: whose settings an operator has changed is left as it is."""
    stream = client.jetstream(domain=domain)
    try:
        await stream.consumer_info("ORDERS", durable)
    except NotFoundError:
        config = ConsumerConfig(durable_name=durable, filter_subject=SUBJECT, ack_policy=AckPolicy.EXPLICIT)
        await stream.add_consumer("ORDERS", config)
    return await stream.pull_subscribe_bind(durable, stream="ORDERS")


async def consume(client: Client, database: asyncpg.Pool, durable: str, domain: str | None) -> None:
    """Fetch and handle for ever; what is away is waited for, with no event in hand."""
    events: JetStreamContext.PullSubscription | None = None
    forget_at = 0.0
    while True:
        try:
            if events is None:
                await database.execute(SCHEMA)
                events = await bind(client, durable, domain)
            if time.monotonic() >= forget_at:
                await database.execute(FORGET, KEPT)
                forget_at = time.monotonic() + FORGET_EVERY_S
            for message in await fetch(events):
                await handle(database, message)
        except (nats.errors.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            print("waiting:", repr(error))  # An event in hand comes again after 30 s.
            events = None
            await asyncio.sleep(1)


async def report(error: Exception) -> None:  # Of the client of NATS, which goes on trying.
    print("NATS:", repr(error))


async def main(nats_url: str, postgres_url: str, durable: str, domain: str | None) -> None:
    client = await nats.connect(nats_url, name=durable, max_reconnect_attempts=-1, error_cb=report)
    async with asyncpg.create_pool(postgres_url, min_size=0, command_timeout=30) as database:
        await consume(client, database, durable, domain)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--nats", required=True)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--durable", default=DURABLE)
    parser.add_argument("--domain")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Leaving at once is as safe as being killed: what was not acknowledged comes again.
        signal.signal(number, lambda *_: os._exit(0))
    asyncio.run(main(arguments.nats, arguments.postgres, arguments.durable, arguments.domain))
