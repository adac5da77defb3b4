"""A model consumer of Floodgate's events: copy it and change `apply`.

It counts what was sold of each SKU in a database of your own. It loses no event and counts none twice, whatever is
killed or cut: it acknowledges an event after committing its effect and its id in one transaction. Any number may run
at once. What fails ten times is put aside in the table `dead_letter`.

    pip install asyncpg nats-py
    python consumer.py --nats nats://127.0.0.1:4222 --postgres postgresql://me@127.0.0.1/mine
"""

import argparse
import asyncio
import json
import os
import signal
from typing import Any

import asyncpg
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

DURABLE = "example-sales"  # One name per team: all processes with this name share the work.
CONFIG = ConsumerConfig(durable_name=DURABLE, filter_subject="orders.created.>", ack_policy=AckPolicy.EXPLICIT)
ATTEMPTS_MAX = 10
SCHEMA = """
create table if not exists seen_event (event_id text primary key, seen_at timestamptz not null default now());
create table if not exists sku_sales (sku text primary key, units bigint not null, value bigint not null);
create table if not exists dead_letter (event_id text primary key, event text not null, error text not null);
delete from seen_event where seen_at < now() - interval '8 days';  -- the stream keeps events for 7 days
"""
COUNT = """insert into sku_sales values ($1, $2, $3) on conflict (sku) do update
           set units = sku_sales.units + excluded.units, value = sku_sales.value + excluded.value"""
REMEMBER = "insert into seen_event (event_id) values ($1) on conflict do nothing returning true"
LETTER = "insert into dead_letter values ($1, $2, $3) on conflict do nothing"


async def apply(database: asyncpg.Connection, event: dict[str, Any]) -> None:
    """The effect of one event. Runs inside the transaction that remembers the event's id."""
    rows = [(item["sku"], item["quantity"], item["amount"]) for item in event["data"]["items"]]
    await database.executemany(COUNT, sorted(rows))  # Locks in one order: no deadlocks.


async def handle(database: asyncpg.Pool, message: Msg) -> None:
    """Count an event once, then acknowledge it. A lost acknowledgement only brings it again."""
    try:
        event = json.loads(message.data)
        async with database.acquire() as connection, connection.transaction():
            if await connection.fetchval(REMEMBER, event["id"]):
                await apply(connection, event)
    except (ValueError, KeyError, TypeError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
        await set_aside(database, message, error)
    else:
        await message.ack()
        print("counted:", event["id"])


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
    except nats.errors.TimeoutError:
        await events.consumer_info()
        return []


async def consume(client: Client, database: asyncpg.Pool) -> None:
    """Fetch and handle for ever; what is away is waited for, with no event in hand."""
    events: JetStreamContext.PullSubscription | None = None
    while True:
        try:
            if events is None:
                await database.execute(SCHEMA)
                await client.jetstream().add_consumer("ORDERS", CONFIG)
                events = await client.jetstream().pull_subscribe_bind(DURABLE, stream="ORDERS")
            for message in await fetch(events):
                await handle(database, message)
        except (nats.errors.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            print("waiting:", repr(error))  # An event in hand comes again after 30 s.
            events = None
            await asyncio.sleep(1)


async def report(error: Exception) -> None:  # Of the client of NATS, which goes on trying.
    print("NATS:", repr(error))


async def main(nats_url: str, postgres_url: str) -> None:
    client = await nats.connect(nats_url, name=DURABLE, max_reconnect_attempts=-1, error_cb=report)
    async with asyncpg.create_pool(postgres_url, min_size=0, command_timeout=30) as database:
        await consume(client, database)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--nats", required=True)
    parser.add_argument("--postgres", required=True)
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Leaving at once is as safe as being killed: what was not acknowledged comes again.
        signal.signal(number, lambda *_: os._exit(0))
    asyncio.run(main(arguments.nats, arguments.postgres))
