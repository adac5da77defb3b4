"""TCP proxies between the processes of a system and its servers, one for each link, in a process of its own: they slow
bytes down, hold them, cut connections, and lose exactly the message that somebody names.

Without a rule every byte arrives, in order. It is told what to do by lines of JSON on its standard input, answers each,
and ends with it. It never guesses a moment: a trap acts where the bytes that it waits for pass.
"""

import asyncio
import re
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import msgspec

CHUNK_BYTES = 1 << 16
HOST = "127.0.0.1"
BUFFER_BYTES_MAX = 1 << 20
RST_ON_CLOSE = struct.pack("ii", 1, 0)
CONNECT_S = 5.0

Way = Literal["requests", "replies"]
REQUESTS: Way = "requests"
REPLIES: Way = "replies"


class Rule(msgspec.Struct, frozen=True):
    """What a link does until told otherwise. `hold`: the ways that nothing passes meanwhile; what was held comes after
    all, as after an outage of a network. `replace`: bytes of requests, and as many that take their place.
    """

    latency_s: float = 0.0
    hold: tuple[Way, ...] = ()
    refuse: bool = False
    replace: tuple[bytes, bytes] = (b"", b"")


class Trap(msgspec.Struct, frozen=True):
    """What happens once, to the connection on which the pattern passes next, `after_bytes` behind its beginning.

    `reset` cuts it there; `hold` stops both ways there until `release`; `lose` lets the request pass, loses the answers
    up to what `end` matches, and cuts it; `freeze` lets it pass and holds the requests of the link `other` from then
    on.
    """

    pattern: bytes
    action: Literal["reset", "hold", "lose", "freeze"]
    way: Way = "requests"
    after_bytes: int = 0
    end: bytes = b""
    other: str = ""


class Command(msgspec.Struct, frozen=True):
    """To one link; in this order. `disarm` takes the trap away, `release` lets go what a trap has held."""

    link: str
    target: int = 0
    rule: Rule | None = None
    trap: Trap | None = None
    disarm: bool = False
    reset: bool = False
    release: bool = False


class Sprung(msgspec.Struct, frozen=True):
    """A trap has acted, on the connection that its client made from `client_port`, and the proxy from `server_port`."""

    link: str
    client_port: int
    server_port: int


class Done(msgspec.Struct, frozen=True):
    """The answer to a command: the port of the link, and its open connections."""

    port: int
    connections: int


class Said(msgspec.Struct, frozen=True):
    """A line of the proxy."""

    done: Done | None = None
    sprung: Sprung | None = None


@dataclass(eq=False)
class Pair:
    """A connection of a client, and the one to the server that belongs to it."""

    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    passes: asyncio.Event = field(default_factory=asyncio.Event)
    countdown: int = -1  # bytes until the trap acts, once its pattern was seen
    caught: Trap | None = None
    muted: re.Pattern[bytes] | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def cut(self) -> None:
        """Reset both ends: nobody reads on, and nobody gets what was not sent yet."""
        for _, writer in (self.client, self.server):
            with suppress(OSError):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
            writer.transport.abort()
        self.passes.set()

    def ends(self, way: Way) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Where the bytes of this way come from, and where they go."""
        return (self.client[0], self.server[1]) if way == REQUESTS else (self.server[0], self.client[1])


class Link:
    """One port that leads to another one."""

    def __init__(self, name: str, target: int, proxy: "Proxy") -> None:
        self.name = name
        self.target = target
        self.port = 0
        self.pairs: set[Pair] = set()
        self._proxy = proxy
        self._rule = Rule()
        self._trap: Trap | None = None
        self._open: dict[str, asyncio.Event] = {REQUESTS: asyncio.Event(), REPLIES: asyncio.Event()}
        self._server: asyncio.Server | None = None
        self._set_holds(())

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def obey(self, command: Command) -> Done:
        self.target = command.target or self.target
        if command.rule is not None:
            await self._set_rule(command.rule)
        if command.disarm or command.trap is not None:
            self._trap = command.trap
        if command.reset:
            self.cut()
        if command.release:
            for pair in self.pairs:
                pair.passes.set()
        return Done(self.port, len(self.pairs))

    def cut(self) -> None:
        for pair in list(self.pairs):
            pair.cut()

    def freeze(self) -> None:
        """Hold the requests from now on, until a rule says otherwise."""
        self._set_holds((REQUESTS,))

    async def _set_rule(self, rule: Rule) -> None:
        self._rule = rule
        self._set_holds(rule.hold)
        if rule.refuse and self._server is not None:
            self._server.close()
            self._server = None
            self.cut()
        elif not rule.refuse and self._server is None:
            await self.listen()

    def _set_holds(self, ways: tuple[str, ...]) -> None:
        for way, gate in self._open.items():
            if way in ways:
                gate.clear()
            else:
                gate.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                server = await asyncio.open_connection(HOST, self.target, limit=BUFFER_BYTES_MAX)
        except (OSError, TimeoutError):  # The server is gone: so is whoever wants it.
            writer.transport.abort()
            return
        pair = Pair((reader, writer), server)
        if self._rule.refuse:  # It came just before that.
            pair.cut()
            return
        pair.passes.set()
        self.pairs.add(pair)
        pair.tasks = [asyncio.create_task(self._pump(pair, REQUESTS)), asyncio.create_task(self._pump(pair, REPLIES))]
        for task in pair.tasks:
            task.add_done_callback(lambda _: self._close(pair))

    def _close(self, pair: Pair) -> None:
        """One way has ended: the other one goes with it, as soon as what was sent is there."""
        self.pairs.discard(pair)
        for task in pair.tasks:
            task.cancel()
        for _, writer in (pair.client, pair.server):
            writer.close()

    async def _pump(self, pair: Pair, way: Way) -> None:
        source, sink = pair.ends(way)
        with suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                if self._rule.latency_s:
                    await asyncio.sleep(self._rule.latency_s)
                await self._open[way].wait()
                await self._pass(pair, way, chunk, sink)
                await sink.drain()

    async def _pass(self, pair: Pair, way: Way, chunk: bytes, sink: asyncio.StreamWriter) -> None:
        await pair.passes.wait()
        if way == REQUESTS and self._rule.replace[0]:
            chunk = chunk.replace(*self._rule.replace)
        if way == REPLIES and pair.muted is not None:
            if pair.muted.search(chunk):
                pair.cut()
            return
        self._look(pair, way, chunk)
        if pair.caught is None or pair.caught.way != way:
            sink.write(chunk)
        elif pair.countdown > len(chunk):
            pair.countdown -= len(chunk)
            sink.write(chunk)
        else:
            await self._spring(pair, pair.caught, chunk, sink)

    def _look(self, pair: Pair, way: Way, chunk: bytes) -> None:
        """Whether the trap's pattern passes here."""
        if self._trap is None or self._trap.way != way or pair.caught is not None:
            return
        found = re.search(self._trap.pattern, chunk, re.DOTALL)
        if found is not None:
            pair.caught, self._trap = self._trap, None
            pair.countdown = found.start() + pair.caught.after_bytes

    async def _spring(self, pair: Pair, trap: Trap, chunk: bytes, sink: asyncio.StreamWriter) -> None:
        at, pair.caught = pair.countdown, None
        if trap.action == "reset":
            sink.write(chunk[:at])
            await sink.drain()
            await asyncio.sleep(0)  # What stands before the cut is to be sent.
            pair.cut()
        elif trap.action == "hold":
            pair.passes.clear()
            sink.write(chunk[:at])
            self._proxy.tell(self.name, pair)
            await pair.passes.wait()
            sink.write(chunk[at:])
            return
        elif trap.action == "lose":
            pair.muted = re.compile(trap.end, re.DOTALL)
            sink.write(chunk)
        else:
            self._proxy.links[trap.other].freeze()
            sink.write(chunk)
        self._proxy.tell(self.name, pair)


class Proxy:
    """All links of a system, by name; `targets` are the ports of the servers."""

    def __init__(self, targets: dict[str, int]) -> None:
        self.links = {name: Link(name, port, self) for name, port in targets.items()}

    async def open(self) -> None:
        for link in self.links.values():
            await link.listen()

    def tell(self, link: str, pair: Pair) -> None:
        ports = [writer.get_extra_info(name)[1] for (_, writer), name in _places(pair)]
        _say(Said(sprung=Sprung(link, *ports)))

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Obey until nobody commands any more."""
        while line := await commands.readline():
            command = msgspec.json.decode(line, type=Command)
            _say(Said(done=await self.links[command.link].obey(command)))


def _places(pair: Pair) -> list[tuple[tuple[asyncio.StreamReader, asyncio.StreamWriter], str]]:
    """Both connections, each with the name of the address that belongs to a port of our side's peers."""
    return [(pair.client, "peername"), (pair.server, "sockname")]


def _say(said: Said) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    sys.stdout.buffer.flush()


async def main() -> None:
    """The first line names the links and their targets."""
    commands = asyncio.StreamReader(limit=BUFFER_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin.buffer)
    proxy = Proxy(msgspec.json.decode(await commands.readline(), type=dict[str, int]))
    await proxy.open()
    await proxy.run(commands)


if __name__ == "__main__":
    asyncio.run(main())
