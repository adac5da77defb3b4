"""Where log lines go: to standard error, by a thread of its own, so that a pipe that nobody reads, or a disk that
hangs, stops no loop.

It promises that `write` returns at once, and that what waits is bounded. What does not fit, and what standard error
does not take, is dropped and counted; no line is ever cut or mixed with another.
"""

import atexit
import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable

LINES_MAX = 10_000
BYTES_MAX = 8 << 20
WRITE_BYTES_MAX = 64 << 10  # of one call, unless a single line is longer
CLOSE_S_MAX = 1.0  # that the end of a process waits for a reader
WRITABLE_S_MAX = 1.0


class LogLines:
    """A file descriptor, and the lines that wait for it. Used by any thread."""

    def __init__(self, descriptor: int, lines_max: int = LINES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._descriptor = descriptor
        self._lines_max = lines_max
        self._bytes_max = bytes_max
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._writing = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Have a line, which ends in a line feed, written soon. Never waits, and raises nothing."""
        with self._changed:
            if len(self._waiting) >= self._lines_max or self._size + len(line) > self._bytes_max:
                self.dropped += 1
                return
            self._waiting.append(line)
            self._size += len(line)
            if self._thread is None:
                self._thread = _start(self._run)
            self._changed.notify_all()

    def flush(self) -> None:
        """Nothing to do: lines are on their way. A logger asks for it after each."""

    def drain(self, wait_s: float = CLOSE_S_MAX) -> bool:
        """Wait until all is written, at most that many seconds; whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._writing, wait_s)

    def _run(self) -> None:
        while True:
            lines = self._take()
            written = _write(self._descriptor, b"".join(lines))
            with self._changed:
                self._writing = False
                if not written:
                    self.dropped += len(lines)
                self._changed.notify_all()

    def _take(self) -> list[bytes]:
        """At least one line, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            self._writing = True
            lines: list[bytes] = []
            size = 0
            while self._waiting and (not lines or size + len(self._waiting[0]) <= WRITE_BYTES_MAX):
                lines.append(self._waiting.popleft())
                size += len(lines[-1])
            self._size -= size
            return lines


def _start(run: Callable[[], None]) -> threading.Thread | None:
    """A thread that gets no signal: the supervisor waits for its own with all of them blocked, and what its other
    threads let through would end it. None while the process gets no more threads: the next line asks again.
    """
    thread = threading.Thread(target=run, name="log-lines", daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        thread.start()
    except RuntimeError:
        return None
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


def _write(descriptor: int, data: bytes) -> bool:
    """Write all of it, however long that takes; False when nobody is there to read it."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # Somebody else, who shares the terminal, has made it so.
            select.select([], [descriptor], [], WRITABLE_S_MAX)
        except OSError:
            return False
    return True


STANDARD_ERROR = LogLines(2)
atexit.register(STANDARD_ERROR.drain)
