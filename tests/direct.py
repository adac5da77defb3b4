"""The edge that answers orders without a task for each, driven as an ASGI application: its server stands in for
Granian's watcher and protocol.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from gateway.edge.exchange import Exchanges
from gateway.edge.hot import OrderRoute
from gateway.edge.requests import Message, Receive, Scope, Send
from gateway.edge.show import ShowRoute, id_in


class Received(asyncio.Task[Message]):
    """What comes; it keeps its callback for as long as it is there, as Granian's future does."""

    kept: Any = None

    def add_done_callback(self, callback: Any, /, *, context: Context | None = None) -> None:
        self.kept = callback
        super().add_done_callback(callback, context=context)


class Protocol:
    """What Granian gives for a request: what is received comes from `receive`, what is sent is kept."""

    def __init__(self, receive: Callable[[], Coroutine[Any, Any, Message]]) -> None:
        self._receive = receive
        self.asked: list[Received] = []
        self.sent: list[Message] = []
        self.answered = asyncio.Event()
        self.broken = False

    def receive(self) -> Received:
        self.asked.append(Received(self._receive(), loop=asyncio.get_running_loop()))
        return self.asked[-1]

    def send(self, message: Message) -> None:
        if self.broken:
            raise RuntimeError("Response already finished")
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.answered.set()


class Watcher:
    """A request as Granian's scheduler gets it."""

    def __init__(self, scope: Scope, receive: Any) -> None:
        self.scope = scope
        self.proto = Protocol(receive)
        self.is_done = False

    def done(self) -> None:
        self.is_done = True


class DirectEdge:
    """Serves orders by Exchanges."""

    def __init__(self, route: OrderRoute, show: ShowRoute) -> None:
        self.exchanges = Exchanges(route, show)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = self.open(scope, receive)
        await watcher.proto.answered.wait()
        for message in watcher.proto.sent:
            await send(message)

    def open(self, scope: Any, receive: Receive) -> Watcher:
        """A request comes; its answer is not waited for."""
        watcher = Watcher(scope, receive)
        order_id = id_in(scope) if scope.get("method") == "GET" else None
        if order_id is not None:
            self.exchanges.show(watcher, order_id)
        elif self.exchanges.admits(watcher):
            self.exchanges.open(watcher)
        return watcher
