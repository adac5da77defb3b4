"""The common times of rates on a real server: charges add up, times pass, keys go, and whatever else the server says or
does not say raises MirrorUnavailableError and nothing else. And on a cluster, where all keys are one node's.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from deploy.local.servers import ValkeyServer
from persistence.errors import MirrorUnavailableError
from persistence.redis.rates import CALL_KEYS_MAX, PREFIX, Charge, RateStore
from tests.mirror_world import PATIENT_S, killed, silent
from tests.redis_cluster import NODES, SLOTS, RedisCluster

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
KEY = bytes(range(16))
SLACK_US = 30 * SECOND_US  # what a busy machine may take between two calls


@asynccontextmanager
async def opened(url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[RateStore]:
    store = RateStore(url, timeout_s)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(redis_url):
    async with opened(redis_url) as store:
        yield store


async def charge(
    store: RateStore, charged_us: int, *, age_us: int = 0, most_us: int = 16 * DAY_US, key: bytes = KEY
) -> int:
    (ahead_us,) = await store.charge([Charge(key, charged_us, age_us, most_us)])
    assert ahead_us is not None
    return ahead_us


async def until_charged(store: RateStore, charges: list[Charge]) -> list[int | None]:
    """Charge until every server answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                ahead = await store.charge(charges)
            except MirrorUnavailableError:
                ahead = [None]
            if None not in ahead:
                return ahead
            await asyncio.sleep(0.02)


def keys(count: int) -> list[bytes]:
    return [number.to_bytes(2, "little") + bytes(14) for number in range(count)]


async def test_charge_of_an_unused_rate_is_ahead_by_what_was_charged(store: RateStore):
    assert await charge(store, 3 * SECOND_US) == 3 * SECOND_US


async def test_charge_adds_up_over_workers_while_time_passes(store: RateStore, redis_url):
    async with opened(redis_url) as other:
        await charge(store, DAY_US)
        ahead_us = await charge(other, DAY_US)
    assert 2 * DAY_US - SLACK_US <= ahead_us <= 2 * DAY_US
    assert await charge(store, 0) <= ahead_us


async def test_charge_counts_from_its_first_moment(store: RateStore):
    assert await charge(store, 5 * SECOND_US, age_us=2 * SECOND_US) == 3 * SECOND_US
    assert await charge(store, SECOND_US, age_us=4 * SECOND_US, key=bytes(16)) == -3 * SECOND_US


async def test_charge_of_a_rate_in_use_counts_after_what_is_there(store: RateStore):
    await charge(store, DAY_US)
    assert await charge(store, SECOND_US, age_us=DAY_US) > DAY_US - SLACK_US


async def test_charge_never_gets_further_ahead_than_told(store: RateStore, redis_url):
    assert await charge(store, 5 * SECOND_US, most_us=2 * SECOND_US) == 2 * SECOND_US
    async with Redis.from_url(redis_url) as client:
        (key,) = await client.keys("*")
        await client.set(key, f"{'9' * 16} 0")
    assert await charge(store, SECOND_US, most_us=2 * SECOND_US) == 2 * SECOND_US


async def test_charge_after_the_clock_was_stepped_back_goes_on_where_it_stood(store: RateStore, redis_url):
    await charge(store, 5 * SECOND_US)
    async with Redis.from_url(redis_url) as client:
        (key,) = await client.keys("*")
        stored = await client.get(key)
        assert stored is not None
        due, written = map(int, stored.split())
        await client.set(key, f"{due + DAY_US} {written + DAY_US}")  # As it is to a clock that is a day behind.
    assert await charge(store, SECOND_US) == 6 * SECOND_US


async def test_charge_of_the_longest_burst_is_exact(store: RateStore):
    ahead_us = 16 * DAY_US
    assert await charge(store, ahead_us, most_us=ahead_us) == ahead_us


async def test_charge_leaves_a_key_that_goes_once_its_time_has_passed(store: RateStore, redis_url):
    await charge(store, 60 * SECOND_US)
    async with Redis.from_url(redis_url) as client:
        (key,) = await client.keys("*")
        assert key == PREFIX + KEY.hex().encode()
        assert 30_000 < await client.pttl(key) <= 61_000


async def test_charge_of_many_keys_keeps_them_apart(store: RateStore):
    count = 2 * CALL_KEYS_MAX + 1
    found = await store.charge([Charge(key, at * 1000, 0, DAY_US) for at, key in enumerate(keys(count))])
    assert found == [at * 1000 for at in range(count)]


@pytest.mark.parametrize("stored", ["", "soon", "nan", "-5", "1e99", "5", "5 ", "x 5", "5 -5"])
async def test_charge_of_a_key_that_holds_nonsense_starts_anew(store: RateStore, redis_url, stored: str):
    await charge(store, 0)
    async with Redis.from_url(redis_url) as client:
        (key,) = await client.keys("*")
        await client.set(key, stored)
    assert await charge(store, SECOND_US) == SECOND_US


async def test_charge_where_one_key_is_of_another_kind_tells_what_other_calls_have(store: RateStore, redis_url):
    charges = [Charge(key, SECOND_US, 0, DAY_US) for key in keys(CALL_KEYS_MAX + 1)]
    async with Redis.from_url(redis_url) as client:
        await client.lpush(PREFIX + charges[0].key.hex().encode(), "x")
    *others, last = await store.charge(charges)
    assert (set(others), last) == ({None}, SECOND_US)
    with pytest.raises(MirrorUnavailableError):
        await store.charge(charges[:1])


async def test_charge_after_the_server_has_forgotten_the_script_works(store: RateStore, redis_url):
    await charge(store, SECOND_US)
    async with Redis.from_url(redis_url) as client:
        await client.script_flush()
    assert await charge(store, SECOND_US) > SECOND_US - SLACK_US


async def test_charge_while_the_server_is_gone_is_unavailable_and_works_when_it_is_back(
    store: RateStore, valkey_server: ValkeyServer
):
    await charge(store, DAY_US)
    with killed(valkey_server), pytest.raises(MirrorUnavailableError):
        await charge(store, DAY_US)
    assert await until_charged(store, [Charge(KEY, SECOND_US, 0, DAY_US)]) == [SECOND_US]


async def test_charge_while_the_server_is_silent_is_unavailable(redis_url, valkey_server: ValkeyServer):
    async with opened(redis_url, 0.25) as store:
        await until_charged(store, [Charge(KEY, 0, 0, 0)])
        with silent(valkey_server), pytest.raises(MirrorUnavailableError):
            await charge(store, SECOND_US)
        await until_charged(store, [Charge(KEY, 0, 0, 0)])


async def test_charge_on_a_cluster_works_while_the_node_of_its_keys_does(
    redis_cluster_url, redis_cluster: RedisCluster
):
    charges = [Charge(key, at * 1000, 0, DAY_US) for at, key in enumerate(keys(2 * CALL_KEYS_MAX))]
    own = key_slot(PREFIX) * NODES // SLOTS
    async with opened(redis_cluster_url) as store:
        assert await until_charged(store, charges) == [at * 1000 for at in range(len(charges))]
        with killed(redis_cluster.nodes[own - 1]):
            await until_charged(store, charges)
        with killed(redis_cluster.nodes[own]), pytest.raises(MirrorUnavailableError):
            await store.charge(charges)
        await until_charged(store, charges)
