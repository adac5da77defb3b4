"""The mirror's client: which server is asked for which key, and what is asked anew when a server points elsewhere."""

import asyncio
from collections.abc import Callable

import pytest
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, ResponseError

from persistence.errors import MirrorUnavailableError
from persistence.redis.client import Client, Script
from persistence.redis.node import PAUSE_S, Command, Reply
from tests.unit.fake_redis import FakeCluster, FakeServer, Ticker

SINGLE = ResponseError("This instance has cluster support disabled")
SLOTS = 16384
HALF = SLOTS // 2
KEYS = [f"fg:{{{number:02x}}}".encode() for number in range(40)]
LOW = [key for key in KEYS if key_slot(key) < HALF]
HIGH = [key for key in KEYS if key_slot(key) >= HALF]
GETS: list[Command] = [("GET", key) for key in KEYS]
SCRIPT = Script("return 1", "digest")


def replying(slots: Reply, answer: Callable[[Command], Reply]) -> Callable[[Command], Reply]:
    return lambda command: slots if command[0] == "CLUSTER" else answer(command)


def always(reply: Reply) -> Callable[[Command], Reply]:
    return lambda _: reply


def halves(low: str = "a", high: str = "b") -> list[Reply]:
    """CLUSTER SLOTS of two nodes, each with half of the slots."""
    return [[0, HALF - 1, [low.encode(), 1, b"id"]], [HALF, SLOTS - 1, [high.encode(), 1, b"id"], [b"replica", 1]]]


def cluster(now_s: Ticker, names: str = "ab") -> tuple[FakeCluster, dict[str, FakeServer]]:
    """Servers that say `a` or `b`, each with half of the slots; others have none."""
    servers = {f"{name}:1": FakeServer(replying(halves(), always(name))) for name in names}
    return FakeCluster(servers, now_s), servers


async def test_run_on_a_single_server_is_one_pipeline():
    server = FakeServer(replying(SINGLE, lambda command: command[1]))
    client = FakeCluster({"a:1": server}, Ticker())
    assert await client.run(KEYS, GETS) == KEYS
    assert server.pipelines == [[("CLUSTER", "SLOTS")], GETS]


async def test_run_on_a_cluster_asks_each_node_for_its_keys():
    client, servers = cluster(Ticker())
    assert await client.run(KEYS, GETS) == ["a" if key in LOW else "b" for key in KEYS]
    assert [command[1] for command in servers["b:1"].taken] == HIGH


async def test_run_by_many_at_once_asks_once_who_owns_what():
    client, servers = cluster(Ticker())
    await asyncio.gather(*(client.run(KEYS, GETS) for _ in range(10)))
    assert [command for server in servers.values() for command in server.taken if command[0] == "CLUSTER"] == [
        ("CLUSTER", "SLOTS")
    ]


async def test_node_that_fails_leaves_the_replies_of_the_others():
    now_s = Ticker()
    client, servers = cluster(now_s)
    await client.run(KEYS, GETS)
    servers["b:1"].away = True
    for _ in range(3):
        replies = dict(zip(KEYS, await client.run(KEYS, GETS), strict=True))
        assert [replies[key] for key in LOW] == ["a"] * len(LOW)
        assert {type(replies[key]) for key in HIGH} == {MirrorUnavailableError}
    servers["b:1"].away = False
    now_s.at_s += PAUSE_S
    assert set(await client.run(KEYS, GETS)) == {"a", "b"}


async def test_node_of_the_address_that_fails_leaves_the_others_known():
    client, servers = cluster(Ticker())
    await client.run(KEYS, GETS)
    servers["a:1"].away = True
    await client.run(KEYS, GETS)
    assert await client.run(HIGH, GETS[: len(HIGH)]) == ["b"] * len(HIGH)
    assert ("CLUSTER", "SLOTS") in servers["b:1"].taken


@pytest.mark.parametrize("error", [MovedError("1 c:1"), AskError("1 c:1"), ClusterDownError("down")])
async def test_reply_that_points_elsewhere_makes_the_next_call_ask_who_owns_what(error: ResponseError):
    client, servers = cluster(Ticker(), "abc")
    await client.run(KEYS, GETS)
    for server in servers.values():
        server.answers = replying(halves("a", "c"), always("new"))
    servers["b:1"].answers = replying(halves("a", "c"), always(error))
    assert error in await client.run(KEYS, GETS)
    assert set(await client.run(KEYS, GETS)) == {"new"}
    assert servers["b:1"].open == 0


async def test_key_that_nobody_serves_is_unavailable_alone():
    servers = {"a:1": FakeServer(replying(halves()[:1], always("a")))}
    replies = await FakeCluster(servers, Ticker()).run(KEYS, GETS)
    assert [reply == "a" for reply in replies] == [key in LOW for key in KEYS]


async def test_node_without_a_name_is_the_one_that_was_asked():
    slots = [[0, SLOTS - 1, [None, 1, b"id"]]]
    client = FakeCluster({"a:1": FakeServer(replying(slots, always("a")))}, Ticker())
    assert await client.run(KEYS[:1], GETS[:1]) == ["a"]


WRONG_SLOTS: list[Reply] = [
    [],
    None,
    b"OK",
    7,
    [[]],
    [[0, 1]],
    [[0, SLOTS, [b"a", 1]]],
    [[-1, 5, [b"a", 1]]],
    [[9, 5, [b"a", 1]]],
    [["0", 5, [b"a", 1]]],
    [[0, 5, [b"\xff", 1]]],
    [[0, 5, [b"a", b"x"]]],
    [[0, 5, [7, 1]]],
    ResponseError("BUSY a script is running"),
]


@pytest.mark.parametrize("slots", WRONG_SLOTS, ids=repr)
async def test_answer_about_owners_that_makes_no_sense_is_unavailable(slots: Reply):
    client = FakeCluster({"a:1": FakeServer(replying(slots, always("a")))}, Ticker())
    with pytest.raises(MirrorUnavailableError):
        await client.run(KEYS[:1], GETS[:1])


async def test_script_that_a_server_does_not_know_is_taught_and_only_those_calls_repeated():
    calls: list[Command] = [("EVALSHA", number) for number in range(3)]

    def answer(command: Command) -> Reply:
        known = ("SCRIPT", "LOAD", SCRIPT.text) in server.taken
        return NoScriptError("no script") if command == calls[1] and not known else command[-1]

    server = FakeServer(replying(SINGLE, answer))
    assert await FakeCluster({"a:1": server}, Ticker()).run(KEYS[:3], calls, SCRIPT) == [0, 1, 2]
    assert server.pipelines[1:] == [calls, [("SCRIPT", "LOAD", SCRIPT.text), calls[1]]]


async def test_run_anywhere_goes_to_the_next_server_when_one_fails():
    client, servers = cluster(Ticker())
    assert await client.run_anywhere([("PUBLISH",)]) == ["a"]
    servers["a:1"].away = True
    assert await client.run_anywhere([("PUBLISH",)]) == ["b"]
    servers["b:1"].away = True
    with pytest.raises(MirrorUnavailableError):
        await client.run_anywhere([("PUBLISH",)])


async def test_run_anywhere_asks_a_server_that_failed_last_and_who_owns_what_anew():
    now_s = Ticker()
    client, servers = cluster(now_s)
    await client.run_anywhere([("PUBLISH",)])
    servers["a:1"].away = True
    await client.run_anywhere([("PUBLISH",)])
    servers["a:1"].away = False
    now_s.at_s += PAUSE_S
    assert await client.run_anywhere([("PUBLISH",)]) == ["b"]
    assert servers["b:1"].taken == [("PUBLISH",), ("CLUSTER", "SLOTS"), ("PUBLISH",)]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://localhost",
        "unix:///tmp/redis",
        "redis://h:port",
        "redis://h?timeout=1",
        "rediss://h?ssl_cert_reqs=x",
    ],
)
def test_address_that_cannot_be_used_is_refused_at_once(url: str):
    with pytest.raises(ValueError, match=r"."):
        Client(url, 1.0, Ticker())
