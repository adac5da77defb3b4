"""Rates over two served workers behind one port: together they let through what one would, tell everybody else when to
come again, and follow a changed rule.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.live import document_of
from gateway.settings import load
from persistence.postgres import live_settings
from persistence.postgres.audit import audit
from persistence.postgres.connect import connect
from tests.load import order
from tests.served import Served

PER_S, BURST = 60, 20
BUYERS = 12
RUN_S = 6.0
PAUSE_S = 0.02  # of a buyer who was refused: much less than he was told
UNHEARD_S = 1.0  # for which a worker of a busy machine may not hear of the other one


@pytest.fixture
async def served(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url, redis_url)
    await gateway.prepare({"A": 100_000})
    await apply(gateway, [{"client": "buyers", "requests_per_s": PER_S, "burst": BURST}])
    await gateway.start(workers=2)
    yield gateway
    await gateway.close()


async def apply(served: Served, rules: list[dict[str, Any]]) -> None:
    """Make the rules the next version of the live settings."""
    connection = await connect(served.postgres_url, "test")
    try:
        _, now = await live_settings.current(connection)
        document = document_of(load(environ={}, flags={"limits.rate": rules}))
        await live_settings.apply(connection, document, "test", None, now.version if now else 0)
    finally:
        await connection.close()


class Crowd:
    """Buyers who never heed what they are told; what they were answered."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.accepted = 0
        self.refused: list[tuple[str | None, str | None, dict[str, Any]]] = []
        self.shown: set[str | None] = set()

    async def buy(self, seconds: float) -> float:
        """Returns how long it was."""
        started = time.monotonic()
        await asyncio.gather(*(self._buy(number, started + seconds) for number in range(BUYERS)))
        return time.monotonic() - started

    async def _buy(self, number: int, until: float) -> None:
        headers = {"Authorization": f"Bearer {self._served.token}"}
        async with aiohttp.ClientSession(self._served.url, headers=headers) as session:
            while time.monotonic() < until:
                await self._place(session, f"k-{number}-{time.monotonic_ns()}")

    async def _place(self, session: aiohttp.ClientSession, key: str) -> None:
        async with session.post("/v1/orders", json=order("A"), headers={"Idempotency-Key": key}) as answer:
            self.shown.add(answer.headers.get("RateLimit-Policy"))
            if answer.status == 201:
                self.accepted += 1
                return
            assert answer.status == 429, await answer.text()
            document = await answer.json(content_type=None)
            self.refused.append((answer.headers.get("Retry-After"), answer.headers.get("RateLimit"), document))
        await asyncio.sleep(PAUSE_S)


async def test_workers_let_through_what_one_would_and_tell_when_to_come_again(served: Served) -> None:
    crowd = Crowd(served)
    passed_s = await crowd.buy(RUN_S)
    assert crowd.accepted <= 2 * BURST + PER_S * (passed_s + UNHEARD_S)
    assert crowd.accepted >= PER_S * passed_s * 0.95
    assert crowd.shown == {f'"client";q={PER_S};w=1'}
    for retry_after, standing, document in crowd.refused:
        assert retry_after is not None
        assert int(retry_after) >= 1
        assert standing == f'"client";r=0;t={retry_after}'
        assert (document["code"], document["violated_policies"]) == ("rate_limited", ["client"])
    assert (await served.fetch("select count(*) as n from orders"))[0]["n"] == crowd.accepted
    assert (await audit(served.postgres_url)).clean


async def test_workers_follow_a_rule_that_is_taken_away(served: Served) -> None:
    crowd = Crowd(served)
    await crowd.buy(1.0)
    assert crowd.refused
    await apply(served, [])
    async with asyncio.timeout(30):
        while crowd.shown != {None}:
            crowd = Crowd(served)
            await crowd.buy(0.2)
    assert crowd.accepted
