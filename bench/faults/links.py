"""The runner's hold on the proxies: starts their process, tells links what to do, and hears when a trap has acted.

`calm` undoes everything that was ever told, so that a row can promise to leave nothing behind.
"""

import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from bench.failure import ScenarioError
from bench.faults.proxy import Command, Done, Rule, Said, Sprung, Trap

COMMAND = (sys.executable, "-P", "-m", "bench.faults.proxy")
ANSWER_S = 20.0
STOP_S = 5.0

Mode = Literal["both", "requests", "replies"]


class Links:
    """`ports` are those that lead through the proxies, by link."""

    def __init__(self, targets: Mapping[str, int], log: Path) -> None:
        self.ports: dict[str, int] = {}
        self._targets = dict(targets)
        self._sprung: deque[Sprung] = deque()
        self._buffer = b""
        with log.open("ab") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,
                start_new_session=True,  # The terminal's Ctrl-C is the runner's alone.
            )
        self._events = selectors.DefaultSelector()
        assert self._process.stdout is not None
        self._events.register(self._process.stdout, selectors.EVENT_READ)
        self._send(msgspec.json.encode(self._targets))
        for name in self._targets:
            self.ports[name] = self.tell(Command(name)).port

    def tell(self, command: Command) -> Done:
        """Tell a link something, and wait until it is so. Raises ScenarioError."""
        self._send(msgspec.json.encode(command))
        deadline = time.monotonic() + ANSWER_S
        while True:
            said = self._read(deadline)
            if said is None:
                raise ScenarioError("the proxies have gone")
            if said.done is not None:
                return said.done

    def rule(self, link: str, rule: Rule) -> None:
        self.tell(Command(link, rule=rule))

    def reset(self, link: str) -> None:
        """Cut every connection of the link."""
        self.tell(Command(link, reset=True))

    def trap(self, link: str, trap: Trap) -> None:
        self._sprung.clear()
        self.tell(Command(link, trap=trap))

    def release(self, link: str) -> None:
        self.tell(Command(link, release=True))

    def retarget(self, link: str, port: int) -> None:
        """Lead the link to another server from now on, and cut what is open."""
        self.tell(Command(link, target=port, reset=True))

    def wait_sprung(self, timeout_s: float) -> Sprung | None:
        """The trap that has acted; None when none has in time."""
        deadline = time.monotonic() + timeout_s
        while not self._sprung and time.monotonic() < deadline:
            self._read(deadline)
        return self._sprung.popleft() if self._sprung else None

    def calm(self) -> None:
        """No rule, no trap, nothing held, on any link."""
        for name in self._targets:
            self.tell(Command(name, rule=Rule(), disarm=True, release=True))
        self._sprung.clear()

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._events.close()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
        except OSError as error:
            raise ScenarioError("the proxies have gone") from error

    def _read(self, deadline: float) -> Said | None:
        """The next line; None when none comes in time. What a trap says is kept."""
        assert self._process.stdout is not None
        while b"\n" not in self._buffer:
            if not self._events.select(max(deadline - time.monotonic(), 0)):
                return None
            piece = self._process.stdout.read(65536)
            if not piece:
                raise ScenarioError("the proxies have gone")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        said = msgspec.json.decode(line, type=Said)
        if said.sprung is not None:
            self._sprung.append(said.sprung)
        return said
