"""Serves a worker by parts of Granian that are its own affair: a scheduler that hands requests for orders to
`Exchanges`, and starts a task for any other request, as Granian does.

Only versions that it was written for are served so (`way`); with any other Granian's own scheduler serves, which
gives every request a task. FLOODGATE_EDGE=asgi asks for that, too. The same tests run over both.
"""

import asyncio
import importlib
import os
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any

from gateway.edge.exchange import Exchanges, Watcher
from gateway.edge.hot import PATH, App, OrderRoute
from gateway.edge.requests import announces_body
from gateway.edge.show import ShowRoute, id_in
from gateway.settings import SettingsError

VERSIONS = frozenset({"2.8.7"})
VARIABLE = "FLOODGATE_EDGE"
DIRECT, ASGI = "direct", "asgi"
CLOSE_S_MAX = 1.0  # for bodies that are being taken off the wire at the end

Spawn = Callable[..., Coroutine[Any, Any, None]]


def way() -> str:
    """How the worker serves: `direct` where the server that is installed has the parts that are needed, and nobody asks
    for `asgi`. Raises SettingsError.
    """
    asked_for = os.environ.get(VARIABLE, DIRECT)
    if asked_for not in {DIRECT, ASGI}:
        raise SettingsError(f"{VARIABLE} has to be `{DIRECT}` or `{ASGI}`, not {asked_for!r}")
    return asked_for if version("granian") in VERSIONS else ASGI


def spawn_with(route: OrderRoute, show: ShowRoute, app: App) -> Spawn:
    """What Granian's Server.serve takes to start its worker, which gives orders to `route`, who asks for one to `show`,
    and all else to `app`.
    """

    async def spawn(worker_id: int, shutdown: Any, _app: Any, sock: Any, *options: Any) -> None:
        (*threads, backpressure, _, http, http1, http2, websockets, files, _, tls, scope) = options
        worker = _part("_granian", "ASGIWorker")(
            worker_id,
            sock,
            None,
            *threads,
            backpressure,
            http,
            http1,
            http2,
            websockets,
            files,
            *tls,
            (None, None),
        )
        exchanges, loop = Exchanges(route, show), asyncio.get_running_loop()
        stopped = loop.create_future()
        shutdown.add_cb(lambda: loop.call_soon_threadsafe(_end, stopped))
        exchanges.tasks.loop("exchanges", exchanges.run)
        worker.serve_async(_open_scheduler(loop, exchanges, _runner(app, scope)), loop, shutdown)
        await stopped
        await exchanges.tasks.close(CLOSE_S_MAX)

    return spawn


def _end(stopped: asyncio.Future[None]) -> None:
    """The last connection is closed. Nobody may wait for that any more."""
    if not stopped.done():
        stopped.set_result(None)


def _open_scheduler(
    loop: asyncio.AbstractEventLoop, exchanges: Exchanges, run: Callable[[Watcher], Coroutine[Any, Any, None]]
) -> Any:
    """Granian calls its `_schedule_fn` in a thread of its own; whatever comes of a request is done in the loop."""
    scheduler = _part("_granian", "CallbackScheduler")(loop, None, None, None, None)
    context, call_soon = exchanges.context, loop.call_soon_threadsafe

    def start(watcher: Watcher) -> None:
        exchanges.tasks.start(run(watcher))

    def schedule(watcher: Watcher) -> None:
        scope = watcher.scope
        if scope["method"] == "POST" and scope["path"] == PATH:
            if exchanges.admits(watcher):
                call_soon(exchanges.open, watcher, context=context)
        elif (order_id := id_in(scope)) is not None and not announces_body(scope):
            call_soon(exchanges.show, watcher, order_id, context=context)
        else:
            call_soon(start, watcher, context=context)

    scheduler._schedule_fn = schedule  # noqa: SLF001 - see above
    return scheduler


def _runner(app: App, scope_options: dict[str, Any]) -> Callable[[Watcher], Coroutine[Any, Any, None]]:
    """A request's task, as Granian makes it."""
    called = _part("asgi", "_callback_wrapper")(app, scope_options, {})
    run: Callable[[Watcher], Coroutine[Any, Any, None]] = _part("_futures", "_future_watcher_wrapper")(called)
    return run


def _part(module: str, name: str) -> Any:
    """Of Granian. Looked up only where its version is known: another one may not have it."""
    return getattr(importlib.import_module(f"granian.{module}"), name)
