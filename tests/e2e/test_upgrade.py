"""A rolling upgrade while orders flow, and the way back: the former release and this one sell side by side on one
ledger. Nothing is lost, doubled or oversold, and a key means the same to both.

The former release is the tree of a commit of this repository, run with the readable twins of its compiled modules.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import asyncpg
import nats
import pytest

from gateway.domain.access import SCOPES, token_hash
from persistence.nats.stream import NAME
from persistence.postgres import migrate
from persistence.postgres.audit import audit
from tests.load import Buyers, History, ask_again
from tests.served import Served

ROOT = Path(__file__).parents[2]
FORMER = "132a19f"  # the last commit on schema 0006
PLENTY, FEW = 1_000_000, 60
WAIT_S = 40.0
MORE = 60  # orders that have to come through before the next step
RETRYABLE = {"ledger_away", "stock_returning", "overloaded"}

PRODUCTS = """
insert into product (sku, title, price, currency, stocked, active, version, revision)
select t.sku, 'Goods ' || t.sku, 100, 'CNY', true, true, 1, 1 from unnest($1::text[]) t(sku)
"""
CLIENT = "insert into api_client (name, scopes, channels) values ('buyers', $1, '{*}') returning client_id"


class Former(Served):
    """A gateway of the former release."""

    def __init__(self, tree: Path, postgres_url: str, nats_url: str) -> None:
        super().__init__(postgres_url, nats_url)
        self.environment = {
            "PYTHONPATH": str(tree),
            "PYTHONDONTWRITEBYTECODE": "1",
            "FLOODGATE_CORE": "reference",
        }

    def spawn(self, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
        return super().spawn(*arguments, **self.environment, **changes)

    async def prepare(self, products: dict[str, int]) -> None:
        """By hand, since what this release writes is not for the former schema."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            await connection.execute(PRODUCTS, list(products))
            for sku, units in products.items():
                await connection.execute("select stock_set($1, $2, 4, 'test', null, null)", sku, units)
            client_id = await connection.fetchval(CLIENT, sorted(SCOPES))
            token = token_hash(self.token)
            await connection.execute("insert into api_token (token_hash, client_id) values ($1, $2)", token, client_id)
            await connection.execute("update revision set value = value + 1")
        finally:
            await connection.close()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the former release."""
    archive = subprocess.run(["git", "-C", ROOT, "archive", FORMER], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"commit {FORMER}, the former release, is not in this repository's history (a shallow clone?)")
    folder = tmp_path_factory.mktemp("former")
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return folder


@pytest.fixture
async def former(tree: Path, empty_postgres_url: str, nats_url: str) -> AsyncIterator[Former]:
    """On a ledger of the former schema, with a catalogue."""
    gateway = Former(tree, empty_postgres_url, nats_url)
    assert await ended(gateway.spawn("migrate")) == 0, gateway.log()
    await gateway.prepare({"A": PLENTY, "LAST": FEW})
    yield gateway
    await gateway.close()


@pytest.fixture
async def present(former: Former) -> AsyncIterator[Served]:
    """A gateway of this release, on the same servers."""
    gateway = Served(former.postgres_url, former.nats_url)
    gateway.token = former.token
    yield gateway
    await gateway.close()


async def ended(process: subprocess.Popen[bytes]) -> int:
    return await asyncio.to_thread(process.wait, WAIT_S)


@contextlib.asynccontextmanager
async def steward(gateway: Served) -> AsyncIterator[None]:
    """A steward of the gateway's release meanwhile."""
    process = gateway.spawn("steward")
    try:
        yield
        assert process.poll() is None, gateway.log()
    finally:
        process.terminate()
        await ended(process)


class Load:
    """Buyers at a gateway, and what they were told."""

    def __init__(self, gateway: Served, run: str) -> None:
        self._gateway = gateway
        self._buyers = Buyers(gateway.url, gateway.token, "A", together=6, run=run)
        self._task = asyncio.create_task(self._buyers.buy())
        self.history = self._buyers.history

    async def more(self) -> None:
        """Wait until so many more orders have come through."""
        wanted = len(self.history.accepted) + MORE
        await until(f"{MORE} more orders", lambda: len(self.history.accepted) >= wanted, self._gateway)

    async def end(self) -> History:
        self._buyers.stop()
        return await self._task


async def until(what: str, is_so: Callable[[], bool], gateway: Served) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not is_so():
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s: {what}\n{gateway.log()[-4000:]}") from None


async def assert_replays(gateway: Served, history: History) -> None:
    """The gateway answers these keys with the orders that they had made elsewhere."""
    some = dict(list(history.accepted.items())[-20:])
    again = await ask_again(gateway.url, gateway.token, "A", set(some))
    assert {key: json.loads(body)["order_id"] for key, body in again.accepted.items()} == {
        key: json.loads(body)["order_id"] for key, body in some.items()
    }


async def sell_out(*gateways: Served) -> list[History]:
    """Sell the last units over all gateways at once, to patient buyers."""
    crowds = [Buyers(g.url, g.token, "LAST", together=5, run=f"last-{n}") for n, g in enumerate(gateways)]
    tasks = [asyncio.create_task(crowd.buy()) for crowd in crowds]
    for crowd, gateway in zip(crowds, gateways, strict=True):
        refused = crowd.history.refused
        await until("it is sold out", partial(_is_sold_out, refused), gateway)
        crowd.stop()
    return list(await asyncio.gather(*tasks))


def _is_sold_out(refused: dict[str, str]) -> bool:
    return "sold_out" in refused.values()


async def created_events(nats_url: str, orders: int) -> list[str]:
    """The ids of the events of new orders in the stream, once there are so many."""
    client = await nats.connect(nats_url)
    try:
        context = client.jetstream()
        async with asyncio.timeout(WAIT_S):
            while (await context.stream_info(NAME)).state.messages < orders:
                await asyncio.sleep(0.05)
        subscription = await context.subscribe("orders.created.>", ordered_consumer=True)
        state = (await context.stream_info(NAME)).state
        messages = [await subscription.next_msg(timeout=10) for _ in range(state.messages)]
    finally:
        await client.close()
    return [(message.headers or {})["Nats-Msg-Id"] for message in messages]


def test_former_release_runs_from_its_own_tree(tree: Path, postgres_url: str, nats_url: str) -> None:
    former = Former(tree, postgres_url, nats_url)
    program = "import core_ext, gateway, persistence; print(core_ext.__file__, gateway.__file__, persistence.__file__)"
    environment = os.environ | former.environment
    shown = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, check=True)
    assert all(path.startswith(str(tree)) for path in shown.stdout.decode().split())


@pytest.mark.timeout(240)
async def test_upgrade_and_rollback_under_load_lose_double_and_oversell_nothing(
    former: Former, present: Served
) -> None:
    await former.start(workers=2)
    async with steward(former):
        before = Load(former, "former")
        await before.more()
        migrating = present.spawn("migrate")
        assert await ended(migrating) == 0, present.log()
        assert await former.fetch("select version_num from schema_version") == [(migrate.head(),)]
        await before.more()
        await present.start(workers=2)
        async with steward(present):
            beside = Load(present, "present")
            await asyncio.gather(before.more(), beside.more())
            await assert_replays(present, before.history)
            await assert_replays(former, beside.history)
            sold = await sell_out(former, present)
            stopping = asyncio.create_task(former.stop())
            histories = [await before.end()]
            assert await stopping == 0, former.log()
            await beside.more()
            # Back: the former release on the new schema, while this one still sells.
            await former.start(workers=1)
            back = Load(former, "back")
            await asyncio.gather(back.more(), beside.more())
            await assert_replays(former, beside.history)
            stopping = asyncio.create_task(present.stop())
            histories.append(await beside.end())
            assert await stopping == 0, present.log()
        await back.more()
        histories.append(await back.end())
        await assert_books(former, histories, sold)


async def assert_books(gateway: Served, histories: list[History], sold: list[History]) -> None:
    """What the buyers were told is in the ledger, and in the stream, once."""
    unknown = set[str]().union(*(history.unknown for history in histories))
    again = await ask_again(gateway.url, gateway.token, "A", unknown)
    assert again.accepted.keys() == unknown
    everyday = set[str]().union(*(history.order_ids() for history in (*histories, again)))
    last = [order_id for history in sold for order_id in history.order_ids()]
    assert len(set(last)) == len(last) == FEW
    stored = {str(row["order_id"]) for row in await gateway.fetch("select order_id from orders")}
    assert stored == everyday | set(last)
    refused = set[str]().union(*(history.refused.values() for history in histories))
    assert refused <= RETRYABLE, refused
    events = await created_events(gateway.nats_url, len(stored))
    assert len(events) == len(set(events))
    assert {event.partition(".")[0] for event in events} == stored
    report = await audit(gateway.postgres_url)
    assert report.clean, [finding for finding in report.findings if finding.count]
