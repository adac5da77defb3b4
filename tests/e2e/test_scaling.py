"""One SKU under full load while its shards and the number of workers change: every unit finds its buyer."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from persistence.postgres.audit import audit
from tests.load import Buyers, ask_again
from tests.served import Served

UNITS = 100_000
QUANTITY = 5
TOGETHER = 64
BUYERS = UNITS // QUANTITY + 500


@pytest.fixture
async def served(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url, redis_url)
    await gateway.prepare({"HOT": UNITS})
    yield gateway
    await gateway.close()


async def reshard(served: Served, shards: int) -> None:
    headers = {"Authorization": f"Bearer {served.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as client,
        client.patch(f"{served.url}/v1/stock/HOT", json={"shards": shards}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def until_sold(served: Served, orders: int) -> None:
    while (await served.fetch("select count(*) from orders"))[0][0] < orders:
        await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_scaling_of_shards_and_workers_under_load_sells_every_unit(served: Served) -> None:
    await served.start(workers=1)
    await reshard(served, 1)
    buyers = Buyers(served.url, served.token, "HOT", together=TOGETHER, run="scale", orders=BUYERS, quantity=QUANTITY)
    buying = asyncio.create_task(buyers.buy())
    step = BUYERS // 10
    for number, change in enumerate((signal.SIGTTIN, 16, signal.SIGTTIN, signal.SIGTTOU, 3, signal.SIGTTOU), 1):
        await until_sold(served, number * step)
        if isinstance(change, signal.Signals):
            served.signal(change)
        else:
            await reshard(served, change)
    history = await buying
    # A worker that goes may take connections with it, unanswered; and orders may have been told to come back.
    returning = {key for key, code in history.refused.items() if code != "sold_out"} | history.unknown
    again = await ask_again(served.url, served.token, "HOT", returning, QUANTITY)
    assert again.unknown == set()
    refused = Counter(history.refused[key] for key in history.refused.keys() - returning) + Counter(
        again.refused.values()
    )
    assert refused == {"sold_out": BUYERS - UNITS // QUANTITY}
    assert len(history.order_ids() | again.order_ids()) == UNITS // QUANTITY
    assert (await served.fetch("select shards from stock_sku"))[0][0] == 3
    assert (await audit(served.postgres_url)).clean
    assert len(served.workers()) == 1
    assert await served.stop() == 0, served.log()
    assert await served.fetch("select 1 from stock_lease where state = 'active'") == []
