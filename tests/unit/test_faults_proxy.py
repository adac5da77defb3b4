"""The proxies: without a rule every byte arrives; with one, exactly what it says is slow, held or lost."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from bench.faults import proxy as proxy_module
from bench.faults.proxy import Command, Proxy, Rule, Said, Trap

READ_S = 5.0
SILENCE_S = 0.2  # in which something that passes would have come: it is held, so a wait cannot make it pass


class World:
    """Two links to two servers that answer every line with the same line, and what the proxies say."""

    def __init__(self, proxy: Proxy, said: list[Said], received: list[bytes]) -> None:
        self.proxy = proxy
        self.said = said
        self.received = received
        self.writers: list[asyncio.StreamWriter] = []

    async def connect(self, link: str = "one") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.proxy.links[link].port)
        self.writers.append(writer)
        return reader, writer

    async def tell(self, link: str = "one", **fields: Any) -> None:
        await self.proxy.links[link].obey(Command(link, **fields))

    def sprung(self) -> list[str]:
        return [said.sprung.link for said in self.said if said.sprung is not None]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    said: list[Said] = []
    received: list[bytes] = []
    monkeypatch.setattr(proxy_module, "_say", said.append)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                received.append(line)
                writer.write(line)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = Proxy({"one": port, "two": port})
    await proxy.open()
    made = World(proxy, said, received)
    yield made
    for writer in made.writers:
        writer.close()
    for link in proxy.links.values():
        link.cut()
        await link.obey(Command(link.name, rule=Rule(refuse=True)))
    server.close()
    await asyncio.sleep(0)


async def line_of(reader: asyncio.StreamReader) -> bytes:
    """The next line, or nothing when the connection is gone."""
    try:
        async with asyncio.timeout(READ_S):
            return await reader.readline()
    except ConnectionError:
        return b""


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(SILENCE_S):
            await reader.readexactly(1)
    except TimeoutError:
        return True
    return False


async def test_link_without_a_rule_passes_everything(world: World) -> None:
    reader, writer = await world.connect()
    text = (b"x" * 999 + b"\n") * 300
    writer.write(text)
    received = b""
    async with asyncio.timeout(READ_S):
        while len(received) < len(text) and (piece := await reader.read(1 << 16)):
            received += piece
    assert received == text


@pytest.mark.parametrize(("way", "heard"), [("requests", []), ("replies", [b"hello\n"])])
async def test_link_that_holds_one_way_passes_it_later(world: World, way: Any, heard: list[bytes]) -> None:
    await world.tell(rule=Rule(hold=(way,)))
    reader, writer = await world.connect()
    writer.write(b"hello\n")
    assert await is_silent(reader)
    assert world.received == heard
    await world.tell(rule=Rule())
    assert await line_of(reader) == b"hello\n"


async def test_link_that_refuses_takes_nobody_and_lets_go_who_is_there(world: World) -> None:
    reader, _ = await world.connect()
    port = world.proxy.links["one"].port
    await world.tell(rule=Rule(refuse=True))
    assert await line_of(reader) == b""
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await world.tell(rule=Rule())
    reader, writer = await world.connect()
    writer.write(b"again\n")
    assert await line_of(reader) == b"again\n"
    assert world.proxy.links["one"].port == port


async def test_link_that_replaces_changes_requests(world: World) -> None:
    await world.tell(rule=Rule(replace=(b"good", b"evil")))
    reader, writer = await world.connect()
    writer.write(b"a good day\n")
    assert await line_of(reader) == b"a evil day\n"


async def test_trap_that_resets_passes_what_stands_before(world: World) -> None:
    await world.tell(trap=Trap(b"second", "reset", after_bytes=2))
    reader, writer = await world.connect()
    writer.write(b"first\nsecond\n")
    assert await line_of(reader) in {b"first\n", b""}  # The reset may overtake the answer.
    assert await line_of(reader) == b""
    assert b"second\n" not in world.received
    assert world.sprung() == ["one"]


async def test_trap_acts_once(world: World) -> None:
    await world.tell(trap=Trap(b"second", "reset"))
    reader, writer = await world.connect()
    writer.write(b"second\n")
    assert await line_of(reader) == b""
    reader, writer = await world.connect()
    writer.write(b"second\n")
    assert await line_of(reader) == b"second\n"


async def test_trap_that_holds_stops_both_ways_until_released(world: World) -> None:
    await world.tell(trap=Trap(b"COMMIT", "hold"))
    reader, writer = await world.connect()
    writer.write(b"COMMIT\n")
    assert await is_silent(reader)
    assert world.received == []
    assert world.said[0].sprung is not None
    assert world.said[0].sprung.client_port == writer.get_extra_info("sockname")[1]
    await world.tell(release=True)
    assert await line_of(reader) == b"COMMIT\n"


async def test_trap_that_loses_lets_the_request_pass_and_loses_its_answer(world: World) -> None:
    await world.tell(trap=Trap(b"COMMIT", "lose", end=b"COMMIT\n$"))
    reader, writer = await world.connect()
    writer.write(b"COMMIT\n")
    assert await line_of(reader) == b""
    assert world.received == [b"COMMIT\n"]


async def test_trap_that_freezes_holds_requests_of_the_other_link(world: World) -> None:
    await world.tell(trap=Trap(b"ack", "freeze", "replies", other="two"))
    reader, writer = await world.connect("one")
    other_reader, other_writer = await world.connect("two")
    writer.write(b"ack\n")
    assert await line_of(reader) == b"ack\n"
    other_writer.write(b"mark\n")
    assert await is_silent(other_reader)
    assert world.received == [b"ack\n"]
    await world.tell("two", rule=Rule())
    assert await line_of(other_reader) == b"mark\n"


async def test_trap_that_is_disarmed_never_acts(world: World) -> None:
    await world.tell(trap=Trap(b"second", "reset"))
    await world.tell(disarm=True)
    reader, writer = await world.connect()
    writer.write(b"second\n")
    assert await line_of(reader) == b"second\n"


def test_command_bytes_survive_the_way_to_the_proxy() -> None:
    command = Command("one", trap=Trap(b"\x00\xff(?s)", "lose", end=b"\x05.$"), rule=Rule(replace=(b"\x00", b"\xff")))
    assert msgspec.json.decode(msgspec.json.encode(command), type=Command) == command
