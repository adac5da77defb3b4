"""Power loss, as far as it can be had without a file system that forgets: `strace` writes down what workers write to
their journals and sync of them; they die, and what no sync had covered is taken back.

What a sync had covered when it began stays, whatever else: nothing that was acknowledged may rest on more. A file whose
name was never synced with its folder goes. The servers die in the same moment, and keep of their files what the kernel
has.
"""

import random
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from bench.faults.away import WRITTEN_S, ledger_away
from bench.faults.faults import Fault, MissedError, Traced
from bench.faults.site import ALL_WORKERS, DRAINED, GATEWAY, PROJECTOR, STEWARD, Site

# A sync takes so long, in microseconds, that a death often comes between a write and its sync.
SYNC_DELAY_US = 100_000
CALLS = "pwrite64,ftruncate,fdatasync,fsync,linkat,?link"
OPTIONS = ("-y", "-s", "0", "-e", f"trace={CALLS}", "-e", f"inject=fdatasync:delay_enter={SYNC_DELAY_US}")
SERVERS = ("postgres", "valkey", "nats")
JOURNAL = ".journal"
SECTOR_BYTES = 512

_WHOLE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+)")
_BEGUN = re.compile(r"(\d+) +(\w+)\((.*) <unfinished \.\.\.>")
_ENDED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>.*\) += (-?\d+)")
_FILE = re.compile(r"\d+<([^>]*)>")
_NAMED = re.compile(r'"([^"]*)"')
# A journal is made under a name of its own first, and whoever has opened it is said to have that one open.
_STAGED = re.compile(r"(\.journal)\.[0-9a-f]+\.creating$")


class Call(NamedTuple):
    """A system call that has begun, or with `result` has ended. `path` is that of the file, or the name that a link
    makes; `numbers` are its last arguments.
    """

    task: str
    name: str
    path: str
    numbers: tuple[int, ...]
    result: int | None = None


class Extent:
    """How far a file was written, and how far that is sure to be on the disk, in bytes; whether its name is."""

    def __init__(self, size: int, *, named: bool) -> None:
        self.begun = self.written = self.synced = size
        self.linked = self.named = named


class Synced:
    """What had been synced of the journals of a folder, told by the calls of their owners. `files` are by path; those
    of `before`, path and size, are durable from the beginning.
    """

    def __init__(self, folder: Path, before: dict[str, int]) -> None:
        self.files = {path: Extent(size, named=True) for path, size in before.items()}
        self._folder = str(folder)
        self._begun: dict[str, tuple[Call, int, list[Extent]]] = {}

    def hear(self, lines: Iterable[str]) -> None:
        """What `strace -f -y` has written down."""
        for call in _calls(lines):
            if call.result is None:
                # Only what is there when a sync begins is sure to be covered by it.
                linked = [file for file in self.files.values() if file.linked]
                written = self.files[call.path].written if call.path in self.files else 0
                self._begun[call.task] = call, written, linked
            elif (begun := self._begun.pop(call.task, None)) is not None and call.result >= 0:
                self._ended(begun[0], call.result, begun[1], begun[2])

    def _ended(self, call: Call, result: int, written: int, linked: list[Extent]) -> None:
        if call.name == "fsync" and call.path == self._folder:
            for file in linked:
                file.named = True
        if not call.path.endswith(JOURNAL):
            return
        file = self.files.setdefault(call.path, Extent(0, named=False))
        if call.name == "pwrite64":
            file.written = max(file.written, call.numbers[-1] + result)
        elif call.name == "ftruncate":  # What it had is on its way to be rows, or never was acknowledged.
            file.written = call.numbers[-1]
            file.synced = min(file.synced, file.written)
        elif call.name in ("link", "linkat"):
            file.linked = True
        else:
            file.synced = max(file.synced, min(written, file.written))


class PowerLost(Fault):
    """Everything dies with orders in the journals, which keep what was synced."""

    def __init__(self, site: Site, pick: random.Random) -> None:
        self._site = site
        self._pick = pick
        self._away = ledger_away(site)
        self._trace: Traced | None = None

    def inject(self) -> None:
        self._site.until(self._site.has_all_workers, ALL_WORKERS)
        self._site.until(self._site.has_drained, DRAINED)
        sizes = {str(path): path.stat().st_size for path in self._journals()}
        synced = Synced(self._site.journals.resolve(), sizes)
        self._trace = Traced(self._site, self._site.workers(), *OPTIONS)
        self._trace.inject()
        self._away.inject()
        time.sleep(WRITTEN_S + self._pick.uniform(0, SYNC_DELAY_US / 1e6))
        for name in (GATEWAY, STEWARD, PROJECTOR):
            self._site.process(name).kill()
        for kind in SERVERS:
            self._site.server(kind).kill()
        self._trace.end()
        synced.hear(self._trace.said().splitlines())
        were_written = [forget(path, synced.files.get(str(path)), self._pick) for path in self._journals()]
        if not any(were_written):
            raise MissedError

    def undo(self) -> None:
        self._away.undo()
        if self._trace is not None:
            self._trace.end()
        self._site.ensure_running()

    def _journals(self) -> list[Path]:
        return sorted(self._site.journals.resolve().glob(f"*{JOURNAL}"))


def forget(path: Path, file: Extent | None, pick: random.Random) -> bool:
    """Leave of a journal what the disk is sure to have, and behind it whatever the generator says: nothing, zeros,
    noise, or some of the sectors that were written. Returns whether it had been written to meanwhile.
    """
    if file is None or not file.named:
        path.unlink()
        return False
    with path.open("r+b") as journal:
        journal.seek(file.synced)
        rest = journal.read()
        journal.truncate(file.synced)
        journal.seek(file.synced)
        journal.write(_left(rest, pick))
    return file.written > file.begun


def _left(rest: bytes, pick: random.Random) -> bytes:
    kind = pick.choice(("nothing", "zeros", "noise", "sectors"))
    if kind == "nothing":
        return b""
    if kind == "noise":
        return pick.randbytes(len(rest))
    share = 0.5 if kind == "sectors" else 0.0
    sectors = (rest[at : at + SECTOR_BYTES] for at in range(0, len(rest), SECTOR_BYTES))
    return b"".join(sector if pick.random() < share else bytes(len(sector)) for sector in sectors)


def _calls(lines: Iterable[str]) -> Iterator[Call]:
    """Each call twice, when it begins and when it ends."""
    for line in lines:
        if whole := _WHOLE.match(line):
            begun = _call(whole[1], whole[2], whole[3])
            yield begun
            yield begun._replace(result=int(whole[4]))
        elif begins := _BEGUN.match(line):
            yield _call(begins[1], begins[2], begins[3])
        elif ends := _ENDED.match(line):
            yield Call(ends[1], "", "", (), int(ends[2]))


def _call(task: str, name: str, arguments: str) -> Call:
    names, file = _NAMED.findall(arguments), _FILE.match(arguments)
    path = names[-1] if name in ("link", "linkat") and names else file[1] if file else ""
    numbers = tuple(int(word) for word in arguments.split(", ")[1:] if word.strip().isdigit())
    return Call(task, name, _STAGED.sub(r"\1", path), numbers)
