"""A PostgreSQL that answers the product's statements from `books`, and fails as the real one does: it refuses, resets
before and after the effect, says nothing, answers late, restarts, and keeps the locks of a transaction whose client
has gone silent.

It promises that what was committed stays and what was not never was. A client that gives up does not undo what is on
its way: it may arrive later.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import asyncpg
from msgspec import Struct, field

from persistence.errors import LedgerUnavailableError
from tests.simulation.books import BlockedError, Books, Transaction
from tests.simulation.commit_functions import commit_whole
from tests.simulation.loop import PROCESS, Process

if TYPE_CHECKING:
    from tests.simulation.connection import Connection
    from tests.simulation.world import World

CONNECT_S = 0.6  # until who connects gives up
LOCK_TIMEOUT_S = 5.0
KEEPALIVE_S = 4.0  # until the server notices that a silent client has gone
SIGNAL_S = (0.0, 0.001, 0.01, 0.1)  # from a signal to the end of whoever gets it
LATE_S = (0.1, 3.0)
DOWN_S = (0.05, 1.0)
# What a transaction that has failed takes.
ENDING = frozenset({"begin", "session_begin", "commit", "session_commit", "rollback"})


class Request(Struct, eq=False):
    """A statement on its way. `after` is what becomes of its answer."""

    backend: "Backend"
    step: str
    function: Callable[..., Any]
    arguments: Sequence[Any]
    answer: asyncio.Future[Any]
    timeout_s: float
    after: str = ""
    has_arrived: bool = False  # behind one that is still to be carried out
    is_blocked: bool = False
    is_over: bool = False


class Backend(Struct, eq=False):
    """The server's end of a connection. `line`: statements that are on their way or wait, in the order in which they
    were sent, which is that in which they are carried out.
    """

    pid: int
    name: str
    process: Process | None
    transaction: Transaction
    connection: "Connection | None" = None
    request: Request | None = None  # the last one
    is_alive: bool = True
    is_left: bool = False  # whether the client has closed its end
    is_stuck: bool = False  # in the middle of what its client had begun to send
    line: deque[Request] = field(default_factory=deque)
    deaf_until_s: float = 0.0  # until then it is stopped, as by SIGSTOP

    @property
    def is_cut(self) -> bool:
        return self.process is not None and self.process.cut_until_s > 0


class Postgres:
    """One server. `is_up` false: nobody gets in. `slow`: how many times as long as usual all takes."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.loop = world.loop
        self.books = Books(lambda: world.loop.now, world.fail)
        self.backends: dict[int, Backend] = {}
        self.is_up = True
        self.slow = 1.0
        self._pids = 0
        self._alone = Transaction(is_open=False)

    async def open(self, name: str) -> Backend:
        """Raises LedgerUnavailableError."""
        process = PROCESS.get()
        await asyncio.sleep(self._latency_s())
        self._pids += 1
        backend = Backend(self._pids, name, process, Transaction(is_open=False))
        if backend.is_cut:
            await asyncio.sleep(CONNECT_S)
            raise LedgerUnavailableError("PostgreSQL cannot be reached")
        if not self.is_up or self.world.faults.draw("connect") is not None:
            raise LedgerUnavailableError("PostgreSQL refuses the connection")
        self.backends[backend.pid] = backend
        return backend

    def submit(self, request: Request) -> None:
        """Whatever is lost on the way ends in a time-out of the client's."""
        backend, loop = request.backend, self.loop
        backend.line.append(request)
        backend.request = request
        fault = self.world.faults.draw(request.step)
        if fault is not None:
            self._expect(request)  # Its backend may have gone without the client's hearing of it.
            self._submit_with(fault, request)
        elif backend.is_cut:
            self._into_the_cut(request)
        else:
            loop.call_at(loop.now + self._latency_s(), self._arrive, request, context=loop.base)
            if self.slow > 1.0:
                self._expect(request)

    def left(self, backend: Backend) -> None:
        """The client has closed its end, or is no more. What it had sent is still carried out."""
        if not backend.is_left:
            backend.is_left = True
            delay_s = KEEPALIVE_S if backend.is_cut else self._latency_s()
            self.loop.call_later(delay_s, self._end_of_file, backend, context=self.loop.base)

    def died(self, process: Process) -> None:
        """A client's process is no more."""
        for backend in list(self.backends.values()):
            if backend.process is process:
                self.left(backend)

    def terminate(self, backends: Sequence[Backend]) -> None:
        """A signal: whoever gets it may come to the end of its statement before."""
        for backend in backends:
            at_s = max(self.loop.now + self.world.random.choice(SIGNAL_S), backend.deaf_until_s + SIGNAL_S[1])
            self.loop.call_at(at_s, self.kill, backend, asyncpg.AdminShutdownError, context=self.loop.base)

    def kill(self, backend: Backend, error: type[Exception]) -> None:
        """Its open transaction has never been. A client that is not cut off hears of it."""
        if not backend.is_alive:
            return
        backend.is_alive = False
        self.backends.pop(backend.pid, None)
        self.books.end(backend.transaction)
        if not backend.is_cut:
            if backend.connection is not None:
                backend.connection.is_open = False
            if backend.request is not None and not backend.request.answer.done():
                backend.request.answer.set_exception(error("the backend is gone"))
        elif backend.request is not None:
            self._expect(backend.request)

    def crash(self, down_s: float) -> None:
        """All backends are gone at once, and nobody gets in for a while."""
        self.world.note("postgres is down for", round(down_s, 3))
        for backend in list(self.backends.values()):
            self.kill(backend, ConnectionResetError)
        self.is_up = False
        self.loop.call_later(down_s, self._come_up, context=self.loop.base)

    def begin(self, _: Books, transaction: Transaction, backend: Backend) -> None:
        self.books.end(transaction)
        backend.transaction = Transaction(is_open=True, began_at_s=self.books.clock_s)

    def commit(self, _: Books, transaction: Transaction) -> str:
        return "COMMIT" if self.books.commit(transaction) else "ROLLBACK"

    def rollback(self, _: Books, transaction: Transaction) -> str:
        self.books.end(transaction)
        return "ROLLBACK"

    def _come_up(self) -> None:
        self.is_up = True

    def _latency_s(self) -> float:
        draw = self.world.draw()
        return (0.0002 + 0.003 * draw * draw) * self.slow

    def _submit_with(self, fault: str, request: Request) -> None:
        """`…_after` is for when the statement has been carried out."""
        at_s, backend, random = self.loop.now + self._latency_s(), request.backend, self.world.random
        call_at, base = self.loop.call_at, self.loop.base
        match fault:
            case "reset_before":
                call_at(at_s, self.kill, backend, ConnectionResetError, context=base)
            case "killed_before":
                call_at(at_s, self.kill, backend, asyncpg.AdminShutdownError, context=base)
            case "silent_before":
                backend.line.remove(request)
            case "late" | "late_of_dead":
                call_at(at_s + self._late_s(request), self._arrive, request, context=base)
                if fault == "late_of_dead":
                    call_at(self.loop.now, self.world.crash, backend.process, context=base)
            case "restart_before":
                call_at(at_s, self.crash, random.uniform(*DOWN_S), context=base)
            case "crash_before":
                backend.line.remove(request)
                call_at(self.loop.now, self.world.crash, backend.process, context=base)
            case "deaf":
                backend.deaf_until_s = at_s + self._late_s(request)
                call_at(backend.deaf_until_s, self._arrive, request, context=base)
            case _:
                request.after = fault
                call_at(at_s, self._arrive, request, context=base)

    def _late_s(self, request: Request) -> float:
        """Often it comes just when the client has given up."""
        if self.world.draw() < 0.5:
            return self.world.random.uniform(*LATE_S)
        return request.timeout_s + self.world.random.uniform(0.0, 0.05)

    def _into_the_cut(self, request: Request) -> None:
        """It waits for the network, or is lost with it."""
        self._expect(request)
        process = request.backend.process
        if process is not None and self.world.draw() < 0.6:
            at_s = process.cut_until_s + self._latency_s()
            self.loop.call_at(at_s, self._arrive, request, context=self.loop.base)
        else:
            request.backend.line.remove(request)

    def _expect(self, request: Request) -> None:
        """The client's time-out."""
        self.loop.call_later(request.timeout_s, _time_out, request, context=self.loop.base)

    def _arrive(self, request: Request) -> None:
        backend = request.backend
        if request.is_over:
            return
        if not backend.is_alive:
            if not request.answer.done():
                request.answer.set_exception(ConnectionResetError("the connection is closed"))
            return
        if self._is_next(request):
            self._carry_out(request)

    def _carry_out(self, request: Request) -> None:
        backend = request.backend
        transaction = backend.transaction if backend.transaction.is_open else self._alone
        if transaction.has_failed and request.step not in ENDING:
            self._reply(request, None, asyncpg.InFailedSQLTransactionError("the transaction has failed"))
            return
        try:
            if request.after == "stalled":
                self._stall(request)
                return
            if request.after == "aborted":
                self._abort(request)
                return
            result = request.function(self.books, transaction, *request.arguments)
        except BlockedError as blocked:
            self._wait(request, blocked.holder)
        except asyncpg.PostgresError as error:
            self._fail(backend)
            self._reply(request, None, error)
        else:
            self._reply(request, result, None)

    def _is_next(self, request: Request) -> bool:
        """Whether nothing that was sent before it is still to be carried out. A client that goes on behind a statement
        that waits for a lock has cancelled that one; now and then the cancellation comes too late.
        """
        first = request.backend.line[0]
        if first is request:
            return True
        if not request.has_arrived:
            request.has_arrived = True
            self._expect(request)
            if first.is_blocked and self.world.draw() < 0.5:
                self._fail(first.backend)
                self._reply(first, None, asyncpg.QueryCanceledError("canceled on user request"))
        return False

    def _fail(self, backend: Backend) -> None:
        """An error ends what an open transaction has done, and frees its locks; it stands there until it is ended."""
        if backend.transaction.is_open:
            self.books.end(backend.transaction)
            backend.transaction.is_open = backend.transaction.has_failed = True

    def _abort(self, request: Request) -> None:
        """The transaction has failed, and COMMIT says so by its tag alone."""
        request.after = ""
        self.books.end(request.backend.transaction)
        self._reply(request, "ROLLBACK", None)

    def _stall(self, request: Request) -> None:
        """The client's bytes end in the middle: the transaction stands open with all its locks, and nothing moves."""
        backend = request.backend
        if request.step == "commit_whole":
            if not backend.transaction.is_open:
                backend.transaction = Transaction(is_open=True, began_at_s=self.books.clock_s)
            commit_whole(self.books, backend.transaction, *request.arguments)
        backend.line.remove(request)
        backend.is_stuck = True
        self._expect(request)

    def _wait(self, request: Request, holder: Transaction) -> None:
        """For a lock, whether or not the client gives up."""
        self.world.note("waits for a lock", request.step)
        if not request.is_blocked:
            request.is_blocked = True
            self._expect(request)
            self.loop.call_later(LOCK_TIMEOUT_S, self._give_up, request, context=self.loop.base)
        holder.waiting.append(lambda: self._again(request))

    def _again(self, request: Request) -> None:
        self.loop.call_soon(self._arrive, request, context=self.loop.base)

    def _give_up(self, request: Request) -> None:
        if request.is_blocked and not request.is_over:
            self._fail(request.backend)
            self._reply(request, None, asyncpg.LockNotAvailableError("lock timeout"))

    def _reply(self, request: Request, result: object, error: Exception | None) -> None:
        backend, answer, after = request.backend, request.answer, request.after
        request.is_over = True
        backend.line.remove(request)
        if backend.line and backend.line[0].has_arrived:
            self._again(backend.line[0])
        if after == "stop_after":
            self.world.stop(backend.process)
        elif after:
            self._lose_reply(request, after)
            return
        if backend.is_cut:
            self._expect(request)
        elif not answer.done():
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)
        if backend.is_left and not backend.line:
            self._end_of_file(backend)

    def _lose_reply(self, request: Request, after: str) -> None:
        match after:
            case "reset_after":
                self.kill(request.backend, ConnectionResetError)
            case "crash_after":
                self.world.crash(request.backend.process)
            case "restart_after":
                self.crash(self.world.random.uniform(*DOWN_S))
            case _:
                self._expect(request)

    def _end_of_file(self, backend: Backend) -> None:
        """Only a signal ends a backend that waits for the rest of what its client had begun to send."""
        if not backend.line and not backend.is_stuck:
            self.kill(backend, ConnectionResetError)


def _time_out(request: Request) -> None:
    if not request.answer.done():
        request.answer.set_exception(TimeoutError())
