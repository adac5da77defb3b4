"""What the buyers did and were told, on a disk that the system under test knows nothing of.

An entry that announces a request is on the disk before the request is sent, together with all others of that moment; an
answer follows as soon as it is there. A request that was announced and has no answer may have had an effect.
"""

import asyncio
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Literal

import msgspec

READ_BYTES_MAX = 1 << 22

What = Literal["invoke", "ok", "receipt", "refused", "unknown", "hung"]
Kind = Literal["order", "other", "cancel"]


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`at` is monotonic, in seconds, the same for every process of this machine. `kind`: an order; an order under a key
    that has another body already; a cancellation. `code` is that of a refusal. `digest` is of the answer's body.
    """

    at: float
    what: What
    key: str
    attempt: int
    kind: Kind = "order"
    status: int = 0
    code: str = ""
    order_id: str = ""
    digest: str = ""
    replayed: bool = False
    items: tuple[tuple[str, int], ...] = ()
    customer: str = ""


class History:
    """The writing side, of one process; `run` has to run meanwhile."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lines: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._filled = asyncio.Event()
        self._closed = False

    async def announce(self, entry: Entry) -> None:
        """Returns when the entry is on the disk."""
        durable = asyncio.get_running_loop().create_future()
        self._waiting.append(durable)
        self.note(entry)
        await durable

    def note(self, entry: Entry) -> None:
        self._lines.append(msgspec.json.encode(entry) + b"\n")
        self._filled.set()

    async def run(self) -> None:
        """Write and sync what has come, all of it together, until closed."""
        while not self._closed or self._lines:
            await self._filled.wait()
            self._filled.clear()
            await self._flush()
        os.close(self._descriptor)

    def close(self) -> None:
        """Nothing comes any more; `run` ends when all is on the disk."""
        self._closed = True
        self._filled.set()

    async def _flush(self) -> None:
        lines, self._lines = self._lines, []
        waiting, self._waiting = self._waiting, []
        if lines:
            await asyncio.to_thread(self._write, b"".join(lines))
        for durable in waiting:
            if not durable.done():
                durable.set_result(None)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]
        os.fdatasync(self._descriptor)


class Reader:
    """Reads a history while it is written: what has come since the last time, whole lines only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self.entries: list[Entry] = []
        self.acknowledged_at: list[float] = []

    def look(self) -> int:
        """Take in what is new. Returns how many entries that was."""
        before = len(self.entries)
        for line in self._new_lines():
            entry = msgspec.json.decode(line, type=Entry)
            self.entries.append(entry)
            if entry.kind == "order" and entry.what in ("ok", "receipt"):
                self.acknowledged_at.append(entry.at)
        return len(self.entries) - before

    def first_acknowledged_after(self, at: float) -> float | None:
        """When the first order after `at` was acknowledged, of those read."""
        return min((one for one in self.acknowledged_at if one >= at), default=None)

    def longest_silence(self, since: float, until: float) -> float:
        """The longest time in this span, in seconds, in which no order was acknowledged, of those read."""
        moments = [since, *sorted(at for at in self.acknowledged_at if since < at < until), until]
        return max(later - earlier for earlier, later in pairwise(moments))

    def _new_lines(self) -> Iterator[bytes]:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            while True:
                file.seek(self._at)
                whole, end, _ = file.read(READ_BYTES_MAX).rpartition(b"\n")
                if not end:
                    return
                self._at += len(whole) + 1
                yield from whole.split(b"\n")
