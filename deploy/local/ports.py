"""TCP ports of this machine: which are free, which to take, and who holds one that is not."""

import errno
import os
import random
import socket
from collections import deque
from contextlib import suppress
from pathlib import Path

from deploy.local import process_table
from deploy.local.failure import StackError

# Below the range that Linux uses for outgoing connections (from 32768): nothing takes the port of a server while it
# is restarted.
FIRST, LAST = 20000, 29999
ATTEMPTS = 200
LISTENING = "0A"  # The state of a listening socket in /proc/net/tcp.
# Of the system, since a generator that somebody has seeded gives two processes the same ports.
_random = random.SystemRandom()
# What this process was given last, and may not listen on yet.
_given: deque[int] = deque(maxlen=1000)


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    return not refusal(port, host)


def refusal(port: int, host: str = "127.0.0.1") -> str:
    """Why nobody can listen there now; empty when the port is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                f"in use ({holder_of(port)})"
                if error.errno == errno.EADDRINUSE
                else f"not to be had on {host} ({error.strerror})"
            )
    return ""


def pick_free(preferred: int = 0, host: str = "127.0.0.1") -> int:
    """The preferred port if it is free, else a random free one: two processes that pick at once seldom meet, and one
    never meets itself.
    """
    if preferred and is_free(preferred, host):
        return preferred
    for _ in range(ATTEMPTS):
        port = _random.randint(FIRST, LAST)
        if port not in _given and is_free(port, host):
            _given.append(port)
            return port
    raise StackError(f"no free port found between {FIRST} and {LAST}")


def holder_of(port: int) -> str:
    """`pid 123, nginx`, or what can be said when the holder belongs to another user."""
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for pid in (os.getpid(), *(entry.pid for entry in process_table.entries())):
        if sockets & process_table.open_files(pid):
            return process_table.describe(pid)
    return "a process of another user"


def _listening_inodes(port: int) -> set[str]:
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for row in table.read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes
