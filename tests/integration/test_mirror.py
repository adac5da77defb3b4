"""The mirror on one real server: what it keeps, and what its callers get when the server restarts, hangs or loses a
reply.
"""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from persistence.errors import MirrorUnavailableError
from persistence.redis.mirror import AVAILABLE_MS, TTL_MS, Mirror, Pool, Ring, Shard
from tests.cut_proxy import Loss, open_proxy
from tests.mirror_world import (
    NOW_MS,
    eventually,
    killed,
    listening,
    open_mirror,
    pool_of,
    restart,
    silent,
    until_heard,
    until_pushed,
)

SKU = "85123A"
STRANGE = ["{}", "a{b}c", "a b\r\nc", "\x00\x1f", "商品" * 100, '"', "x" * 200]
BRIEF_S = 0.25  # a time-out for a server that will not answer


@pytest.fixture
async def mirror(redis_url):
    async with open_mirror(redis_url) as mirror:
        yield mirror


@pytest.fixture
async def redis(redis_url):
    async with Redis.from_url(redis_url) as client:
        yield client


def key_of(sku: str) -> str:
    return f"fg:{{{sku.encode().hex()}}}"


async def test_push_of_all_shards_is_read_as_their_sum(mirror: Mirror):
    await mirror.push([Shard(SKU, 0, 5, 7), Shard(SKU, 1, 0, 2), Shard("B", 0, 1, 1)])
    assert await mirror.read([SKU, "B", "absent", SKU], NOW_MS) == {SKU: Pool(5, 9, None), "B": Pool(1, 1, None)}
    assert mirror.connected


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
async def test_push_in_any_order_keeps_the_higher_version(mirror: Mirror, order: tuple[int, ...]):
    for version in order:
        await mirror.push([Shard(SKU, 0, 10 * version, version)])
    assert await pool_of(mirror, SKU) == Pool(30, 3, None)


async def test_push_of_several_versions_at_once_keeps_the_highest(mirror: Mirror):
    await mirror.push([Shard(SKU, 0, 3, 3), Shard(SKU, 0, 9, 9), Shard(SKU, 0, 4, 4)])
    assert await pool_of(mirror, SKU) == Pool(9, 9, None)


async def test_push_by_many_at_once_keeps_the_highest_of_each_shard(mirror: Mirror):
    shards = [Shard(SKU, shard, version, version) for version in range(1, 51) for shard in range(4)]
    await asyncio.gather(*(mirror.push([shard]) for shard in shards))
    assert await pool_of(mirror, SKU) == Pool(4 * 50, 4 * 50, None)


async def test_push_of_a_large_version_is_kept_to_the_unit(mirror: Mirror):
    await mirror.push([Shard(SKU, 0, 2**52 - 1, 2**52 - 1)])
    await mirror.push([Shard(SKU, 0, 2**52, 2**52)])
    assert await pool_of(mirror, SKU) == Pool(2**52, 2**52, None)


@pytest.mark.parametrize("sku", STRANGE)
async def test_push_of_any_sku_is_read_back(mirror: Mirror, sku: str):
    await mirror.push([Shard(sku, 0, 3, 1)])
    assert await mirror.read([sku], NOW_MS) == {sku: Pool(3, 1, None)}


async def test_push_of_more_skus_than_a_pipeline_takes_them_all(mirror: Mirror):
    skus = [f"sku-{number}" for number in range(1234)]
    await mirror.push([Shard(sku, shard, 2, 1) for sku in skus for shard in range(3)])
    assert await mirror.read(skus, NOW_MS) == dict.fromkeys(skus, Pool(6, 3, None))


async def test_push_of_nothing_asks_nobody():
    async with open_mirror("redis://localhost:1") as mirror:
        await mirror.push([])
        await mirror.push_available({}, NOW_MS)
        await mirror.ring([])
        assert await mirror.read([], NOW_MS) == {}


async def test_read_leaves_out_a_sku_with_a_shard_missing_until_it_is_told(mirror: Mirror):
    await mirror.push([Shard(SKU, 0, 5, 1), Shard(SKU, 2, 5, 1)])
    assert await pool_of(mirror, SKU) is None
    await mirror.push([Shard(SKU, 1, 5, 1)])
    assert await pool_of(mirror, SKU) == Pool(15, 3, None)
    await mirror.push([Shard(SKU, 4, 5, 1)])
    assert await pool_of(mirror, SKU) is None


async def test_read_gives_what_is_available_while_it_is_fresh(mirror: Mirror):
    await mirror.push([Shard(SKU, 0, 5, 1)])
    await mirror.push_available({SKU: 8, "no shards": 1}, NOW_MS)
    assert await mirror.read([SKU, "no shards"], NOW_MS + AVAILABLE_MS) == {SKU: Pool(5, 1, 8)}
    assert await pool_of(mirror, SKU, NOW_MS + AVAILABLE_MS + 1) == Pool(5, 1, None)
    assert await pool_of(mirror, SKU, NOW_MS - AVAILABLE_MS - 1) == Pool(5, 1, None)


async def test_push_available_in_any_order_keeps_the_later_time(mirror: Mirror):
    await mirror.push([Shard(SKU, 0, 5, 1)])
    for at_ms, units in ((NOW_MS + 5, 50), (NOW_MS, 0), (NOW_MS + 9, 90), (NOW_MS + 8, 80)):
        await mirror.push_available({SKU: units}, at_ms)
    assert await pool_of(mirror, SKU) == Pool(5, 1, 90)


async def age(redis: Redis, sku: str, by_ms: int) -> None:
    """Make what has been told of a SKU's shards older, and its expiry with it."""
    key = key_of(sku)
    for field, value in (await redis.hgetall(key)).items():
        if field.isdigit():
            version, free, told_at_ms = map(int, value.split())
            await redis.hset(key, field, f"{version} {free} {told_at_ms - by_ms}")
    await redis.pexpireat(key, await redis.pexpiretime(key) - by_ms)


async def test_push_lives_for_its_time_and_no_longer(mirror: Mirror, redis: Redis):
    await mirror.push([Shard(SKU, 0, 5, 1)])
    await mirror.push_available({SKU: 8, "B": 1}, NOW_MS)
    for sku in (SKU, "B"):
        assert 0 < await redis.pttl(key_of(sku)) <= TTL_MS
    await age(redis, SKU, TTL_MS)
    assert await pool_of(mirror, SKU) is None
    assert not await redis.exists(key_of(SKU))


async def test_push_of_other_shards_does_not_keep_an_old_shard_alive(mirror: Mirror, redis: Redis):
    await mirror.push([Shard(SKU, 0, 5, 1), Shard(SKU, 1, 5, 1)])
    await age(redis, SKU, TTL_MS - 1000)
    await mirror.push([Shard(SKU, 1, 4, 2)])
    await mirror.push([Shard(SKU, 0, 9, 0)])
    await mirror.push_available({SKU: 8}, NOW_MS)
    assert await redis.pttl(key_of(SKU)) <= 1000


async def test_push_of_the_same_versions_keeps_the_sku_alive(mirror: Mirror, redis: Redis):
    shards = [Shard(SKU, 0, 5, 1), Shard(SKU, 1, 5, 1)]
    await mirror.push(shards)
    await age(redis, SKU, TTL_MS - 1000)
    await mirror.push(shards)
    assert await redis.pttl(key_of(SKU)) > 1000


async def test_restart_of_the_server_leaves_an_empty_mirror_that_fills_again(mirror: Mirror, valkey_server):
    await mirror.push([Shard(SKU, 0, 5, 9)])
    restart(valkey_server)
    await until_pushed(mirror, [Shard("B", 0, 1, 1)])
    assert await mirror.read([SKU, "B"], NOW_MS) == {"B": Pool(1, 1, None)}
    await mirror.push([Shard(SKU, 0, 4, 1)])
    assert await pool_of(mirror, SKU) == Pool(4, 1, None)


async def test_flush_of_the_scripts_is_not_noticed(mirror: Mirror, redis: Redis):
    shards = [Shard(sku, 0, 5, 1) for sku in ("A", "B", "C")]
    await mirror.push(shards)
    await redis.script_flush()
    await redis.flushall()
    await mirror.push(shards)
    assert len(await mirror.read(["A", "B", "C"], NOW_MS)) == len(shards)


async def test_reply_that_is_lost_is_an_error_and_the_push_was_executed_once(redis_url, redis: Redis):
    async with open_proxy(redis_url) as proxy, open_mirror(proxy.url) as mirror:
        await mirror.push([Shard(SKU, 0, 5, 1)])
        await redis.config_resetstat()
        proxy.arm(b"EVALSHA", Loss.REPLY)
        with pytest.raises(MirrorUnavailableError):
            await mirror.push([Shard(SKU, 0, 3, 2)])
        assert proxy.cut.is_set()
        assert not mirror.connected
        assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] == 1
        await until_pushed(mirror, [Shard(SKU, 0, 2, 3)])
        assert await pool_of(mirror, SKU) == Pool(2, 3, None)
        assert mirror.connected


async def test_request_that_is_lost_in_silence_is_an_error_and_the_mirror_recovers(redis_url):
    async with open_proxy(redis_url) as proxy, open_mirror(proxy.url, BRIEF_S) as mirror:
        await until_pushed(mirror, [Shard(SKU, 0, 5, 1)])
        proxy.arm(b"EVALSHA", Loss.SILENCE)
        with pytest.raises(MirrorUnavailableError):
            await mirror.push([Shard(SKU, 0, 3, 2)])
        await until_pushed(mirror, [Shard(SKU, 0, 2, 3)])


async def test_black_hole_fails_every_call_and_the_mirror_recovers(redis_url, valkey_server):
    async with open_mirror(redis_url, BRIEF_S) as mirror:
        await until_pushed(mirror, [Shard(SKU, 0, 5, 1)])
        with silent(valkey_server):
            calls = [
                call for _ in range(20) for call in (mirror.read([SKU], NOW_MS), mirror.ring([Ring("freed", SKU)]))
            ]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(answer) for answer in answers} == {MirrorUnavailableError}
            assert not mirror.connected
        await until_pushed(mirror, [Shard(SKU, 0, 4, 2)])
        assert mirror.connected


async def test_server_that_was_never_there_is_found_when_it_comes(redis_url, valkey_server):
    with killed(valkey_server):
        mirror = Mirror(redis_url)
        for _ in range(3):
            with pytest.raises(MirrorUnavailableError):
                await mirror.read([SKU], NOW_MS)
    await until_pushed(mirror, [Shard(SKU, 0, 4, 2)])
    await mirror.close()


async def test_server_that_is_not_redis_is_unavailable():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, open_mirror(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}") as mirror:
        with pytest.raises(MirrorUnavailableError):
            await mirror.push([Shard(SKU, 0, 5, 1)])


async def test_secret_that_is_wrong_is_unavailable(valkey_server):
    async with open_mirror(f"redis://:wrong@127.0.0.1:{valkey_server.port}/0") as mirror:
        with pytest.raises(MirrorUnavailableError) as caught:
            await mirror.read([SKU], NOW_MS)
        assert "wrong@" not in str(caught.value)


async def test_key_of_a_wrong_kind_fails_its_own_sku_only(mirror: Mirror, redis: Redis):
    await redis.set(key_of(SKU), "theirs")
    with pytest.raises(MirrorUnavailableError):
        await mirror.push([Shard(SKU, 0, 5, 1), Shard("B", 0, 1, 1)])
    assert await mirror.read([SKU, "B"], NOW_MS) == {"B": Pool(1, 1, None)}


@pytest.mark.parametrize("value", ["", "x", "1", "1 2 3", "1 -2", "-1 2", "\xff", "1e3 5"])
async def test_pool_that_is_not_ours_is_left_out(mirror: Mirror, redis: Redis, value: str):
    await redis.hset(key_of(SKU), "pool", value)
    assert await pool_of(mirror, SKU) is None


async def test_read_cancelled_at_any_moment_leaves_no_reply_behind(mirror: Mirror):
    await mirror.push([Shard(str(number), 0, number, 1) for number in range(50)])
    for turns in range(20):
        task = asyncio.create_task(mirror.read(["1"], NOW_MS))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        number = turns + 2
        assert await pool_of(mirror, str(number)) == Pool(number, 1, None)


async def test_ring_is_heard_by_all_who_listen(redis_url, mirror: Mirror):
    rings = [Ring("wanted", "a\x1fb\x00"), Ring("freed", "商品")]
    async with open_mirror(redis_url) as other, listening(mirror) as first, listening(other) as second:
        await mirror.ring(rings)
        await eventually("both hear", lambda: first == rings and second == rings)
    assert not mirror.listening


async def test_ring_that_is_malformed_is_counted_and_the_next_is_heard(mirror: Mirror, redis: Redis):
    async with listening(mirror) as heard:
        for message in (b"", b"\xff", b'["wanted"]', b'["wanted","\xff"]', b'["stolen","A"]', b"[" * 10_000):
            await redis.publish("fg:bell", message)
        await mirror.ring([Ring("wanted", SKU)])
        await eventually("the next is heard", lambda: heard == [Ring("wanted", SKU)])
    assert mirror.malformed == 6


async def test_listen_survives_kill_and_restart_of_the_server(redis_url, mirror: Mirror, valkey_server):
    async with open_mirror(redis_url) as caller, listening(mirror) as heard:
        with killed(valkey_server):
            await eventually("the loss is noticed", lambda: not mirror.listening)
        await until_heard(caller, heard, Ring("freed", SKU))


async def test_listen_notices_a_black_hole_and_survives_it(redis_url, mirror: Mirror, valkey_server):
    async with open_mirror(redis_url) as caller, listening(mirror) as heard:
        with silent(valkey_server):
            await eventually("the silence is noticed", lambda: not mirror.listening)
        await until_heard(caller, heard, Ring("freed", SKU))


async def test_listen_begun_without_a_server_hears_when_it_comes(redis_url, valkey_server):
    async with open_mirror(redis_url) as mirror:
        heard: list[Ring] = []
        with killed(valkey_server):
            task = asyncio.create_task(mirror.listen(heard.append))
            with pytest.raises(MirrorUnavailableError):
                await mirror.ring([Ring("wanted", SKU)])
        await until_heard(mirror, heard, Ring("wanted", SKU))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
