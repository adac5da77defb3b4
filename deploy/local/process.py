"""One child process: started with a log of its own, stopped politely, then not; nothing of it outlives the one who
started it.

The kernel signals the child when its parent dies (PR_SET_PDEATHSIG), so a killed supervisor leaves nothing behind.
The kernel means the parent's thread: call `start` from one that lives as long as the child must. The child leads a
session of its own: Ctrl-C at the terminal reaches the supervisor alone, which stops its children in order, and what
a dead leader leaves behind is found by its group.
"""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from deploy.local import process_table
from deploy.local.accounts import Account
from deploy.local.failure import StackError

PR_SET_PDEATHSIG = 1
LOG_BYTES_MAX = 8 << 20  # A log above this is put aside at the next start, as NAME.log.1.
TAIL_BYTES_MAX = 64 << 10
POLL_S = 0.05
STOP_TIMEOUT_S = 20.0
# Loaded before any fork: between fork and exec nothing may be imported.
LIBC = ctypes.CDLL(None, use_errno=True)


class Process:
    """A command with its log. `start` may be called again after it has ended; `tail` is of the last start."""

    stop_signal: signal.Signals = signal.SIGTERM
    leftover_signal: signal.Signals = signal.SIGTERM

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log_path: Path,
        *,
        environment: Mapping[str, str] | None = None,
        refuses_settings: bool = False,
    ) -> None:
        """`refuses_settings`: exit status 2 means settings that no restart will mend."""
        self.name = name
        self.log_path = log_path
        self.refuses_settings = refuses_settings
        self._command = list(command)
        self._environment = environment
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_offset = 0
        self._group_gone = True

    @property
    def command(self) -> list[str]:
        return self._command

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    def start(self) -> None:
        assert self.poll() is not None or self._popen is None, f"{self.name} is running"
        with open_log(self.log_path) as log:
            self._log_offset = log.tell()
            self._popen = self._spawn(log)
        self._group_gone = False

    def poll(self) -> int | None:
        """The exit status, minus the signal's number for a killed process; None while it runs or was never started."""
        return self._popen.poll() if self._popen else None

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def leftovers(self) -> list[int]:
        """What the ended process left running: members of its group, such as workers that lost their parent."""
        if self._popen is None or self._group_gone:
            return []
        found = process_table.members(self._popen.pid)
        # Its number may be given again once the group is empty: it is not asked about any more.
        self._group_gone = not found and not self.running
        return found

    def send(self, number: signal.Signals) -> None:
        if self._popen and self._popen.poll() is None:
            self._popen.send_signal(number)

    def kill(self) -> None:
        """End the process and its group by SIGKILL, as a crash would."""
        if self._popen is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stop politely; after the time-out by SIGKILL. Whatever the process leaves behind ends with it."""
        stop_together([self], timeout_s)

    def tail(self, lines: int = 20) -> str:
        """The last lines that the process wrote since its last start."""
        return tail_of(self.log_path, self._log_offset, lines)

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return spawn(self.command, log=log, environment=self._environment, death_signal=self.stop_signal)


def spawn(
    command: Sequence[str],
    *,
    log: IO[bytes],
    death_signal: signal.Signals,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    account: Account | None = None,
) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    try:
        return subprocess.Popen(  # noqa: S603 - our own commands, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
            start_new_session=True,
            # A change of the user clears the setting; subprocess changes it before this runs.
            preexec_fn=lambda: _die_with_parent(parent, death_signal),  # noqa: PLW1509 - it only calls prctl
            **(account.subprocess_options() if account else {}),
        )
    except OSError as error:
        raise StackError(f"{command[0]} cannot be run: {error.strerror}") from error


def stop_together(processes: Sequence[Process], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop several at once: their own signal first, SIGKILL after the time-out."""
    for process in processes:
        process.send(process.stop_signal)
    deadline = time.monotonic() + timeout_s
    while any(process.running for process in processes) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for process in processes:
        if process.running:
            process.kill()
        process_table.end(process.leftovers, process.leftover_signal, max(1.0, deadline - time.monotonic()))


def open_log(path: Path) -> IO[bytes]:
    """The log, opened at its end."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(f"{path.name}.1"))
    log = path.open("ab")
    log.seek(0, os.SEEK_END)
    return log


def tail_of(path: Path, offset: int = 0, lines: int = 20) -> str:
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(min(offset, size), size - TAIL_BYTES_MAX))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def describe_status(status: int) -> str:
    """`exit status 1` or `signal 9, SIGKILL`."""
    if status >= 0:
        return f"exit status {status}"
    return f"signal {-status}, {signal.Signals(-status).name}"


def _die_with_parent(parent: int, death_signal: signal.Signals) -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != parent:  # It died before the setting took effect.
        os._exit(1)
