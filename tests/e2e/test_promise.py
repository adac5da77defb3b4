"""The promise, on the whole system and with real orders: nothing lost, nothing doubled, the books balance, whatever is
killed.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import nats
import pytest

from deploy.local.stack import COMMAND
from persistence.nats.stream import NAME
from tests.load import Buyers, ask_again
from tests.local_system import Local

DATA = Path(__file__).parents[3] / "shared" / "data" / "online_retail.csv.gz"
ACCEPTED, REFUSED, CANCELLATIONS, LINES, UNITS, PENCE = 1873, 85, 384, 49_054, 438_702, 95_607_071
TOTALS = """
select (select count(*) from orders) as orders, count(*) as lines, sum(quantity)::bigint as units,
    (select sum(total)::bigint from orders) as value from order_lines
"""


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    made = Local(tmp_path)
    made.up()
    yield made
    made.run("down")
    made.folder.wipe()


@pytest.fixture
def online_retail() -> Path:
    if not DATA.exists():
        print(f"ABSENT: {DATA}: the real orders are not here, so nothing about them is tested")
        pytest.skip(f"the real orders are not here: {DATA}")
    return DATA


def ready_audit(local: Local) -> dict[str, Any]:
    """The audit's report, once the outbox is empty."""
    while True:
        done = local.run("audit", "--json")
        report: dict[str, Any] = json.loads(done.stdout)
        assert report["clean"] == (done.returncode == 0)
        if not report["clean"] or not report["totals"]["outbox"]:
            return report
        time.sleep(0.2)


def query(local: Local, text: str) -> asyncpg.Record:
    async def fetch() -> asyncpg.Record:
        connection = await asyncpg.connect(local.status()["postgres"])
        try:
            return (await connection.fetch(text))[0]
        finally:
            await connection.close()

    return asyncio.run(fetch())


def created_events(local: Local) -> list[str]:
    """The order ids of all order.created events in the stream."""

    async def fetch() -> list[str]:
        client = await nats.connect(local.status()["nats"])
        context = client.jetstream()
        state = (await context.stream_info(NAME)).state
        subscription = await context.subscribe("orders.>", ordered_consumer=True)
        messages = [await subscription.next_msg(timeout=10) for _ in range(state.messages)]
        await client.close()
        events = [json.loads(message.data) for message in messages]
        return [event["subject"] for event in events if event["type"] == "com.floodgate.order.created.v1"]

    return asyncio.run(fetch())


def replay(local: Local, file: Path) -> dict[str, Any]:
    done = local.run("replay", str(file), "--channel", "online-retail", "--prepare", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def assert_all_real_orders_are_there_once(local: Local) -> None:
    assert ready_audit(local)["clean"]
    assert tuple(query(local, TOTALS)) == (ACCEPTED, LINES, UNITS, PENCE)
    events = created_events(local)
    assert len(events) == len(set(events)) == ACCEPTED


@pytest.mark.timeout(300)
def test_replay_of_real_orders_is_exact_and_the_second_run_changes_nothing(local: Local, online_retail: Path) -> None:
    first = replay(local, online_retail)
    assert (first["accepted"], first["replayed"], first["refused"]) == (ACCEPTED, 0, REFUSED)
    assert (first["cancellations"], first["lines"], first["units"], first["value"]) == (
        CANCELLATIONS,
        LINES,
        UNITS,
        PENCE,
    )
    assert_all_real_orders_are_there_once(local)
    second = replay(local, online_retail)
    assert (second["accepted"], second["replayed"], second["refused"]) == (0, ACCEPTED, REFUSED)
    assert_all_real_orders_are_there_once(local)


@pytest.mark.timeout(300)
def test_replay_killed_with_everything_else_can_be_finished(local: Local, online_retail: Path) -> None:
    arguments = ["replay", str(online_retail), "--channel", "online-retail", "--prepare", "--json"]
    command = [*COMMAND, *arguments, "--data", str(local.folder.path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as replaying:
        while query(local, "select count(*) from orders")[0] < ACCEPTED // 4:
            assert replaying.poll() is None
        local.kill_everything()
        replaying.kill()
    local.up()
    report = replay(local, online_retail)
    assert report["replayed"] >= ACCEPTED // 4
    assert report["accepted"] + report["replayed"] == ACCEPTED
    assert_all_real_orders_are_there_once(local)


@pytest.mark.timeout(200)
def test_load_with_everything_killed_keeps_every_answered_order_once_with_its_event(local: Local) -> None:
    report = local.status()
    buyers = Buyers(report["http"], report["token"], "TEA-001", together=32, run="load")

    async def load() -> None:
        buying = asyncio.create_task(buyers.buy())
        while len(buyers.history.accepted) < 1000:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(local.kill_everything)
        buyers.stop()
        await buying

    asyncio.run(load())
    local.up()
    report = local.status()
    history = buyers.history
    again = asyncio.run(
        ask_again(report["http"], report["token"], "TEA-001", set(list(history.accepted)[-20:]) | history.unknown)
    )
    assert again.unknown == set()
    assert again.refused == {}
    assert ready_audit(local)["clean"]
    stored = set(map(str, query(local, "select array_agg(order_id) from orders")[0]))
    assert stored == history.order_ids() | again.order_ids()
    events = created_events(local)
    assert len(events) == len(set(events))
    assert set(events) == stored
