"""One worker's process: Granian and the gateway in one event loop, on a port that it shares with the other workers.
Started by the supervisor (gateway/workers.py): `python -m gateway.serving HOST PORT SLOTS NUMBER`.

It ends with SIGTERM, and then in order: no more connections, the requests under way, the gateway. It exits with 2 for
settings that cannot be used, and with 1 when the server ends by itself. It never starts another process.
"""

import asyncio
import contextlib
import sys
from importlib.metadata import version
from typing import Any

import structlog
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from gateway.app import Gateway
from gateway.edge import direct
from gateway.process import configure_logging, run, spare_the_collector
from gateway.services import Services
from gateway.settings import Http, SettingsError, load
from gateway.slots import Place, Slots
from gateway.workers import SETTINGS_STATUS

BACKLOG = 4096
SETTLE_S_MAX = 3.0  # before the first connection is taken
LOOK_AGAIN_S = 0.02
# For the requests under way at the end: longer than a body and its order may take, and short enough for what the
# gateway does then, before the supervisor loses patience.
UNDER_WAY_S_MAX = 12.0

log = structlog.get_logger("serving")


def main() -> None:
    host, port, slots, number = sys.argv[1:]
    try:
        way, settings = direct.way(), load(flags={"http.host": host, "http.port": port})
        gateway = Gateway(settings, Place(Slots.attach(int(slots)), int(number)))
    except SettingsError as error:
        sys.stderr.write(f"floodgate: {error}\n")
        sys.exit(SETTINGS_STATUS)
    configure_logging(settings.log)
    run(lambda stop: _live(gateway, settings.http, way, stop))


async def _live(gateway: Gateway, settings: Http, way: str, stop: asyncio.Event) -> None:
    services = await gateway.start()
    try:
        services.bulk.stopping = stop.is_set
        services.journaling.on_poisoned = stop.set  # Its successor adopts what can be read.
        spawn = direct.spawn_with(services.route, services.show, gateway) if way == direct.DIRECT else None
        log.info("edge_opened", way=way, granian=version("granian"))
        await _settle(services, stop)
        spare_the_collector()
        await serve_until(open_server(gateway, settings), stop, spawn)
    finally:
        await gateway.stop()


async def _settle(services: Services, stop: asyncio.Event) -> None:
    """Wait until orders can be taken, so that a worker that joins others does not refuse some meanwhile. With a
    dependency missing it serves all the same, soon, and says which.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S_MAX):
            while not (services.takes_orders or stop.is_set()):  # noqa: ASYNC110 - many parts tell, each at its own time
                await asyncio.sleep(LOOK_AGAIN_S)


def open_server(app: Any, settings: Http, interface: Interfaces = Interfaces.ASGINL) -> Server:
    """Granian as every worker has it, in this process and its event loop."""
    return Server(
        app,
        address=settings.host,
        port=settings.port,
        interface=interface,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=settings.connections_max,
        log_enabled=False,
    )


async def serve_until(server: Server, stop: asyncio.Event, spawn: direct.Spawn | None = None) -> None:
    """Serve until `stop`, and then to the end of the requests under way, but no longer than UNDER_WAY_S_MAX: a client
    that does not read its answer keeps nobody's units. `spawn` is how, unless as Granian does. Raises RuntimeError when
    the server ends by itself.
    """
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve(spawn))  # type: ignore[arg-type]  # It is a coroutine function.
        stopping = group.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.stop()  # type: ignore[no-untyped-call]
        await asyncio.wait((serving,), timeout=UNDER_WAY_S_MAX)
        if serving.cancel():
            log.warning("requests_left")
    if not stop.is_set():
        raise RuntimeError("the HTTP server has ended by itself")


if __name__ == "__main__":
    main()
