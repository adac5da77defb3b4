"""Redis servers as a mirror's client sees them, without servers: connections of the library's kind to pretended nodes.

A node answers what a test has set; `away`, `hung` and `busy` are how it fails. Nothing waits but what hangs.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from persistence.redis.client import Client
from persistence.redis.node import Command, Node, Reply

TIMEOUT_S = 30.0  # of calls that nothing holds up; a test never waits for it


class FakeServer:
    """`answers` gives the reply to a command; an exception is raised by whoever reads it."""

    def __init__(self, answers: Callable[[Command], Reply] = lambda _: b"OK") -> None:
        self.answers = answers
        self.away = False
        self.hung = False
        self.taken: list[Command] = []
        self.pipelines: list[list[Command]] = []
        self.connects = 0
        self.open = 0
        self.open_max = 0

    def restart(self) -> None:
        """Every connection is lost without its client having noticed."""
        self.generation = object()

    generation = object()


class FakeConnection:
    """What a Node uses of redis.asyncio.Connection."""

    def __init__(self, host: str, port: int, servers: dict[str, FakeServer], **_: Any) -> None:
        self.server = servers[f"{host}:{port}"]
        self._writer: FakeConnection | None = None
        self._generation: object = None
        self._replies: list[Reply] = []

    def is_closing(self) -> bool:
        return self._generation is not self.server.generation

    async def can_read(self) -> bool:
        return bool(self._replies)

    async def connect(self) -> None:
        if self._writer is not None:
            return
        if self.server.away:
            raise ConnectionRefusedError("nobody listens")
        self._writer, self._generation = self, self.server.generation
        self._replies = []
        self.server.connects += 1
        self.server.open += 1
        self.server.open_max = max(self.server.open_max, self.server.open)

    async def disconnect(self, *, nowait: bool) -> None:
        assert nowait
        if self._writer is not None:
            self._writer = None
            self.server.open -= 1

    def pack_commands(self, commands: Sequence[Command]) -> list[Command]:
        return list(commands)

    async def send_packed_command(self, commands: list[Command]) -> None:
        if self.server.away or self.is_closing():
            raise ConnectionResetError("gone")
        self.server.pipelines.append(commands)
        self.server.taken += commands
        self._replies += [self.server.answers(command) for command in commands]

    async def read_response(self) -> Reply:
        await asyncio.sleep(0)
        if self.server.hung:
            await asyncio.Event().wait()
        reply = self._replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Ticker:
    """Seconds that move when the test says so."""

    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def make_node(server: FakeServer, now_s: Callable[[], float], patience_s: float = 0.0) -> Node:
    options = {"host": "fake", "port": 1, "servers": {"fake:1": server}}
    return Node(FakeConnection, options, patience_s, now_s)  # type: ignore[arg-type]


class FakeCluster(Client):
    """A client of pretended servers by address; the first is the one that its URL names."""

    def __init__(self, servers: dict[str, FakeServer], now_s: Callable[[], float]) -> None:
        self._servers = servers
        super().__init__(f"redis://{next(iter(servers))}", TIMEOUT_S, now_s)

    def _node(self, host: str, port: int) -> Node:
        options = {"host": host, "port": port, "servers": self._servers}
        return Node(FakeConnection, options, 0.0, self._now_s)  # type: ignore[arg-type]
