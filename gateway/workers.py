"""Keeps the workers of one gateway alive on one port, whatever happens to them: one that dies is started again after a
growing pause, for ever, and never takes its neighbours down. One that gives no sign of life any more is killed.

Signals are gunicorn's: TERM and INT end all workers in order, TTIN adds one, TTOU takes one away, HUP replaces all, one
at a time, each going only when its successor takes orders. Settings that a worker refuses end the whole.
The supervisor serves nobody and connects to nothing, so that nothing but a signal can end it; it must never import what
serves.
"""

import math
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import structlog

from gateway.process import end_with_parent
from gateway.settings import WORKERS_MAX
from gateway.slots import Slot, Slots

SETTINGS_STATUS = 2  # the exit status of a process whose settings cannot be used
PAUSE_S_MIN = 0.2
PAUSE_S_MAX = 5.0
LIVED_S = 10.0  # A worker that dies after that long is not said to keep dying.
STOP_S_MAX = 30.0  # A worker that has not ended this long after SIGTERM is killed.
SUCCESSOR_S_MAX = 30.0  # A successor that does not take orders within this time is given up.
# A worker that has taken orders once is killed after so long without a sign of its event loop, which gives ten a
# second: it is stopped or stuck, and its connections hang.
SILENT_S_MAX = 15.0
# A supervisor that has not looked for that long was stopped or starved itself, and its workers may have been, too: they
# get all of SILENT_S_MAX again.
AWAY_S = 2.0
TICK_S = 0.1
# A worker that leaves keeps its slot to the end: all may be leaving while as many come, and one successor.
SLOTS = 2 * WORKERS_MAX + 1
CHANGES = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP})
SIGNALS = CHANGES | {signal.SIGCHLD}
NAMES = {int(number): number.name for number in signal.Signals}

log = structlog.get_logger("workers")


class Child(Protocol):
    """A process that was started: a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...

    def send_signal(self, sig: int) -> None: ...


@dataclass(eq=False)
class _Worker:
    """One worker that is to live; its process changes when it dies. Without one it waits until `start_at`."""

    slot: Slot
    child: Child | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    deaths: int = 0
    kill_at: float = math.inf
    was_ready: bool = False  # its present process
    killed_at: float = 0.0

    @property
    def ready(self) -> bool:
        return self.child is not None and self.slot.pid == self.child.pid and self.slot.ready


class _Succession(NamedTuple):
    old: _Worker
    new: _Worker
    until: float


class Supervisor:
    """`start` starts a worker's process on the slot of this number. All decisions are made in `tick` and `receive`,
    which never wait.
    """

    def __init__(
        self,
        workers: int,
        start: Callable[[int], Child],
        slots: Slots,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.status: int | None = None  # what to exit with, once it has been decided to stop
        self._start = start
        self._clock = clock
        self._slots = slots
        self._workers: list[_Worker] = []
        self._leaving: list[_Worker] = []
        self._to_replace: deque[_Worker] = deque()
        self._succession: _Succession | None = None
        self._looked_at = self._back_at = clock()
        for _ in range(workers):
            self._add()

    def run(self, receive: Callable[[float], int | None]) -> int:
        """Look after the workers until the last one has ended; returns the exit status. `receive` waits for a signal,
        at most that many seconds.
        """
        while not self.is_done():
            number = receive(TICK_S)
            if number is not None:
                self.receive(number)
            self.tick()
        assert self.status is not None
        return self.status

    def is_done(self) -> bool:
        """Whether it was decided to stop, and the last worker has ended."""
        return self.status is not None and not self._leaving

    def receive(self, number: int) -> None:
        """Do what a signal asks for."""
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._stop(0)
        elif self.status is not None:
            return
        elif number == signal.SIGTTIN:
            self._add()
        elif number == signal.SIGTTOU:
            self._remove()
        elif number == signal.SIGHUP:
            self._to_replace = deque(self._workers)

    def tick(self) -> None:
        """Look after every worker once."""
        self._note_absence()
        for worker in list(self._leaving):
            self._see_off(worker)
        for worker in list(self._workers):
            self._look_after(worker)
        if self._succession is not None:
            self._look_after_succession(self._succession)
        elif self._to_replace and not self._leaving:
            self._replace(self._to_replace.popleft())

    def _look_after(self, worker: _Worker) -> None:
        if worker.child is None:
            if self._clock() >= worker.start_at:
                self._spawn(worker)
        elif (status := worker.child.poll()) is not None:
            self._bury(worker, worker.child, status)
        else:
            self._listen(worker, worker.child)

    def _listen(self, worker: _Worker, child: Child) -> None:
        """Kill a worker that has fallen silent. One that does not die of it is told so again later."""
        worker.was_ready = worker.was_ready or worker.ready
        sign_at = worker.slot.sign_at
        if not worker.was_ready or not sign_at:  # A worker of an older version gives no signs.
            return
        silent_s = self._clock() - max(sign_at, self._back_at, worker.killed_at)
        if silent_s >= SILENT_S_MAX:
            worker.killed_at = self._clock()
            log.error("worker_process_silent", worker=worker.slot.number, pid=child.pid, silent_s=round(silent_s, 1))
            child.send_signal(signal.SIGKILL)

    def _note_absence(self) -> None:
        now = self._clock()
        if now - self._looked_at >= AWAY_S:
            self._back_at = now
        self._looked_at = now

    def _spawn(self, worker: _Worker) -> None:
        worker.started_at = self._clock()
        worker.was_ready = False
        try:
            worker.child = self._start(worker.slot.number)
        except OSError as error:  # Out of processes or memory, which may pass.
            log.warning("worker_process_not_started", worker=worker.slot.number, error=str(error))
            self._pause(worker)
            return
        log.info("worker_process_started", worker=worker.slot.number, pid=worker.child.pid)

    def _bury(self, worker: _Worker, child: Child, status: int) -> None:
        _note_end(worker, child, status)
        if status == SETTINGS_STATUS:
            self._stop(SETTINGS_STATUS)
        else:
            self._pause(worker)

    def _pause(self, worker: _Worker) -> None:
        """Let it start again later: the later, the more often it has died young."""
        now = self._clock()
        worker.deaths = 1 if now - worker.started_at >= LIVED_S else worker.deaths + 1
        pause_s = min(PAUSE_S_MIN * 2.0 ** min(worker.deaths - 1, 10), PAUSE_S_MAX)
        worker.start_at = now + pause_s
        log.info("worker_process_paused", worker=worker.slot.number, pause_s=pause_s, deaths=worker.deaths)

    def _add(self) -> None:
        slot = self._free_slot()
        if len(self._workers) >= WORKERS_MAX or slot is None:
            log.warning("worker_process_not_added", workers=len(self._workers))
            return
        self._workers.append(_Worker(slot))
        self._spawn(self._workers[-1])

    def _remove(self) -> None:
        if len(self._workers) == 1:
            log.warning("worker_process_not_removed", workers=1)
            return
        self._dismiss(self._workers.pop())

    def _free_slot(self) -> Slot | None:
        successor = [self._succession.new] if self._succession else []
        taken = {worker.slot.number for worker in (*self._workers, *self._leaving, *successor)}
        return next((slot for slot in self._slots if slot.number not in taken), None)

    def _dismiss(self, worker: _Worker) -> None:
        """Let it come to its end; nobody starts it again."""
        if worker.child is not None:
            worker.child.send_signal(signal.SIGTERM)
            worker.kill_at = self._clock() + STOP_S_MAX
            self._leaving.append(worker)

    def _see_off(self, worker: _Worker) -> None:
        assert worker.child is not None, "who has no process has left"
        if (status := worker.child.poll()) is not None:
            _note_end(worker, worker.child, status)
            self._leaving.remove(worker)
        elif self._clock() >= worker.kill_at:
            worker.kill_at = math.inf
            log.error("worker_process_killed", worker=worker.slot.number, pid=worker.child.pid)
            worker.child.send_signal(signal.SIGKILL)

    def _replace(self, old: _Worker) -> None:
        if old not in self._workers:
            return
        slot = self._free_slot()
        assert slot is not None, "nobody is leaving, so there are free ones"
        new = _Worker(slot)
        self._spawn(new)
        self._succession = _Succession(old, new, self._clock() + SUCCESSOR_S_MAX)

    def _look_after_succession(self, succession: _Succession) -> None:
        old, new, until = succession
        ended = new.child.poll() if new.child is not None else None
        if new.child is None or ended is not None or self._clock() >= until:
            if new.child is not None and ended is not None:
                _note_end(new, new.child, ended)
            self._give_up(new)
        elif new.ready:
            self._succession = None
            if old in self._workers:
                self._workers[self._workers.index(old)] = new
                self._dismiss(old)
            else:  # It was taken away while its successor came.
                self._dismiss(new)

    def _give_up(self, new: _Worker) -> None:
        """A successor that does not take orders replaces nobody, and the others need not try: their elders go on."""
        log.error("worker_processes_not_replaced", worker=new.slot.number)
        self._succession = None
        self._to_replace.clear()
        self._dismiss(new)

    def _stop(self, status: int) -> None:
        if self.status is None:
            self.status = status
            log.info("worker_processes_stopping", workers=len(self._workers))
        self._to_replace.clear()
        for worker in (*self._workers, *([self._succession.new] if self._succession else ())):
            self._dismiss(worker)
        self._workers.clear()
        self._succession = None


def start_worker(host: str, port: int, slots: int, number: int) -> Child:
    """Start a worker's process on a port that it shares; `slots` is the descriptor of their memory. It ends with this
    one, stays in its process group, and gets none of the terminal's signals. Raises OSError.
    """
    parent = os.getpid()
    return subprocess.Popen(  # noqa: S603 - our own program, no shell
        [sys.executable, "-P", "-m", "gateway.serving", host, str(port), str(slots), str(number)],
        stdin=subprocess.DEVNULL,
        pass_fds=(slots,),
        preexec_fn=lambda: _begin(parent),  # noqa: PLW1509 - it only sets signals
    )


def receive_signal(timeout_s: float) -> int | None:
    """Wait for one of SIGNALS, which have to be blocked; None when none came. SIGCHLD only ends the wait."""
    received = signal.sigtimedwait(SIGNALS, timeout_s)
    return received.si_signo if received is not None and received.si_signo in CHANGES else None


def _begin(parent: int) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _note_end(worker: _Worker, child: Child, status: int) -> None:
    worker.child = None
    worker.slot.release()
    how = f"exit status {status}" if status >= 0 else f"signal {-status}, {NAMES.get(-status, 'without a name')}"
    note = log.warning if status else log.info
    note("worker_process_ended", worker=worker.slot.number, pid=child.pid, how=how)
