"""A crowd that presses *buy* before and after the start of a sale, over two workers: nobody buys early, by PostgreSQL's
clock, and the sale's units are sold exactly.
"""

import asyncio
import datetime as dt
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from core_ext.times import ms_of
from persistence.postgres.audit import audit
from tests.load import ANSWER_TIMEOUT_S
from tests.served import Served

UNITS = 3000
EARLY = 20_000
LATE = 5000
TOGETHER = 64
ASKED = 16  # new connections: one of two workers is missed with a chance of 1 in 32,000
SALE = "/v1/sales/double-11"


@pytest.fixture
async def served(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url, redis_url)
    await gateway.prepare({"FLASH": 10})
    await gateway.start(workers=2)
    yield gateway
    await gateway.close()


class Crowd:
    """TOGETHER buyers over one client; every press is an attempt of its own. `told` counts what they heard in the end.
    Who is asked to come back, since the units were in other hands for long, presses the same button again.
    """

    def __init__(self, served: Served, client: aiohttp.ClientSession) -> None:
        self._served = served
        self._client = client
        self._numbers = itertools.count(1)
        self.told: Counter[str] = Counter()

    @property
    def late(self) -> int:
        return self.told.total() - self.told["sale_not_open"]

    async def press(self) -> None:
        while self.late < LATE:
            number = next(self._numbers)
            item = {"sku": "FLASH", "quantity": 1}
            body = {"channel": "app", "currency": "CNY", "sale_id": "double-11", "items": [item]}
            self.told[await self._hear(body, {"Idempotency-Key": f"press-{number}"})] += 1

    async def _hear(self, body: dict[str, Any], headers: dict[str, str]) -> str:
        """What one attempt comes to: `accepted`, or the code of a refusal that does not ask to come back."""
        while True:
            async with self._client.post(f"{self._served.url}/v1/orders", json=body, headers=headers) as answer:
                document = await answer.json(content_type=None)
            if answer.status == 201:
                return "accepted"
            if document["code"] != "stock_returning":
                return str(document["code"])
            await asyncio.sleep(0.05)

    async def put(self, starts_in_s: float) -> dt.datetime:
        """Make the sale start so long from now, by PostgreSQL's clock."""
        (row,) = await self._served.fetch("select clock_timestamp()")
        starts_at: dt.datetime = row[0] + dt.timedelta(seconds=starts_in_s)
        sale: dict[str, Any] = {
            "title": "Double 11",
            "starts_at": starts_at.isoformat(),
            "ends_at": (starts_at + dt.timedelta(hours=1)).isoformat(),
            "items": [{"sku": "FLASH", "price": 100, "units": UNITS}],
        }
        async with self._client.put(self._served.url + SALE, json=sale) as answer:
            assert answer.status in {200, 201}, await answer.text()
        return starts_at

    async def start_after(self, presses: int) -> dt.datetime:
        """Let the sale start soon after so many have pressed too early."""
        while self.told["sale_not_open"] < presses:
            await asyncio.sleep(0.01)
        return await self.put(starts_in_s=1.5)


@pytest.mark.timeout(180)
async def test_sale_crowd_buys_nothing_before_the_start_and_exactly_the_units_after_it(served: Served) -> None:
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    connector = aiohttp.TCPConnector(limit=TOGETHER + 1)
    headers = {"Authorization": f"Bearer {served.token}"}
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as client:
        crowd = Crowd(served, client)
        await crowd.put(starts_in_s=3600)
        # A worker that does not know the sale yet says `invalid`, one that knows of no sales yet `ledger_away`.
        while {await ask(client, served) for _ in range(ASKED)} != {"sale_not_open"}:
            await asyncio.sleep(0.05)
        pressing = [asyncio.create_task(crowd.press()) for _ in range(TOGETHER)]
        starts_at = await crowd.start_after(EARLY)
        await asyncio.gather(*pressing)
    assert crowd.told["sale_not_open"] >= EARLY
    assert crowd.told["accepted"] == UNITS
    assert set(crowd.told) == {"sale_not_open", "accepted", "sold_out"}
    ((first, count),) = await served.fetch("select min(created_at), count(*) from orders")
    assert count == UNITS
    assert ms_of(first) >= ms_of(starts_at)
    print(f"the first order {(first - starts_at) / dt.timedelta(milliseconds=1):.1f} ms after the start")
    assert (await audit(served.postgres_url)).clean


async def ask(client: aiohttp.ClientSession, served: Served) -> str:
    """The code that whichever worker gets a new connection gives before the start."""
    item = {"sku": "FLASH", "quantity": 1}
    body = {"channel": "app", "currency": "CNY", "sale_id": "double-11", "items": [item]}
    headers = {"Idempotency-Key": "probe", "Connection": "close"}
    async with client.post(f"{served.url}/v1/orders", json=body, headers=headers) as answer:
        return str((await answer.json(content_type=None))["code"])
