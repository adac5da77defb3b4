"""The faults: each breaks one thing of a site when injected, and puts it right when undone.

`undo` is called once for every fault that was asked to inject, also when that failed half-way; it may be called
although nothing has happened. A fault that did not come about says so (MissedError) and does not count; what the system
does wrong at the very moment of a fault is a BrokenError.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bench.failure import ScenarioError
from bench.faults.proxy import Rule, Sprung, Trap
from bench.faults.site import GATEWAY, Site
from deploy.local import process_table, programs
from deploy.local.servers import HOST, Server
from deploy.local.servers_postgres import DATABASE, ENVIRONMENT, SUPERUSER

SPRUNG_S = 6.0  # Orders flow all the time: a trap that has not acted by then will not.
DRAIN_S = 20.0
ATTACHED_S = 5.0
DEADLOCK_S = 2.0  # PostgreSQL looks for one after 1 s
STARTUP = b"\0\3\0\0user\0%b\0database\0%b\0\0" % (SUPERUSER.encode(), DATABASE.encode())
CROWD_MAX = 400
CROWD_PRESSES = 50
LEAVE = """
select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'psql' and pid <> pg_backend_pid()
"""


class MissedError(Exception):
    """The fault has not come about."""


class BrokenError(Exception):
    """The system broke a promise at the moment of the fault."""


class Fault:
    """One injection."""

    def inject(self) -> None:
        raise NotImplementedError

    def undo(self) -> None:
        """Put it right."""


class Together(Fault):
    """Several at once; undone in the opposite order."""

    def __init__(self, *faults: Fault) -> None:
        self._faults = faults

    def inject(self) -> None:
        for fault in self._faults:
            fault.inject()

    def undo(self) -> None:
        for fault in reversed(self._faults):
            fault.undo()


class Signalled(Fault):
    """A signal to some processes; those that were stopped go on afterwards, those that have ended are started again."""

    def __init__(self, site: Site, number: signal.Signals, pids: Sequence[int]) -> None:
        self._site = site
        self._number = number
        self._pids = pids

    def inject(self) -> None:
        if not self._pids:
            raise MissedError
        for pid in self._pids:
            with suppress(ProcessLookupError):
                os.kill(pid, self._number)

    def undo(self) -> None:
        if self._number == signal.SIGSTOP:
            for pid in self._pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self._site.ensure_running()


class Killed(Fault):
    """A process with all of its group, as when a machine loses it."""

    def __init__(self, site: Site, name: str) -> None:
        self._site = site
        self._process = site.process(name)

    def inject(self) -> None:
        self._process.kill()

    def undo(self) -> None:
        self._site.ensure_running()


class Dismissed(Fault):
    """The gateway is asked to end; it has to, in order and in time."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def inject(self) -> None:
        gateway = self._site.process(GATEWAY)
        gateway.send(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_S
        while gateway.running:
            if time.monotonic() > deadline:
                raise BrokenError(f"the gateway has not ended {DRAIN_S:.0f} s after SIGTERM")
            time.sleep(0.02)
        if gateway.poll() != 0:
            raise BrokenError(f"the gateway ended with {gateway.poll()} after SIGTERM")

    def undo(self) -> None:
        self._site.ensure_running()


class Replaced(Fault):
    """All workers are replaced, one at a time, so that two live ones may have one number."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._before: set[int] = set()

    def inject(self) -> None:
        self._before = set(self._site.workers())
        self._site.process(GATEWAY).send(signal.SIGHUP)

    def undo(self) -> None:
        self._site.until(lambda: not self._before & set(self._site.workers()), "all workers to be replaced")
        self._site.ensure_running()


class ServerEnded(Fault):
    """A server ends by a signal and is away until undone. Killed, it goes with its whole group."""

    def __init__(self, site: Site, kind: str, number: signal.Signals = signal.SIGKILL) -> None:
        self._site = site
        self._server: Server = site.server(kind)
        self._number = number

    def inject(self) -> None:
        if self._number == signal.SIGKILL:
            self._server.kill()
            return
        self._server.send(self._number)
        self._site.until(lambda: not self._server.running, f"{self._server.name} to end")

    def undo(self) -> None:
        self._site.ensure_server(self._server)
        self._site.ensure_running()


class Ruled(Fault):
    """Links keep to a rule until undone. With `cut` what was open is reset then: what was held never arrives."""

    def __init__(self, site: Site, links: Sequence[str], rule: Rule, *, cut: bool = False) -> None:
        self._site = site
        self._links = links
        self._rule = rule
        self._cut = cut

    def inject(self) -> None:
        for link in self._links:
            self._site.links.rule(link, self._rule)

    def undo(self) -> None:
        for link in self._links:
            if self._cut:
                self._site.links.reset(link)
            self._site.links.rule(link, Rule())


class Cut(Fault):
    """Every connection of some links is reset."""

    def __init__(self, site: Site, links: Sequence[str]) -> None:
        self._site = site
        self._links = links

    def inject(self) -> None:
        for link in self._links:
            self._site.links.reset(link)


class Trapped(Fault):
    """A trap on a link; when it has acted, `then` is done, with whom it has caught."""

    def __init__(self, site: Site, link: str, trap: Trap, then: Callable[[Sprung], None] | None = None) -> None:
        self._site = site
        self._link = link
        self._trap = trap
        self._then = then

    def inject(self) -> None:
        self._site.links.trap(self._link, self._trap)
        sprung = self._site.links.wait_sprung(SPRUNG_S)
        if sprung is None:
            raise MissedError
        if self._then is not None:
            self._then(sprung)

    def undo(self) -> None:
        self._site.links.calm()
        self._site.ensure_running()


class Asked(Fault):
    """A statement on the ledger, and one that undoes it."""

    def __init__(self, site: Site, statement: str, after: str = "") -> None:
        self._site = site
        self._statement = statement
        self._after = after

    def inject(self) -> None:
        if self._site.query(self._statement) == "0":
            raise MissedError

    def undo(self) -> None:
        if self._after:
            self._site.query(self._after)


class Held(Fault):
    """Statements in a session of their own, whose transaction stays open until undone, such as one that holds locks."""

    def __init__(self, site: Site, *statements: str) -> None:
        self._site = site
        self._statements = statements
        self._process: subprocess.Popen[bytes] | None = None

    def inject(self) -> None:
        postgres = self._site.postgres
        psql = programs.postgres().root / programs.POSTGRES / "bin" / "psql"
        address = ["-h", HOST, "-p", str(postgres.port), "-U", SUPERUSER, "-d", DATABASE]
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [str(psql), "-XqAt", *address],
            env={**ENVIRONMENT, "PGPASSWORD": postgres.secret},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        lines = ["set lock_timeout = '5s'", "begin", *self._statements]
        self._process.stdin.write(";\n".join(lines).encode() + b";\n\\echo held\n")
        self._process.stdin.flush()
        while self._process.stdout.readline() not in (b"held\n", b""):
            pass

    def undo(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        # Its backend may wait for a lock still, and would hold what it has until it gets it.
        self._site.query(LEAVE)


class Crossed(Held):
    """As Held, by statements that take locks in an order that others do not: it counts if somebody had to give way."""

    def inject(self) -> None:
        before = self._deadlocks()
        super().inject()
        deadline = time.monotonic() + DEADLOCK_S
        while self._deadlocks() == before:
            if time.monotonic() > deadline:
                raise MissedError
            time.sleep(0.05)

    def _deadlocks(self) -> int:
        return self._site.log("postgres").read_bytes().count(b"deadlock detected")


class Crowd(Fault):
    """Strangers take every connection that PostgreSQL has; whoever has one loses it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._strangers: list[socket.socket] = []

    def inject(self) -> None:
        self._fill()
        self._site.links.reset("worker-postgres")
        for _ in range(CROWD_PRESSES):  # Those that were thrown out press, too.
            self._fill()
            time.sleep(0.01)

    def _fill(self) -> None:
        """Until one is refused."""
        while len(self._strangers) < CROWD_MAX:
            stranger = socket.create_connection((HOST, self._site.postgres.port), 5.0)
            self._strangers.append(stranger)
            stranger.sendall((len(STARTUP) + 4).to_bytes(4, "big") + STARTUP)
            with suppress(ConnectionError):
                if stranger.recv(1) == b"R":  # It is asked for its password, and has its place until then.
                    continue
            self._strangers.pop().close()
            return

    def undo(self) -> None:
        for stranger in self._strangers:
            stranger.close()
        self._site.ensure_running()


class Traced(Fault):
    """System calls of some processes go wrong: `strace` injects it until undone."""

    def __init__(self, site: Site, pids: Sequence[int], *options: str) -> None:
        self._site = site
        self._pids = pids
        self._options = options
        self._output = site.log("strace")
        self._process: subprocess.Popen[bytes] | None = None

    def inject(self) -> None:
        if not self._pids:
            raise MissedError
        program = shutil.which("strace")
        assert program is not None, "a row that needs it is not run without"
        targets = [f"--attach={pid}" for pid in self._pids]
        self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
            [program, "-f", "-qq", "-o", str(self._output), *self._options, *targets],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + ATTACHED_S
        while not all(_is_traced(pid) for pid in self._pids if process_table.is_running(pid)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ScenarioError("strace could not attach: it may not, or the process is traced already")
            time.sleep(0.01)

    def said(self) -> str:
        """The system calls that were looked at, and what was injected into them."""
        return self._output.read_text(errors="replace")

    def end(self) -> None:
        """Let go of the processes; `said` is all there is then."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(ATTACHED_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def undo(self) -> None:
        self.end()
        self._site.ensure_running()


class Done(Fault):
    """What a client does to the edge, all of it by the time it is injected."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def inject(self) -> None:
        self._work()


def owner_of_port(port: int, pids: Sequence[int]) -> int | None:
    """Which of these processes has the connection whose own end is this port of 127.0.0.1."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    wanted = f"0100007F:{port:04X}"
    sockets = {f"socket:[{fields[9]}]" for fields in lines if fields[1] == wanted}
    return next((pid for pid in pids if sockets & process_table.open_files(pid)), None)


def _is_traced(pid: int) -> bool:
    """Whether every thread of the process has its tracer."""
    with suppress(OSError):
        statuses = [(task / "status").read_text() for task in (Path("/proc") / str(pid) / "task").iterdir()]
        return all("TracerPid:\t0\n" not in status for status in statuses)
    return True
