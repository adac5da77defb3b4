"""Keeps the local system's processes alive, and stops them all in order.

A process that dies is started again after a growing pause, with one line that says what died and why. One that keeps
dying, or that refuses its settings, ends the whole system with the reason: a restart would hide it. Everything
happens in one thread (the kernel ties the children to it), in `tick`, which waits only for what a dead process left
behind.
"""

import signal
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from deploy.local import process_table
from deploy.local.failure import StackError
from deploy.local.process import Process, describe_status, stop_together

PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 5.0
DEATHS_MAX = 5
DEATHS_WINDOW_S = 60.0
LEFTOVER_TIMEOUT_S = 5.0
TICK_S = 0.1
SETTINGS_STATUS = 2
TAIL_LINES = 20

Say = Callable[[str], None]


class Interrupted(BaseException):
    """Somebody asked us to stop (Ctrl-C, SIGTERM). Not an error, so no handler of errors may take it."""


@dataclass
class _Child:
    process: Process
    deaths: deque[float] = field(default_factory=deque)
    restart_at: float | None = None


class Supervisor:
    """`changed` is called after each start, with the numbers of the processes changed."""

    def __init__(
        self,
        say: Say,
        changed: Callable[[], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.stopping = False
        self._say = say
        self._changed = changed
        self._clock = clock
        self._pause = pause
        self._children: list[_Child] = []

    def handle_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    def add(self, process: Process) -> None:
        """Start a process and keep it running."""
        self._children.append(_Child(process))
        process.start()
        self._changed()

    def tick(self) -> None:
        """Look after every child once. Raises StackError when it is no use to go on."""
        for child in self._children:
            status = child.process.poll()
            if child.restart_at is not None:
                self._restart(child, child.restart_at)
            elif status is not None:
                self._bury(child, status)

    def wait(self, condition: Callable[[], bool], timeout_s: float, complaint: Callable[[], str]) -> None:
        """Look after the children until the condition holds; after the time-out raise the complaint."""
        deadline = self._clock() + timeout_s
        while not condition():
            if self.stopping:
                raise Interrupted
            if self._clock() > deadline:
                raise StackError(complaint())
            self.tick()
            self._pause(TICK_S)

    def run_once(self, process: Process, timeout_s: float) -> None:
        """Run a command to its end. Raises StackError with its last lines when it fails."""
        process.start()
        try:
            self.wait(
                lambda: not process.running,
                timeout_s,
                lambda: f"{process.name} did not end within {timeout_s:.0f} s\n{process.tail(TAIL_LINES)}",
            )
        finally:
            process.stop()
        status = process.poll()
        if status:
            raise StackError(f"`{process.name}` failed ({describe_status(status)}):\n{process.tail(TAIL_LINES)}")

    def run(self) -> None:
        """Look after the children until somebody asks us to stop."""
        while not self.stopping:
            self.tick()
            self._pause(TICK_S)

    def stop(self, names: set[str], timeout_s: float) -> None:
        """Stop these and look after them no longer."""
        going = [child for child in self._children if child.process.name in names]
        self._children = [child for child in self._children if child not in going]
        stop_together([child.process for child in going], timeout_s)

    def pids(self) -> dict[str, int]:
        return {
            child.process.name: child.process.pid
            for child in self._children
            if child.process.pid and child.restart_at is None
        }

    def _bury(self, child: _Child, status: int) -> None:
        process, now = child.process, self._clock()
        if process.refuses_settings and status == SETTINGS_STATUS:
            raise StackError(f"{process.name} cannot use its settings:\n{process.tail(TAIL_LINES)}")
        child.deaths.append(now)
        while child.deaths[0] < now - DEATHS_WINDOW_S:
            child.deaths.popleft()
        if len(child.deaths) >= DEATHS_MAX:
            raise StackError(
                f"{process.name} died {DEATHS_MAX} times within {DEATHS_WINDOW_S:.0f} s, "
                f"the last time with {describe_status(status)};"
                f" {process.log_path} ends with:\n{process.tail(TAIL_LINES)}"
            )
        pause_s = min(PAUSE_S_MIN * 2 ** (len(child.deaths) - 1), PAUSE_S_MAX)
        child.restart_at = now + pause_s
        last = process.tail(1) or "nothing"
        self._say(
            f"{process.name} died ({describe_status(status)}) and is started again in {pause_s:.1f} s;"
            f" its last line: {last} ({process.log_path})"
        )
        self._changed()

    def _restart(self, child: _Child, restart_at: float) -> None:
        if self._clock() < restart_at:
            return
        # Workers that lost their parent still serve, and still hold stock: they go before new ones come.
        process_table.end(child.process.leftovers, child.process.leftover_signal, LEFTOVER_TIMEOUT_S)
        child.process.start()
        child.restart_at = None
        self._changed()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        self.stopping = True
