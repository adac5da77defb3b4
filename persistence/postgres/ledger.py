"""The ledger's front door: one batch of orders, one transaction, on a connection that nothing else uses.

`commit` either says which orders live, or raises one of three things that must never be mixed up: the batch did not
happen (LedgerUnavailableError, PoisonError, BatchFencedError), or nobody knows yet (AmbiguousError: COMMIT was sent and
no `COMMIT` came back). An ambiguous batch is settled by `control.resolve`, whose answer never changes.

A batch goes in one write (`pipeline`), which undoes itself when an order is refused, and then step by step.
"""

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import asyncpg
import structlog
from asyncpg.pgproto.pgproto import UUID

from persistence.errors import LedgerUnavailableError, PoisonError
from persistence.postgres import frames, pipeline, schema
from persistence.postgres.connect import UNREACHABLE, connect, ensure_durable
from persistence.postgres.orders import HISTORY, LINE, ORDER

COPY_BYTES_MAX = 512 * 1024 - 1024  # asyncpg waits without limit for a stalled peer beyond 512 KiB
COMMIT_NAME = "fg-commit:"
# The order of the fields in the rows of an Entry. Named in each COPY, so that a column added later does not shift them.
COLUMNS = {
    "orders": ORDER.split(", "),
    "order_lines": LINE.split(", "),
    "order_history": HISTORY.split(", "),
    "order_key": ["order_id", "master_version", "wrapped"],
}
COMMIT_BATCH = (
    "select at, verdict, stored_order, stored_fingerprint, over_sku, over_taken "
    "from commit_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
)
COMMIT_LOST = "select at, stored_order, stored_fingerprint from commit_lost($1, $2, $3, $4)"
BEGIN = "begin isolation level read committed"
# The statements of a batch in one write, by the names that they are prepared under.
WHOLE = {
    "fg_begin": BEGIN,
    "fg_batch": "select commit_whole($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    **{
        f"fg_{table}": f"copy {table} ({', '.join(columns)}) from stdin (format binary)"
        for table, columns in COLUMNS.items()
    },
    "fg_commit": "commit",
}
_BEGIN = frames.call("fg_begin", ())
_COMMIT = frames.call("fg_commit", ()) + frames.SYNC
REFUSED = "FG001"  # commit_whole: an order of the batch does not live, for its leases or a limit
# Careless plans made the update of leases 7 times slower; the generic plan walks the primary keys whatever the arrays
# hold. A transaction ends within TRANSACTION_MS whatever its client does, unless its backend is stopped inside COPY
# (see `control.reap`).
TRANSACTION_MS = 15_000
SESSION = {"plan_cache_mode": "force_generic_plan", "transaction_timeout": str(TRANSACTION_MS)}

# Errors before COMMIT that say nothing about the orders: the same batch may succeed later.
ABORTED = (
    *UNREACHABLE,
    asyncpg.TransactionRollbackError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
)

log = structlog.get_logger("ledger")


class Limit(NamedTuple):
    """The order wants `units` of a stock key, of which its customer may hold `units_max` in live orders."""

    sku: str
    customer: str
    units: int
    units_max: int

    @property
    def buyer(self) -> tuple[str, str]:
        """What a batch may hold once."""
        return self.sku, self.customer


class Entry(NamedTuple):
    """An order on its way into the ledger: ids of 16 bytes, its parts of leases as (lease, units), and its rows in
    binary COPY form, in pieces that are each far smaller than COPY_BYTES_MAX. `limits` name each stock key once.
    """

    order_id: bytes
    key_hash: bytes
    fingerprint: bytes
    parts: list[tuple[bytes, int]]
    order_row: bytes
    line_rows: list[bytes]
    history_row: bytes
    key_row: bytes
    limits: Sequence[Limit] = ()


class Refusal(NamedTuple):
    """An order of the batch that does not live. `duplicate`: the key belongs to `stored_order`, whose body had
    `stored_fingerprint`. `limit`: the customer holds `taken` (stock key, units) already, too many for this order.
    """

    entry: Entry
    verdict: Literal["duplicate", "fenced", "limit"]
    stored_order: bytes
    stored_fingerprint: bytes
    taken: tuple[tuple[str, int], ...] = ()


class AmbiguousError(Exception):
    """COMMIT was sent and not answered. `refusals` is what commit_batch said; it holds if the batch turns out to be
    committed.
    """

    def __init__(self, backend_pid: int, refusals: list[Refusal]) -> None:
        super().__init__("COMMIT was sent and not answered")
        self.backend_pid = backend_pid
        self.refusals = refusals


class BatchFencedError(Exception):
    """The batch id exists already: it was fenced while in doubt. Send the orders under a new one."""


class Ledger:
    """A committer's connection. Not safe for two callers at once: a lane owns it. Unless `pipelined`, no batch goes in
    one write.
    """

    def __init__(self, url: str, owner: str, command_timeout_s: float, *, pipelined: bool = True) -> None:
        self._url = url
        self._name = COMMIT_NAME + owner
        self._command_timeout_s = command_timeout_s
        self._pipelined = pipelined
        self._connection: asyncpg.Connection | None = None
        self._pipeline: pipeline.Pipeline | None = None
        self._statements: list[asyncpg.prepared_stmt.PreparedStatement] = []
        # After a refusal the next batch goes step by step: refusals come together, and an attempt in vain costs more
        # than the round trips.
        self._careful = False
        self.backend_pid = 0  # of the present connection, or of the last one

    @property
    def way(self) -> Literal["pipelined", "stepwise", "closed"]:
        """How a batch goes to the server."""
        if self._connection is None:
            return "closed"
        return "stepwise" if self._pipeline is None else "pipelined"

    async def ensure_open(self) -> None:
        """Connect unless connected. Raises LedgerUnavailableError, also for a schema that is older than needed, or
        NotDurableError for a server that may lose what it acknowledges.
        """
        if self._connection is not None and not self._connection.is_closed():
            return
        connection = await connect(self._url, self._name, self._command_timeout_s, SESSION)
        try:
            await ensure_durable(connection)
            await schema.ensure_new_enough(connection)
            self._statements = [await connection.prepare(COMMIT_BATCH)]
            self._pipeline = pipeline.open_on(connection) if self._pipelined else None
            if self._pipeline is not None:
                # Kept, because the driver closes a statement that nobody holds.
                self._statements += [await connection.prepare(text, name=name) for name, text in WHOLE.items()]
            # The driver prepares without a Sync: a transaction stays open, until somebody takes it for a hung one.
            await connection.execute("select 1")
        except UNREACHABLE as error:
            connection.terminate()
            raise LedgerUnavailableError(f"PostgreSQL did not answer: {error!r}") from error
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection
        self.backend_pid = connection.get_server_pid()
        log.info("ledger_opened", way=self.way)

    def close(self) -> None:
        """Drop the connection at once. An open transaction is rolled back by the server."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def commit(self, batch_id: bytes, entries: Sequence[Entry]) -> list[Refusal]:
        """Commit `entries`, each with a key of its own, and no two with a limit of the same stock key and customer.
        Returns those that do not live; all others are durable when this returns.
        """
        await self.ensure_open()
        assert self._connection is not None
        entries = sorted(entries, key=attrgetter("key_hash"))
        assert len({entry.key_hash for entry in entries}) == len(entries)
        begin = BEGIN
        if self._pipeline is not None and not self._careful:
            if await self._commit_whole(self._connection, self._pipeline, batch_id, entries):
                return []
            begin = f"rollback; {BEGIN}"
        refusals = await self._commit_stepwise(self._connection, batch_id, entries, begin)
        self._careful = bool(refusals)
        return refusals

    async def commit_lost(self, batch_id: bytes, entries: Sequence[Entry]) -> list[Refusal]:
        """Store orders that were acknowledged and whose units are gone: `order_row` is that of the cancelled order,
        `history_row` both rows of its history, and there are no parts. Returns the duplicates, which are not stored;
        raises as `commit` does.
        """
        await self.ensure_open()
        assert self._connection is not None
        entries = sorted(entries, key=attrgetter("key_hash"))
        assert not any(entry.parts or entry.limits for entry in entries), "a lost order holds nothing"
        return await self._commit_stepwise(self._connection, batch_id, entries, BEGIN, lost=True)

    async def _commit_whole(
        self, connection: asyncpg.Connection, way: pipeline.Pipeline, batch_id: bytes, entries: Sequence[Entry]
    ) -> bool:
        """False when an order is refused: nothing has happened, and the failed transaction is still open. COMMIT is in
        what is written, so from then on only an answer up to its end says what became of the batch.
        """
        try:
            messages = _messages(batch_id, entries)
        except frames.EncodeError as error:
            raise PoisonError(f"a row is refused: {error!r}") from error
        backend_pid = connection.get_server_pid()
        try:
            async with asyncio.timeout(self._command_timeout_s):
                answer = await way.exchange(messages)
        except BaseException as error:
            self.close()
            if isinstance(error, asyncio.CancelledError):
                raise  # The caller is going: nobody is left who could settle what became of the batch.
            raise AmbiguousError(backend_pid, []) from error
        if answer.error is None and (answer.tag, answer.state) == ("COMMIT", "I"):
            return True
        if answer.error is not None and _is_refusal(answer.error):
            return False
        self.close()
        if answer.tag == "COMMIT":  # Whatever was said behind it, it may be done.
            raise AmbiguousError(backend_pid, []) from answer.error
        if answer.error is None:
            raise LedgerUnavailableError(f"the batch was rolled back: {answer.tag}")
        raise _aborted(answer.error) from answer.error

    async def _commit_stepwise(
        self,
        connection: asyncpg.Connection,
        batch_id: bytes,
        entries: Sequence[Entry],
        begin: str,
        *,
        lost: bool = False,
    ) -> list[Refusal]:
        """The public way: a round trip a statement, so that the rows of the living alone are copied."""
        backend_pid = connection.get_server_pid()
        refusals: list[Refusal] = []
        commit_sent = False
        # Cancelling does not end a COPY that waits for a stalled peer; terminating its connection does.
        watchdog = asyncio.get_running_loop().call_later(2 * self._command_timeout_s, connection.terminate)
        try:
            await connection.execute(begin)
            if lost:
                rows = await connection.fetch(COMMIT_LOST, UUID(batch_id), *_arguments(entries)[:3])
                refusals = [_duplicate(entries, row) for row in rows]
            else:
                rows = await self._statements[0].fetch(UUID(batch_id), *_arguments(entries))
                refusals = [_refusal(entries, row) for row in rows]
            await _copy(connection, _living(entries, refusals))
            commit_sent = True
            tag = await connection.execute("commit")
        except BaseException as error:
            self.close()
            if isinstance(error, asyncio.CancelledError):
                raise  # The caller is going: nobody is left who could settle what became of the batch.
            if commit_sent:
                raise AmbiguousError(backend_pid, refusals) from error
            raise _aborted(error) from error
        finally:
            watchdog.cancel()
        if tag != "COMMIT":
            # An aborted transaction answers ROLLBACK without an error.
            self.close()
            raise LedgerUnavailableError(f"the batch was rolled back: {tag}")
        return refusals


class _Arrays(NamedTuple):
    """What is asked of a batch besides its id and its demand, in parallel columns. Limits are in the order of their
    stock keys and customers: at which order they stand, stock key, customer, units, most units.
    """

    keys: list[bytes]
    orders: list[bytes]
    fingerprints: list[bytes]
    limits: tuple[list[int], list[str], list[str], list[int], list[int]]


def _arrays(entries: Sequence[Entry]) -> _Arrays:
    limits: list[tuple[str, str, int, int, int]] = []
    for at, entry in enumerate(entries, 1):
        if entry.limits:
            limits += ((*limit, at) for limit in entry.limits)
    limits.sort()
    assert all(one[:2] != other[:2] for one, other in itertools.pairwise(limits))
    return _Arrays(
        [entry.key_hash for entry in entries],
        [entry.order_id for entry in entries],
        [entry.fingerprint for entry in entries],
        (
            [at for *_, at in limits],
            [sku for sku, *_ in limits],
            [customer for _, customer, *_ in limits],
            [wanted for _, _, wanted, *_ in limits],
            [units_max for *_, units_max, _ in limits],
        ),
    )


def _demand(entries: Sequence[Entry]) -> tuple[list[int], list[bytes], list[int]]:
    """At which order, of which lease, how many units."""
    parts = [(at, lease, units) for at, entry in enumerate(entries, 1) for lease, units in entry.parts]
    return [at for at, _, _ in parts], [lease for _, lease, _ in parts], [units for _, _, units in parts]


def _demand_in_all(entries: Sequence[Entry]) -> tuple[list[bytes], list[int]]:
    """Each lease once, in their order, and the units that are wanted of it."""
    demand: dict[bytes, int] = {}
    for entry in entries:
        for lease, units in entry.parts:
            demand[lease] = demand.get(lease, 0) + units
    leases = sorted(demand)
    return leases, [demand[lease] for lease in leases]


def _messages(batch_id: bytes, entries: Sequence[Entry]) -> bytes:
    """The whole transaction in one piece; it ends without a trace unless every order lives."""
    arrays, (leases, units) = _arrays(entries), _demand_in_all(entries)
    _, skus, customers, wanted, units_max = arrays.limits
    arguments = (
        batch_id,
        frames.uuids(arrays.keys),
        frames.uuids(arrays.orders),
        frames.uuids(arrays.fingerprints),
        frames.uuids(leases),
        frames.int8s(units),
        frames.texts(skus),
        frames.texts(customers),
        frames.int8s(wanted),
        frames.int8s(units_max),
    )
    copies = [piece for table, rows in _rows(entries) for piece in frames.copy(f"fg_{table}", rows)]
    return b"".join((_BEGIN, frames.call("fg_batch", arguments), *copies, _COMMIT))


def _arguments(entries: Sequence[Entry]) -> tuple[list[Any], ...]:
    arrays, (at, leases, units) = _arrays(entries), _demand(entries)
    ids = [[UUID(one) for one in column] for column in (arrays.keys, arrays.orders, arrays.fingerprints)]
    return (*ids, at, [UUID(lease) for lease in leases], units, *arrays.limits)


def _is_refusal(error: asyncpg.PostgresError) -> bool:
    """Whether commit_whole says that an order does not live, and no more than that."""
    known_key = isinstance(error, asyncpg.UniqueViolationError) and error.table_name == "idempotency_key"
    return bool(known_key or error.sqlstate == REFUSED)


def _duplicate(entries: Sequence[Entry], row: asyncpg.Record) -> Refusal:
    entry = entries[row["at"] - 1]
    return Refusal(entry, "duplicate", row["stored_order"].bytes, row["stored_fingerprint"].bytes)


def _refusal(entries: Sequence[Entry], row: asyncpg.Record) -> Refusal:
    if row["verdict"] == "duplicate":
        return _duplicate(entries, row)
    taken = tuple(zip(row["over_sku"] or (), row["over_taken"] or (), strict=True))
    return Refusal(entries[row["at"] - 1], row["verdict"], b"", b"", taken)


def _living(entries: Sequence[Entry], refusals: list[Refusal]) -> Sequence[Entry]:
    if not refusals:
        return entries
    dead = {refusal.entry.key_hash for refusal in refusals}
    return [entry for entry in entries if entry.key_hash not in dead]


def _rows(entries: Sequence[Entry]) -> tuple[tuple[str, list[bytes]], ...]:
    return (
        ("orders", [entry.order_row for entry in entries]),
        ("order_lines", [piece for entry in entries for piece in entry.line_rows]),
        ("order_history", [entry.history_row for entry in entries]),
        ("order_key", [entry.key_row for entry in entries if entry.key_row]),
    )


async def _copy(connection: asyncpg.Connection, entries: Sequence[Entry]) -> None:
    for table, rows in _rows(entries):
        for payload in _payloads(rows):
            # A view, because the driver takes plain bytes for the name of a file.
            await connection.copy_to_table(table, source=memoryview(payload), columns=COLUMNS[table], format="binary")


def _payloads(rows: Iterable[bytes]) -> Iterable[bytes]:
    """The rows as COPY streams of at most COPY_BYTES_MAX each; a piece of `rows` is never cut."""
    pieces: list[bytes] = []
    size = 0
    for row in rows:
        if pieces and size + len(row) > COPY_BYTES_MAX:
            yield b"".join((frames.COPY_HEADER, *pieces, frames.COPY_TRAILER))
            pieces, size = [], 0
        pieces.append(row)
        size += len(row)
    if pieces:
        yield b"".join((frames.COPY_HEADER, *pieces, frames.COPY_TRAILER))


def _aborted(error: BaseException) -> Exception:
    """What the caller has to do about an error that came before COMMIT was sent."""
    if isinstance(error, asyncpg.UniqueViolationError) and "batch" in (error.table_name or ""):
        return BatchFencedError("the batch id exists already")
    if isinstance(error, asyncpg.CheckViolationError) and error.constraint_name is None:
        return LedgerUnavailableError(f"no partition takes the rows: {error}")
    if isinstance(error, asyncpg.DataError | asyncpg.IntegrityConstraintViolationError):
        return PoisonError(f"a row is refused: {error!r}")
    if isinstance(error, ABORTED):
        return LedgerUnavailableError(f"the batch did not happen: {error!r}")
    assert isinstance(error, Exception), error
    return error
