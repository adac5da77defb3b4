"""Rates over several workers on a real server: together they hold the rate of one, also through changed rules; with
Redis away each holds it by itself.

Time is the machine's here: what was admitted is compared with what the time that has passed allows.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import msgspec
import pytest
from redis.asyncio import Redis

from deploy.local.servers import ValkeyServer
from gateway import api, app
from gateway.domain.access import Client
from gateway.domain.keys import Hasher
from gateway.live import document_of
from gateway.metrics import Counters
from gateway.rates import Allowance, Rates
from gateway.settings import RateRule
from persistence.postgres import live_settings
from persistence.redis.rates import RateStore
from tests.api import call
from tests.mirror_world import PATIENT_S, killed
from tests.worker_world import Shop, World, code_of, eventually, open_world, order

SHOP = Client(7, "shop", frozenset(), frozenset())
RUN_S = 3.0
ASK_AGAIN_S = 0.002


class Noting(Rates):
    """Notes the longest time that it has not heard of the others."""

    longest_s = 0.0
    _heard_at = float("inf")

    async def exchange(self) -> None:
        await super().exchange()
        now = time.monotonic()
        self.longest_s, self._heard_at = max(self.longest_s, now - self._heard_at), now


class Limited:
    """The limiters of workers that share a Redis, each with its loop, and who asks them."""

    def __init__(self, workers: list[Noting]) -> None:
        self.workers = workers
        self.admitted = 0

    @property
    def longest_s(self) -> float:
        return max(worker.longest_s for worker in self.workers)

    async def ask(self, seconds: float, each: int = 3) -> float:
        """Ask every worker again and again, at least once; returns how long it was."""
        started, passed_s = time.monotonic(), 0.0
        self._ask_once(each)
        while passed_s < seconds:
            await asyncio.sleep(ASK_AGAIN_S)
            self._ask_once(each)
            passed_s = time.monotonic() - started
        return passed_s

    def _ask_once(self, each: int) -> None:
        for worker in self.workers:
            allowance = worker.of(SHOP)
            assert allowance is not None
            self.admitted += sum(allowance.refusal() is None for _ in range(each))


@asynccontextmanager
async def limited(redis_url: str, rule: RateRule, workers: int) -> AsyncIterator[Limited]:
    made = [
        Noting(lambda _: rule, Hasher(bytes(32)), RateStore(redis_url, PATIENT_S), Counters()) for _ in range(workers)
    ]
    loops = [asyncio.create_task(rates.run()) for rates in made]
    try:
        yield Limited(made)
    finally:
        for loop in loops:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop


@pytest.mark.parametrize(("workers", "per_s", "burst"), [(1, 200.0, 50), (2, 200.0, 50), (4, 80.0, 20)])
async def test_workers_together_hold_the_rate_of_one(redis_url, workers: int, per_s: float, burst: int):
    async with limited(redis_url, RateRule("shop", per_s, burst), workers) as limiters:
        passed_s = await limiters.ask(RUN_S)
        assert not any(worker.alone for worker in limiters.workers)
    beyond = (workers - 1) * (burst + per_s * limiters.longest_s)
    assert limiters.admitted <= burst + per_s * passed_s + beyond
    assert limiters.admitted >= per_s * passed_s * 0.95


async def test_workers_that_were_asked_in_turn_owe_what_they_gave_together(redis_url):
    async with limited(redis_url, RateRule("shop", requests_per_s=0.001, burst=4), 2) as limiters:
        for _ in range(2):  # A worker hears of the others when it tells; then each knows what both have given.
            await limiters.ask(0.0, each=10)
            for worker in limiters.workers:
                await worker.exchange()
        assert limiters.admitted == 8
        await limiters.ask(1.0)
        assert limiters.admitted == 8


async def test_workers_while_redis_is_gone_hold_the_rate_each_and_together_again_afterwards(
    redis_url, valkey_server: ValkeyServer
):
    per_s, burst = 100.0, 10
    async with limited(redis_url, RateRule("shop", per_s, burst), 2) as limiters:
        await limiters.ask(0.5)
        with killed(valkey_server):
            await eventually("the workers notice", lambda: alone(limiters, all_of_them=True))
            limiters.admitted = 0
            passed_s = await limiters.ask(2.0)
            assert per_s * passed_s * 0.9 <= limiters.admitted <= 2 * (burst + per_s * passed_s)
        await eventually("the workers are heard", lambda: alone(limiters, all_of_them=False))
        limiters.admitted = 0
        passed_s = await limiters.ask(2.0)
        assert limiters.admitted <= 2 * burst + per_s * (passed_s + limiters.longest_s)


async def alone(limiters: Limited, *, all_of_them: bool) -> bool:
    """Whether all workers are alone, or none is. They have to be asked meanwhile: who admits nothing tells nothing."""
    await limiters.ask(0.0)
    return all(worker.alone is all_of_them for worker in limiters.workers)


@pytest.fixture
async def world(postgres_url, nats_url, redis_url, monkeypatch):
    monkeypatch.setattr(app, "RateStore", partial(RateStore, timeout_s=PATIENT_S))
    async with open_world(postgres_url, nats_url, redis_url) as world:
        await world.product(units=1000)
        yield world
        await world.assert_clean()


def rate(**rule: Any) -> list[dict[str, Any]]:
    return [{"client": "sh*"} | rule]


async def statuses(shops: list[Shop], count: int, customer_id: str, run: str) -> list[int]:
    places = zip(range(count), itertools.cycle(shops), strict=False)
    body = order(customer_id=customer_id)
    return [(await shop.place(f"{run}-{number}", body)).status for number, shop in places]


async def test_workers_know_of_each_others_requests_by_way_of_redis(world: World, redis_url):
    rules = rate(requests_per_s=0.001, burst=6)
    shops = [await world.shop(limits__rate=rules) for _ in range(2)]
    assert await statuses(shops[:1], 4, "u-1", "a") == [201] * 4
    await told(redis_url, orders=4)
    assert await statuses(shops[1:], 1, "u-1", "b") == [201]  # Only what is told is answered, and then it has heard.

    async def has_heard() -> bool:
        return left(shops[1]) == 1

    await eventually("the other worker has heard", has_heard)
    assert await statuses(shops[1:], 2, "u-1", "c") == [201, 429]


def allowance_of(shop: Shop) -> Allowance | None:
    client = shop.services.access.find(f"Bearer {shop.token}".encode(), 0.0)
    assert client is not None
    return shop.services.rates.of(client)


def left(shop: Shop) -> int:
    """How many requests the client of the test may send at once, as the worker sees it."""
    allowance = allowance_of(shop)
    assert allowance is not None
    shown = dict(allowance.headers())[b"ratelimit"]
    return int(shown.partition(b";r=")[2].partition(b";")[0])


async def told(redis_url: str, orders: int) -> None:
    """Wait until Redis has been told of so many, each of which lasts for 1000 s."""

    async def is_told() -> bool:
        async with Redis.from_url(redis_url) as client:
            lasts_ms = [await client.pttl(key) for key in await client.keys("fg:{rate}:*")]
            return any(last_ms > (orders * 1000 - 500) * 1000 for last_ms in lasts_ms)

    await eventually("Redis was told", is_told)


async def test_customer_is_limited_on_whichever_worker_he_orders(world: World, redis_url):
    rules = rate(customer_requests_per_s=0.001, customer_burst=2)
    shops = [await world.shop(limits__rate=rules) for _ in range(2)]
    assert await statuses(shops[:1], 3, "张三", "a") == [201, 201, 429]
    await told(redis_url, orders=2)
    assert await statuses(shops[:1], 2, "李四", "b") == [201, 201]
    assert await statuses(shops[1:], 1, "张三", "c") == [201]  # It has not heard yet.
    await eventually("the other worker has heard", lambda: is_refused(shops[1], "张三"))
    async with Redis.from_url(redis_url) as client:
        keys = await client.keys("*")
        assert not any("张三".encode() in key or "张三".encode().hex().encode() in key for key in keys)


async def is_refused(shop: Shop, customer_id: str) -> bool:
    """Found out by another order of the customer."""
    return (await statuses([shop], 1, customer_id, f"again-{time.monotonic_ns()}")) == [429]


async def test_worker_follows_a_changed_rate(world: World):
    shop = await world.shop(limits__rate=rate(requests_per_s=0.001, burst=1))
    assert await statuses([shop], 2, "u-1", "a") == [201, 429]
    await apply(world, rate(requests_per_s=0.001, burst=3))

    async def admits() -> bool:
        return (await shop.place("b", order())).status == 201

    await eventually("the new rate is in force", admits)
    await apply(world, [])
    await eventually("no rate is in force", lambda: unlimited(shop))
    assert await statuses([shop], 10, "u-1", "c") == [201] * 10


async def apply(world: World, rules: list[dict[str, Any]]) -> None:
    """Make the rules the next version of the live settings."""
    async with world.pool.acquire() as connection:
        _, now = await live_settings.current(connection)
        document = document_of(world.settings(limits__rate=rules))
        version = now.version if now else 0
        assert await live_settings.apply(connection, document, "test", None, version) is not None


async def unlimited(shop: Shop) -> bool:
    return allowance_of(shop) is None


async def test_worker_without_redis_limits_and_says_so(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=100)
        shop = await world.shop(limits__rate=rate(requests_per_s=0.001, burst=2))
        assert await statuses([shop], 3, "u-1", "a") == [201, 201, 429]
        refused = await shop.place("b", order())
        assert code_of(refused) == "rate_limited"
        assert msgspec.json.decode(refused.body)["violated_policies"] == ["client"]

        token = await scraper(world)

        async def says_so() -> bool:
            text = (await call(api.create(shop.services), "GET", "/metrics", token=token)).body
            return b'floodgate_rates_alone{worker="0"} 1.0' in text and b"floodgate_requests_limited_total 2.0" in text

        await eventually("the metrics say so", says_so)


async def scraper(world: World) -> str:
    """The token of a client without a rule."""
    return await world.client(f"metrics-{time.monotonic_ns()}")
