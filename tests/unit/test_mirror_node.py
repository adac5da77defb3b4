"""One server of the mirror: connections, the pause after a failure, and who waits for what."""

import asyncio

import pytest
from redis.exceptions import BusyLoadingError, ReadOnlyError, ResponseError

from persistence.errors import MirrorUnavailableError
from persistence.redis.node import CONNECTIONS_MAX, PAUSE_S, Command, Node, Reply
from tests.unit.fake_redis import TIMEOUT_S, FakeServer, Ticker, make_node
from tests.unit.fakes import turns

PING: Command = ("PING",)


async def run(node: Node, *commands: Command, within_s: float = TIMEOUT_S) -> list[Reply]:
    return await node.run(commands or [PING], asyncio.get_running_loop().time() + within_s)


async def test_run_gives_replies_in_order_over_one_connection():
    server = FakeServer(lambda command: command[1])
    node = make_node(server, Ticker())
    assert await run(node, ("ECHO", 1), ("ECHO", 2)) == [1, 2]
    assert await run(node, ("ECHO", 3)) == [3]
    assert server.connects == 1


async def test_run_after_a_failure_fails_without_asking_until_the_pause_is_over():
    server, now_s = FakeServer(), Ticker()
    node = make_node(server, now_s)
    server.away = True
    with pytest.raises(MirrorUnavailableError):
        await run(node)
    assert node.failed
    server.away = False
    now_s.at_s += PAUSE_S * 0.9
    with pytest.raises(MirrorUnavailableError):
        await run(node)
    assert server.taken == []
    now_s.at_s += PAUSE_S * 0.2
    assert await run(node) == [b"OK"]
    assert not node.failed


async def test_run_after_the_pause_is_tried_by_one_call_while_the_others_fail():
    server, now_s = FakeServer(), Ticker()
    node = make_node(server, now_s)
    server.away = True
    with pytest.raises(MirrorUnavailableError):
        await run(node)
    server.away = False
    now_s.at_s += PAUSE_S
    answers = await asyncio.gather(*(run(node) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [list, *[MirrorUnavailableError] * 4]
    assert await run(node) == [b"OK"]


async def test_run_that_hangs_ends_by_its_deadline_and_starts_the_pause():
    server, now_s = FakeServer(), Ticker()
    node = make_node(server, now_s)
    server.hung = True
    with pytest.raises(MirrorUnavailableError):
        await run(node, within_s=0.01)
    assert node.failed
    assert server.open == 0


async def test_run_with_too_little_time_says_nothing_about_the_server():
    server = FakeServer()
    node = make_node(server, Ticker(), patience_s=1.0)
    server.hung = True
    with pytest.raises(MirrorUnavailableError):
        await run(node, within_s=0.01)
    assert not node.failed


async def test_error_that_the_server_says_is_a_reply_and_no_failure():
    error = ResponseError("WRONGTYPE")
    server = FakeServer(lambda command: error if command == PING else b"OK")
    node = make_node(server, Ticker())
    assert await run(node, PING, ("OTHER",)) == [error, b"OK"]
    assert not node.failed
    assert server.open == 1


@pytest.mark.parametrize("error", [ReadOnlyError("a replica"), BusyLoadingError("loading"), RuntimeError("closed")])
async def test_error_of_a_server_that_is_no_use_now_ends_its_connection(error: Exception):
    server = FakeServer(lambda _: error)
    node = make_node(server, Ticker())
    with pytest.raises(MirrorUnavailableError):
        await run(node)
    assert node.failed
    assert server.open == 0


async def test_connection_lost_while_idle_is_opened_again_without_a_failure():
    server = FakeServer()
    node = make_node(server, Ticker())
    await run(node)
    server.restart()
    assert await run(node) == [b"OK"]
    assert server.connects == 2


async def test_failure_throws_the_idle_connections_away_too():
    server, now_s = FakeServer(), Ticker()
    node = make_node(server, now_s)
    await asyncio.gather(*(run(node) for _ in range(CONNECTIONS_MAX)))
    assert server.open == CONNECTIONS_MAX
    server.away = True
    with pytest.raises(MirrorUnavailableError):
        await run(node)
    assert server.open == 0


async def test_run_by_more_than_there_are_connections_waits_for_one():
    server = FakeServer()
    node = make_node(server, Ticker())
    answers = await asyncio.gather(*(run(node) for _ in range(5 * CONNECTIONS_MAX)))
    assert answers == [[b"OK"]] * (5 * CONNECTIONS_MAX)
    assert server.open_max == CONNECTIONS_MAX


async def test_run_that_is_cancelled_leaves_no_reply_for_the_next():
    server = FakeServer(lambda command: command[1])
    node = make_node(server, Ticker())
    server.hung = True
    task = asyncio.create_task(run(node, ("ECHO", 1)))
    await turns()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.hung = False
    assert await run(node, ("ECHO", 2)) == [2]
    assert not node.failed


async def test_close_ends_idle_connections_and_those_in_use_when_they_are_done():
    server = FakeServer()
    node = make_node(server, Ticker())
    await run(node)
    task = asyncio.create_task(run(node))
    await asyncio.sleep(0)
    await node.close()
    await task
    assert server.open == 0
