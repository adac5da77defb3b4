"""Finds the server of each key: one server, or the nodes of a Redis Cluster; the server says which it is.

redis-py's own cluster client is not used: it retries, waits for all nodes when one is away, and has no queue for its
connections. A node that fails here takes its own keys with it and no others; who owns which keys is asked again after
each failure and each reply that points elsewhere, of a node that answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from redis.asyncio import Connection
from redis.asyncio.connection import parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, NoScriptError, RedisError, ResponseError, TryAgainError

from persistence.errors import MirrorUnavailableError
from persistence.redis.node import Command, Node, Reply

# Replies of a node that does not serve the key, now or any more. MOVED is an AskError.
ELSEWHERE = (AskError, ClusterDownError, TryAgainError)
# Whoever asks for the slots of a server without a cluster is told so, in words of the server's own.
NO_CLUSTER = ("disabled", "unknown")
DEFAULT_PORT = 6379

T = TypeVar("T")
Owners = list[Node | None]  # by slot


class Range(NamedTuple):
    """Slots, the last included, and the address of the node that serves them."""

    first: int
    last: int
    host: str
    port: int


class Script(NamedTuple):
    """A Lua script; `digest` is what Redis knows it by."""

    text: str
    digest: str

    @classmethod
    def load(cls, name: str) -> Self:
        text = (Path(__file__).parent / "lua" / name).read_text()
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


class Client:
    """Safe with concurrent callers. Every call ends within `timeout_s`, with replies or with MirrorUnavailableError."""

    def __init__(self, url: str, timeout_s: float, now_s: Callable[[], float]) -> None:
        """Raises ValueError for an address that cannot be used. Nothing is connected before it is needed."""
        options: dict[str, Any] = {"host": "localhost", "port": DEFAULT_PORT} | dict(parse_url(url))
        self._kind: type[Connection] = options.pop("connection_class", Connection)
        # The deadline of a call bounds all that it waits for. What Redis 7 and the proxies before it know is enough.
        options |= {"socket_timeout": None, "socket_connect_timeout": None, "decode_responses": False}
        options |= {"protocol": 2, "driver_info": None}
        self._options = options
        self._timeout_s = timeout_s
        self._now_s = now_s
        try:
            self._seed = self._node(options["host"], options["port"])
        except (TypeError, RedisError) as error:
            raise ValueError(f"not an address of Redis: {error}") from error
        self._nodes = {self._seed.name: self._seed}
        self._owners: Owners | None = None
        self._stale = True
        self._finding = asyncio.Lock()

    async def run(
        self, keys: Sequence[bytes], commands: Sequence[Command], script: Script | None = None
    ) -> list[Reply]:
        """Each command where its key is, one pipeline per server. Replies in the same order; MirrorUnavailableError
        stands in the place of those that a server did not give. `script` is what the commands are calls of.
        """
        deadline_s = self._deadline()
        owners = await self._find(deadline_s)
        places: dict[Node | None, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(owners[key_slot(key)], []).append(place)
        if len(places) == 1:
            return await self._run_on(next(iter(places)), commands, script, deadline_s)
        parts = await asyncio.gather(
            *(self._run_on(node, [commands[i] for i in part], script, deadline_s) for node, part in places.items())
        )
        replies: list[Reply] = [None] * len(commands)
        for part, answers in zip(places.values(), parts, strict=True):
            for place, answer in zip(part, answers, strict=True):
                replies[place] = answer
        return replies

    async def run_anywhere(self, commands: Sequence[Command]) -> list[Reply]:
        """On one server, whichever answers; may be executed by more than one."""
        deadline_s = self._deadline()
        return await self._first(lambda node: node.run(commands, deadline_s), deadline_s)

    async def subscribe(self, channel: str) -> Connection:
        """A connection, to whichever server answers, that is subscribed; the caller disconnects it."""
        deadline_s = self._deadline()
        return await self._first(lambda node: node.subscribe(channel, deadline_s), deadline_s)

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.close()

    async def _run_on(
        self, node: Node | None, commands: Sequence[Command], script: Script | None, deadline_s: float
    ) -> list[Reply]:
        if node is None:
            self._stale = True
            return [MirrorUnavailableError("no server of the cluster serves the key")] * len(commands)
        try:
            replies = await node.run(commands, deadline_s)
            if script is not None and any(isinstance(reply, NoScriptError) for reply in replies):
                await self._teach(node, commands, replies, script, deadline_s)
        except MirrorUnavailableError as error:
            self._stale = True
            return [error] * len(commands)
        if any(isinstance(reply, ELSEWHERE) for reply in replies):
            self._stale = True
        return replies

    async def _teach(
        self, node: Node, commands: Sequence[Command], replies: list[Reply], script: Script, deadline_s: float
    ) -> None:
        """A server that was restarted or flushed does not know the script: it has executed nothing of these."""
        places = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        again = [("SCRIPT", "LOAD", script.text), *(commands[place] for place in places)]
        for place, reply in zip(places, (await node.run(again, deadline_s))[1:], strict=True):
            replies[place] = reply

    async def _first(self, attempt: Callable[[Node], Awaitable[T]], deadline_s: float) -> T:
        await self._find(deadline_s)
        return await self._ask_around(attempt)

    async def _ask_around(self, attempt: Callable[[Node], Awaitable[T]]) -> T:
        """The answer of the first server that gives one; those that failed before come last."""
        failure = MirrorUnavailableError("no server is known")
        for node in sorted(self._nodes.values(), key=lambda node: node.failed):
            try:
                return await attempt(node)
            except MirrorUnavailableError as error:
                self._stale = True
                failure = error
        raise failure

    async def _find(self, deadline_s: float) -> Owners:
        """Who owns what; when nobody says so now, what was known before."""
        if self._stale:
            await self._enter(deadline_s)
            try:
                if self._stale:
                    await self._refresh(deadline_s)
            except MirrorUnavailableError:
                if self._owners is None:
                    raise
            finally:
                self._finding.release()
        assert self._owners is not None
        return self._owners

    async def _enter(self, deadline_s: float) -> None:
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._finding.acquire()
        except TimeoutError as error:
            raise MirrorUnavailableError("Redis did not say in time who owns what") from error

    async def _refresh(self, deadline_s: float) -> None:
        ranges = await self._ask_around(lambda node: _ranges(node, deadline_s))
        self._stale = False
        nodes = {self._seed.name: self._seed}
        owners: Owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        for first, last, host, port in ranges:
            name = f"{host}:{port}"
            node = nodes[name] = nodes.get(name) or self._nodes.get(name) or self._node(host, port)
            owners[first : last + 1] = [node] * (last + 1 - first)
        gone = [node for name, node in self._nodes.items() if name not in nodes]
        self._nodes, self._owners = nodes, owners
        for node in gone:
            await node.close()

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timeout_s

    def _node(self, host: str, port: int) -> Node:
        return Node(self._kind, self._options | {"host": host, "port": port}, self._timeout_s / 2, self._now_s)


async def _ranges(node: Node, deadline_s: float) -> list[Range]:
    """Who owns which slots, as a node sees it: a server without a cluster owns all. Raises MirrorUnavailableError."""
    (reply,) = await node.run([("CLUSTER", "SLOTS")], deadline_s)
    if isinstance(reply, ResponseError) and any(word in str(reply).lower() for word in NO_CLUSTER):
        return [Range(0, REDIS_CLUSTER_HASH_SLOTS - 1, node.host, node.port)]
    try:
        ranges = [_range(entry, node) for entry in reply]
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise MirrorUnavailableError(f"Redis at {node.name} does not say who owns what: {reply!r}") from error
    if not ranges:
        raise MirrorUnavailableError(f"Redis at {node.name} is not part of a cluster yet")
    return ranges


def _range(entry: Reply, node: Node) -> Range:
    """The form of CLUSTER SLOTS. A node that knows no name for itself means the one it was called by."""
    first, last, primary = entry[:3]
    if not 0 <= first <= last < REDIS_CLUSTER_HASH_SLOTS:
        raise ValueError("slots out of range")
    return Range(first, last, (primary[0] or b"").decode() or node.host, int(primary[1]))
