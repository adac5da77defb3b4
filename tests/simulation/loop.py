"""An event loop whose time is a number and whose order is a seed's: what would wait for the clock moves it, and of the
callbacks that are ready any may be the next.

It promises that the same seed runs the same callbacks in the same order, whatever the machine does meanwhile. It has no
selector and must never touch a socket, a thread or the machine's clock.
"""

import asyncio
import heapq
import warnings
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

PROCESS: ContextVar["Process | None"] = ContextVar("process", default=None)
TURNS_MAX = 400_000  # of one world: more is a loop without an end


class Process:
    """Whose callbacks may be held back for a while, or never run again. All that is started in `context` is its."""

    __slots__ = ("context", "cut_until_s", "held", "is_dead", "is_paused", "name", "wall_step_s")

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_paused = self.is_dead = False
        self.held: list[Call] = []  # what has become ready while it was stopped
        self.cut_until_s = 0.0  # when the network to PostgreSQL comes back
        self.wall_step_s = 0.0  # how far its host's wall clock is off
        self.context = copy_context()
        self.context.run(PROCESS.set, self)


class Call(asyncio.TimerHandle):
    """A callback to come. As asyncio's own, without what only debugging needs."""

    __slots__ = ()

    def __init__(self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], context: Context) -> None:
        self._when = when
        self._callback = callback
        self._args = args
        self._context = context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def __repr__(self) -> str:
        return f"<Call {self._callback} at {self._when:.4f}>"


class Task(asyncio.Task[Any]):
    """A task that stands at the same place of a set in every run: the usual hash is an address."""

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], loop: "VirtualLoop", name: str | None, context: Any
    ) -> None:
        self.serial = len(loop.tasks)
        self.process = PROCESS.get()
        super().__init__(coroutine, loop=loop, name=name or "task", context=context)
        self._log_destroy_pending = False  # Whoever dies leaves its tasks as they are.

    def __hash__(self) -> int:
        return self.serial

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.BaseEventLoop):
    """`now` are virtual seconds. When not `shuffled`, callbacks run in the order in which they became ready, as in
    asyncio; time alone mixes them then.
    """

    def __init__(self, random: Random, *, shuffled: bool) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self.halted = False
        self.tasks: list[Task] = []
        self.base = copy_context()  # of the servers, the buyers and the network
        self.unhandled: list[dict[str, Any]] = []
        self.pause_s = lambda: random.uniform(0.0001, 0.002)  # of a thread
        self._draw = random.random
        self._shuffled = shuffled
        self._calls: deque[Call] = deque()
        self._timers: list[tuple[float, int, Call]] = []
        self._timers_made = 0
        self._busy_until_s: dict[Any, float] = {}  # by executor, which has one thread

    def time(self) -> float:
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Call:
        call = Call(self.now, callback, args, copy_context() if context is None else context)
        self._calls.append(call)
        return call

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Call:
        when = self.now + delay
        call = Call(when, callback, args, copy_context() if context is None else context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, call))
        return call

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> Call:
        call = Call(when, callback, args, copy_context() if context is None else context)
        self._timers_made += 1
        heapq.heappush(self._timers, (when, self._timers_made, call))
        return call

    def create_task(
        self, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], *, name: object = None, context: Any = None
    ) -> Task:
        task = Task(coro, self, str(name) if name else None, context)  # type: ignore[arg-type]
        self.tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """What a thread does is done at one moment of its time; whoever waits hears of it a moment later. The work of
        a process that has died meanwhile is not done any more.
        """
        done: asyncio.Future[Any] = self.create_future()
        at_s = max(self.now + self.pause_s(), self._busy_until_s.get(executor, 0.0) + 1e-6)
        if executor is not None:
            self._busy_until_s[executor] = at_s
        self.call_at(at_s, self._work, done, func, args)
        return done

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody has asked a task for. Answers of a server that nobody waits for any more are none."""
        task = context.get("future")
        if isinstance(task, Task) and not (task.process is not None and task.process.is_dead):
            self.unhandled.append(context)

    def advance(self, until_s: float) -> None:
        """Run all that is due up to a moment, or until the world is `halted`."""
        calls, draw, shuffled, process_of = self._calls, self._draw, self._shuffled, PROCESS
        while not self.halted and self.turns < TURNS_MAX:
            if not calls and not self._ripen(until_s):
                return
            if shuffled and len(calls) > 1:
                calls.rotate(-int(draw() * len(calls)))
            call = calls.popleft()
            if call._cancelled:
                continue
            context = call._context
            process = context.get(process_of)
            if process is not None and process.is_paused:
                if not process.is_dead:
                    process.held.append(call)
                continue
            self.turns += 1
            context.run(call._callback, *call._args)
        if self.turns >= TURNS_MAX:
            raise RuntimeError(f"{TURNS_MAX} callbacks and no end")

    def _ripen(self, until_s: float) -> bool:
        """Go on to the next moment at which something is due; False when there is none up to `until_s`."""
        calls, timers = self._calls, self._timers
        while not calls:
            if not timers or timers[0][0] > until_s:
                self.now = max(self.now, until_s)
                return False
            now = self.now = max(self.now, timers[0][0])
            while timers and timers[0][0] <= now:
                call = heapq.heappop(timers)[2]
                if not call._cancelled:
                    calls.append(call)
        return True

    def resume(self, process: Process) -> None:
        """The process goes on with what has become ready meanwhile."""
        process.is_paused = False
        held, process.held = process.held, []
        self._calls.extend(held)

    @contextmanager
    def running(self) -> Generator[None, None, None]:
        """For the length of a block, this is the running loop."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            yield
        finally:
            self._end()
            events._set_running_loop(before)
            self.close()

    def _work(self, done: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if done.done():
            return
        try:
            result = func(*args)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the thread gets it
            self.call_later(self.pause_s(), self._tell, done, error, None)
        else:
            self.call_later(self.pause_s(), self._tell, done, None, result)

    @staticmethod
    def _tell(done: asyncio.Future[Any], error: BaseException | None, result: object) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)

    def _end(self) -> None:
        """Leave nothing behind that would speak up when it is collected."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # Work that was handed to a task and never begun.
            for task in self.tasks:
                asyncio._unregister_task(task)  # Else the next world's tasks collide with it in asyncio's own set.
                if not task.done():
                    with suppress(RuntimeError):  # Who waits in a `finally` does not let itself be closed.
                        task.get_coro().close()
