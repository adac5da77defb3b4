"""Faults of the journal, and of what the ledger's machine does beside it: what is broken while workers write down
orders that the ledger does not hear, or hears half.

To a worker the ledger is away as soon as its link refuses; that is quicker to make, and to end, than a dead server.
"""

import os
import random
import time
from contextlib import suppress
from pathlib import Path

from bench.faults import wire
from bench.faults.crowds import Client, Hand
from bench.faults.faults import SPRUNG_S, BrokenError, Fault, Killed, MissedError, Ruled, Traced
from bench.faults.mix import Wanted
from bench.faults.proxy import Rule, Trap
from bench.faults.site import ALL_WORKERS, DRAINED, GATEWAY, Site
from deploy.local import process_table
from persistence.journal import Record
from persistence.journal.format import pack_head
from persistence.journal.reading import Reader, read_header

LINK = "worker-postgres"
WRITTEN_S = 1.2  # until workers have noticed, and written down orders
KILLED_S = 5.0
LEFT_S = 20.0
POISON = "-poison-"
SPOILT = (b"-poison-", b"-poiso\0-")
POISONED_ORDERS = 3
FILLER_BYTES = 1 << 16
READ_BYTES_MAX = 1 << 24
REAPED_S = 14.0  # at the latest a committer that has hung for 10 s is ended by the next heartbeat
_ACTIVE = "select count(*) from stock_lease where state = 'active' and owner in ({})"
_BACKENDS = "select count(*) from pg_stat_activity where client_port = {}"


def ledger_away(site: Site) -> Ruled:
    return Ruled(site, [LINK], Rule(refuse=True))


class WhileWriting(Fault):
    """A worker's journal goes wrong by the system calls of its worker, while the ledger is away."""

    def __init__(self, site: Site, pick: random.Random, *options: str) -> None:
        self.worker = 0
        self._site = site
        self._pick = pick
        self._options = options
        self._away = ledger_away(site)
        self._trace: Traced | None = None

    def inject(self) -> None:
        self._site.until(self._site.has_all_workers, ALL_WORKERS)  # Who is not ready has no journal yet.
        self.worker = self._pick.choice(self._site.workers())
        self._trace = Traced(self._site, [self.worker], *self._options)
        self._trace.inject()
        self._away.inject()

    def undo(self) -> None:
        self._away.undo()
        if self._trace is not None:
            self._trace.undo()

    def has_ended(self, timeout_s: float) -> bool:
        """Whether the worker ends within this time."""
        deadline = time.monotonic() + timeout_s
        while process_table.is_running(self.worker):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def has_happened(self) -> bool:
        """Whether a system call went wrong."""
        return self._trace is not None and "INJECTED" in self._trace.said()


class KilledInSync(WhileWriting):
    """A worker is killed as it is about to sync its journal: at the first sync, or later ones, before which the earlier
    ones were acknowledged.
    """

    def __init__(self, site: Site, pick: random.Random) -> None:
        when = pick.randint(1, 3)
        super().__init__(site, pick, "-e", "trace=fdatasync", "-e", f"inject=fdatasync:signal=KILL:when={when}")

    def inject(self) -> None:
        super().inject()
        if not self.has_ended(KILLED_S):
            raise MissedError


class FailedSync(WhileWriting):
    """The disk of a worker's journal fails: the worker may acknowledge nothing more from it, and has to leave, at the
    latest when the ledger is back and can tell it what became of its last batch.
    """

    def __init__(self, site: Site, pick: random.Random) -> None:
        super().__init__(site, pick, "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO")

    def inject(self) -> None:
        super().inject()
        deadline = time.monotonic() + KILLED_S
        while not self.has_happened():
            if time.monotonic() > deadline:
                raise MissedError  # It had nothing to write down.
            time.sleep(0.02)

    def undo(self) -> None:
        has_happened = self.has_happened()
        super().undo()
        if has_happened and not self.has_ended(LEFT_S):
            raise BrokenError(f"a worker whose journal could not be synced has not left within {LEFT_S:.0f} s")


class Filled(Fault):
    """The disk of the journals is full while the ledger is away."""

    def __init__(self, site: Site) -> None:
        self._away = ledger_away(site)
        self._filler = site.journals / "filler"

    def inject(self) -> None:
        self._fill()
        self._away.inject()

    def undo(self) -> None:
        self._away.undo()
        self._filler.unlink(missing_ok=True)

    def _fill(self) -> None:
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(FILLER_BYTES))


class Abandoned(Fault):
    """All workers die with orders in their journals, which `spoil` may then do something to."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._away = ledger_away(site)
        self._killed = Killed(site, GATEWAY)

    def inject(self) -> None:
        self.site.until(self.site.has_all_workers, ALL_WORKERS)
        self.site.until(self.site.has_drained, DRAINED)  # Of the time before: else there are more and more.
        self._away.inject()
        time.sleep(WRITTEN_S)
        self._killed.inject()
        if not any(path.stat().st_size for path in self.journals()):
            raise MissedError
        self.spoil()
        self._away.undo()

    def undo(self) -> None:
        self._away.undo()
        self._killed.undo()

    def spoil(self) -> None:
        """What happens to the journals while nobody has them."""

    def journals(self) -> list[Path]:
        return sorted(self.site.journals.glob("*.journal"))


class Pinned(Abandoned):
    """The ledger is back long before the workers: nobody may close a lease of theirs as long as their journals may have
    orders of it.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._leases = 0

    def spoil(self) -> None:
        self._leases = self._active()

    def undo(self) -> None:
        closed = self._leases - self._active()
        super().undo()
        if closed > 0:
            raise BrokenError(f"{closed} leases were closed before the journals of their owners were replayed")

    def _active(self) -> int:
        owners = ", ".join(f"'{path.stem}'" for path in self.journals())
        return int(self.site.query(_ACTIVE.format(owners))) if owners else 0


class Torn(Abandoned):
    """What was being written when the machine crashed stands behind what was synced: the next record, whose length is
    there and whose bytes are only half, or pieces of older ones, and noise.
    """

    def __init__(self, site: Site, pick: random.Random) -> None:
        super().__init__(site)
        self._pick = pick

    def spoil(self) -> None:
        for path in self.journals():
            pieces = [self._next_record(path), self._piece(path), b""]
            with path.open("ab") as file:
                file.write(self._pick.choice(pieces) + self._pick.randbytes(self._pick.randint(0, 200)))

    def _piece(self, path: Path) -> bytes:
        data = path.read_bytes()
        return data[len(data) // 2 :][: self._pick.randint(1, 4000)]

    def _next_record(self, path: Path) -> bytes:
        """Its length is right, its end is zeros or noise; nothing when the journal has no record to make it of."""
        with path.open("rb") as file:
            header = read_header(file.fileno())
            records = Reader(file.fileno(), header, path.stat().st_size).read(0, READ_BYTES_MAX)
        if not records:
            return b""
        *_, last = records
        whole = Record(last.sequence + 1, last.kind, last.at_ms, last.payload)
        there = self._pick.randrange(len(last.payload) - 1)
        absent = len(last.payload) - there
        end = self._pick.choice([bytes(absent), self._pick.randbytes(absent)])
        return pack_head(whole, header.seed) + last.payload[:there] + end


class Twice(Abandoned):
    """Every journal is there twice, and both workers take them up at once."""

    def spoil(self) -> None:
        for path in self.journals():
            copy = path.with_name(f"{os.urandom(16).hex()}.journal")
            copy.write_bytes(path.read_bytes())
            copy.chmod(0o600)


class Swallowed(Fault):
    """A connection goes silent in the middle of a COPY, and PostgreSQL is not told: a backend that holds the locks of a
    batch has to be ended by somebody, however long its client says nothing.
    """

    def __init__(self, site: Site, after_bytes: int) -> None:
        self._site = site
        self._trap = Trap(wire.COPY_DATA.request, "hold", after_bytes=after_bytes)

    def inject(self) -> None:
        self._site.links.trap(LINK, self._trap)
        sprung = self._site.links.wait_sprung(SPRUNG_S)
        if sprung is None:
            raise MissedError
        deadline = time.monotonic() + REAPED_S
        while self._site.query(_BACKENDS.format(sprung.server_port)) != "0":
            if time.monotonic() > deadline:
                raise BrokenError(f"a committer that nobody hears of holds its locks after {REAPED_S:.0f} s")
            time.sleep(0.2)

    def undo(self) -> None:
        self._site.links.calm()
        self._site.ensure_running()


class Poisoned(Fault):
    """Bytes of some orders are made unreadable behind the gateway's validation, in the middle of batches: only those
    orders may suffer.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._rule = Ruled(client.site, [LINK], Rule(replace=SPOILT))
        self._orders = [self._spoilt() for _ in range(POISONED_ORDERS)]

    def inject(self) -> None:
        self._rule.inject()
        self._client.work(self._press)

    def undo(self) -> None:
        self._rule.undo()
        self._client.work(self._press_again)

    async def _press(self, hand: Hand) -> None:
        for wanted in self._orders:
            entry = await hand.order(wanted, 1)
            if entry.what == "ok":
                raise BrokenError(f"{wanted.key} was acknowledged, and PostgreSQL cannot have taken it")

    async def _press_again(self, hand: Hand) -> None:
        for wanted in self._orders:
            await hand.until_known(wanted, 2)

    def _spoilt(self) -> Wanted:
        wanted = self._client.next()
        run, _, number = wanted.key.partition("-client-")
        return wanted._replace(key=f"{run}{POISON}{number}")
