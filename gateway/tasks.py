"""Tasks that somebody owns: kept from the garbage collector, counted, logged when they fail, and waited for at the end.
A background loop that fails is started again, since a gateway without its refills or its follower is worse than one
that logs.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

RESTART_PAUSE_S = 0.5
# A cancellation may be swallowed on its way by whoever finishes at the same moment, so it is repeated.
CANCEL_WAIT_S = 0.5
CANCELS_MAX = 10

log = structlog.get_logger("tasks")


class Tasks:
    """One per worker."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._loops: set[asyncio.Task[Any]] = set()
        self.failures = 0

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, whatever becomes of whoever started it."""
        task = asyncio.create_task(self._guard(work))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def loop(self, name: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run a background loop until `close`; when it fails it is started again after a pause. A loop that returns is
        done.
        """
        task = asyncio.create_task(self._repeat(name, run), name=name)
        self._loops.add(task)
        return task

    async def close(self, wait_s: float) -> None:
        """Wait for what was started, at most `wait_s`, then end the loops and whatever is left."""
        if self._running:
            await asyncio.wait(self._running, timeout=wait_s)
        left = {*self._loops, *self._running}
        for _ in range(CANCELS_MAX):
            for task in left:
                task.cancel()
            if left:
                _, left = await asyncio.wait(left, timeout=CANCEL_WAIT_S)
        if left:
            log.error("tasks_left", tasks=sorted(task.get_name() for task in left))

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            self.failures += 1
            log.exception("task_failed")

    async def _repeat(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await run()
            except Exception:
                self.failures += 1
                log.exception("loop_failed", loop=name)
                await asyncio.sleep(RESTART_PAUSE_S)
            else:
                return
