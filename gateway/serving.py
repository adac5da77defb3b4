"""One worker's process: Granian and the gateway in one event loop, on a port that it shares with the other workers.
Started by the supervisor (gateway/workers.py): `python -m gateway.serving HOST PORT SLOTS NUMBER`.

It ends with SIGTERM, and then in order: no more connections, the requests under way, the gateway. It exits with 2 for
settings that cannot be used, and with 1 when the server ends by itself. It never starts another process.
"""

import asyncio
import contextlib
import sys

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from gateway.app import Gateway
from gateway.process import configure_logging, run
from gateway.services import Services
from gateway.settings import Http, SettingsError, load
from gateway.slots import Place, Slots
from gateway.workers import SETTINGS_STATUS

BACKLOG = 4096
SETTLE_S_MAX = 3.0  # before the first connection is taken
LOOK_AGAIN_S = 0.02


def main() -> None:
    host, port, slots, number = sys.argv[1:]
    try:
        settings = load(flags={"http.host": host, "http.port": port})
        gateway = Gateway(settings, Place(Slots.attach(int(slots)), int(number)))
    except SettingsError as error:
        sys.stderr.write(f"floodgate: {error}\n")
        sys.exit(SETTINGS_STATUS)
    configure_logging(settings.log)
    run(lambda stop: _live(gateway, settings.http, stop))


async def _live(gateway: Gateway, settings: Http, stop: asyncio.Event) -> None:
    services = await gateway.start()
    try:
        await _settle(services, stop)
        await _serve(gateway, settings, stop)
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


async def _serve(gateway: Gateway, settings: Http, stop: asyncio.Event) -> None:
    """Serve until `stop`, and then to the end of the requests under way. Raises RuntimeError when the server ends by
    itself.
    """
    server = Server(
        gateway,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=settings.connections_max,
        log_enabled=False,
    )
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(server.serve())
        stopping = group.create_task(stop.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.stop()  # type: ignore[no-untyped-call]
    if not stop.is_set():
        raise RuntimeError("the HTTP server has ended by itself")


if __name__ == "__main__":
    main()
