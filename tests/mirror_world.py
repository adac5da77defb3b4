"""A mirror on a real server, and ways to take the server away: killed, or stopped so that it takes connections and says
nothing.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

from deploy.local.servers import ValkeyServer
from persistence.errors import MirrorUnavailableError
from persistence.redis.mirror import Mirror, Pool, Ring, Shard

NOW_MS = 1_790_000_000_000  # the ledger's time
WAIT_S = 30.0
LOOK_AGAIN_S = 0.02
PATIENT_S = 10.0  # the time-out of a mirror whose server is there: a busy machine is not what is tested


@asynccontextmanager
async def open_mirror(url: str, timeout_s: float = PATIENT_S) -> AsyncIterator[Mirror]:
    mirror = Mirror(url, timeout_s)
    try:
        yield mirror
    finally:
        await mirror.close()


@asynccontextmanager
async def listening(mirror: Mirror) -> AsyncIterator[list[Ring]]:
    """What the mirror hears, from now on."""
    heard: list[Ring] = []
    task = asyncio.create_task(mirror.listen(heard.append))
    try:
        await eventually("the mirror listens", lambda: mirror.listening)
        yield heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(what: str, is_so: Callable[[], bool]) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            while not is_so():
                await asyncio.sleep(LOOK_AGAIN_S)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S} s: {what}") from None


async def until_pushed(mirror: Mirror, shards: Sequence[Shard]) -> None:
    """Push until it succeeds."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await mirror.push(shards)
            except MirrorUnavailableError:
                await asyncio.sleep(LOOK_AGAIN_S)


async def until_heard(caller: Mirror, heard: list[Ring], ring: Ring) -> None:
    """Ring until it is heard, as a worker that waits for units does."""
    async with asyncio.timeout(WAIT_S):
        while ring not in heard:
            with suppress(MirrorUnavailableError):
                await caller.ring([ring])
            await asyncio.sleep(LOOK_AGAIN_S)


async def pool_of(mirror: Mirror, sku: str, now_ms: int = NOW_MS) -> Pool | None:
    return (await mirror.read([sku], now_ms)).get(sku)


def restart(server: ValkeyServer) -> None:
    """Kill it and start it again, empty."""
    with killed(server):
        pass


@contextmanager
def killed(server: ValkeyServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()  # In this thread, since a server dies with the thread that started it.
        server.wait_ready()


@contextmanager
def silent(server: ValkeyServer) -> Iterator[None]:
    """A black hole: the kernel goes on taking connections and bytes, nobody answers."""
    server.send(signal.SIGSTOP)
    try:
        yield
    finally:
        server.send(signal.SIGCONT)
