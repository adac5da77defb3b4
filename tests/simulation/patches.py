"""Where the product reads a clock, draws at random, connects, logs or opens a file by a name of its module, that name
is another one here: of the world that runs. Everything else of the product is as it is.
"""

import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import gateway.clock
import gateway.clock_steps
import gateway.committer
import gateway.draining
import gateway.following
import gateway.heart
import gateway.journaling
import gateway.leases
import gateway.live
import gateway.lookup
import gateway.publisher
import gateway.steward
import gateway.steward.expiry
import gateway.steward.relay
import gateway.tasks
import persistence.journal.file
import persistence.journal.folder
import persistence.journal.locked
import persistence.journal.reading
import persistence.postgres.control
import persistence.postgres.expiry
import persistence.postgres.ledger
import persistence.postgres.pipeline
import persistence.postgres.schema
import persistence.postgres.session
from core_ext import ids
from persistence.postgres.ledger import Entry
from tests.simulation import connection
from tests.simulation.control_functions import START_S
from tests.simulation.disk import Held, Kernel
from tests.simulation.loop import PROCESS
from tests.simulation.parts import HUNG_S

if TYPE_CHECKING:
    from tests.simulation.world import World

TIMED = (
    gateway.clock,
    gateway.committer,
    gateway.draining,
    gateway.journaling,
    gateway.publisher,
    gateway.steward,
    gateway.steward.expiry,
    persistence.postgres.control,
    persistence.postgres.expiry,
)
LOGGING = (
    gateway.clock_steps,
    gateway.committer,
    gateway.draining,
    gateway.following,
    gateway.heart,
    gateway.journaling,
    gateway.leases,
    gateway.live,
    gateway.lookup,
    gateway.publisher,
    gateway.steward,
    gateway.steward.expiry,
    gateway.steward.relay,
    gateway.tasks,
    persistence.postgres.ledger,
)


class Running:
    """The world that runs now."""

    world: "World"


NOW = Running()


class Time:
    """In the place of the module `time`."""

    @staticmethod
    def monotonic() -> float:
        return NOW.world.loop.now

    @staticmethod
    def time() -> float:
        process = PROCESS.get()
        return START_S + NOW.world.loop.now + (process.wall_step_s if process is not None else 0.0)


class Ids:
    """In the place of `core_ext.ids`: the random bits are the seed's."""

    time_of = staticmethod(ids.time_of)

    @staticmethod
    def new_id(ms: int) -> bytes:
        return (ms << 80 | NOW.world.random.getrandbits(80)).to_bytes(16, "big")


class Log:
    """In the place of a module's log: lines of the trace. What is logged as an exception must not happen."""

    def info(self, event: str, **values: object) -> None:
        if NOW.world._trace is not None:
            NOW.world.note("log", event, values)

    warning = error = info

    def exception(self, event: str, **values: object) -> None:
        NOW.world.fail(f"{event} {values}: {sys.exc_info()[1]!r}")


class Uuid:
    """In the place of the module `uuid`."""

    @staticmethod
    def uuid4() -> uuid.UUID:
        return uuid.UUID(int=NOW.world.random.getrandbits(128))


class System:
    """In the place of the module `os`."""

    @staticmethod
    def urandom(size: int) -> bytes:
        return NOW.world.random.randbytes(size)


class Files:
    """In the place of `persistence.journal.locked.LockedFile`."""

    @staticmethod
    def make(path: Path, content: bytes) -> Held:
        return Held.make(NOW.world.disk, path, content)

    @staticmethod
    def try_open(path: Path) -> Held | None:
        return Held.try_open(NOW.world.disk, path)


class Secrets:
    """In the place of the module `secrets`."""

    @staticmethod
    def token_bytes(size: int) -> bytes:
        return NOW.world.random.randbytes(size)


async def _connect(_url: str, name: str, timeout_s: float = 10.0, _session: object = None) -> connection.Connection:
    return await connection.connect(NOW.world.postgres, name, timeout_s)


async def _as_it_should_be(_: object) -> None:
    """The server is durable, and its schema new enough."""


async def _copy(opened: connection.Connection, _: object) -> None:
    await opened.copy()


def _messages(batch_id: bytes, entries: Sequence[Entry]) -> tuple[bytes, Sequence[Entry]]:
    return batch_id, entries


def _batch_arguments(entries: Sequence[Entry]) -> tuple[Sequence[Entry]]:
    return (entries,)


@contextmanager
def patched() -> Iterator[None]:
    """For the length of a block the product runs in `NOW.world`."""
    ledger, draining, journal = persistence.postgres.ledger, gateway.draining, persistence.journal
    aside = sys.modules[journal.quarantine.__module__]  # The function of that name hides its module.
    changes: list[tuple[Any, str, Any]] = [
        *((module, "time", Time) for module in TIMED),
        *((module, "log", Log()) for module in LOGGING),
        *((module, "ids", Ids) for module in (gateway.leases, gateway.committer, gateway.steward.expiry, draining)),
        (gateway.leases, "uuid", Uuid),
        (gateway.leases, "os", System),
        *((module, "os", Kernel) for module in (journal.file, journal.locked, journal.reading)),
        *((module, "LockedFile", Files) for module in (journal.file, journal.folder, aside)),
        (journal.file, "secrets", Secrets),
        (journal.folder, "_files", _files),
        (gateway.journaling, "ThreadPoolExecutor", lambda *_: object()),
        (persistence.postgres.control, "HUNG_S", HUNG_S),
        (persistence.postgres.session, "connect", _connect),
        (ledger, "connect", _connect),
        (ledger, "ensure_durable", _as_it_should_be),
        (ledger, "_messages", _messages),
        (ledger, "_arguments", _batch_arguments),
        (ledger, "_copy", _copy),
        (ledger, "UUID", _raw),
        (persistence.postgres.schema, "ensure_new_enough", _as_it_should_be),
        (persistence.postgres.pipeline, "open_on", _itself),
    ]
    with ExitStack() as stack:
        for module, name, value in changes:
            stack.enter_context(patch.object(module, name, value))
        yield


def _files(_folder: Path, *endings: str) -> list[Path]:
    return NOW.world.disk.paths(endings)


def _raw(value: bytes) -> bytes:
    return value


def _itself(opened: Any) -> Any:
    return opened
