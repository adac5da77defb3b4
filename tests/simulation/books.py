"""The ledger's tables in memory, and what makes a change of them a transaction: locks that others wait for, and effects
that are there at once or not at all.

It promises what PostgreSQL does at READ COMMITTED: whoever meets a locked row waits and then sees what has become of
it, and what was not committed was never there. It knows nothing of connections and of time-outs (see `postgres`).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from msgspec import Struct

EPOCH_S = 1_790_000_000.0  # the server's clock counts from there
Effect = Callable[[], None]
Demand = Sequence[tuple[str, int]]


class BlockedError(Exception):
    """A row is locked by somebody else, whose end has to be waited for."""

    def __init__(self, holder: "Transaction") -> None:
        super().__init__()
        self.holder = holder


class Lease(Struct, eq=False):
    lease_id: bytes
    owner: str
    sku: str
    units: int
    used: int = 0
    is_active: bool = True


class Owner(Struct, eq=False):
    """A row of `worker`; `seen_at_s` by the server's clock."""

    seen_at_s: float
    state: str = "alive"
    journal: str | None = None
    records: int = 0


class Asked(NamedTuple):
    """What an order wants, as its buyer knows it."""

    demand: Demand
    customer: str
    limited: Demand = ()


class Stored(Struct, eq=False):
    """An order. `versions` are the changes of it that have to be told; `created_s` and `due_s` are by the server's
    clock.
    """

    order_id: bytes
    key_hash: bytes
    fingerprint: bytes
    asked: Asked
    created_s: float
    due_s: float
    versions: int = 1
    status: str = "pending_payment"

    @property
    def is_live(self) -> bool:
        """Whether it holds what it has asked for."""
        return self.status in {"pending_payment", "paid"}


class Told(Struct, eq=False):
    """A row of the outbox."""

    changes: list[tuple[bytes, int]]
    created_at_s: float


class Transaction:
    """What one backend has done since BEGIN; `is_open` is false for a statement by itself, which keeps no lock."""

    __slots__ = ("began_at_s", "effects", "has_failed", "is_open", "locks", "waiting")

    def __init__(self, *, is_open: bool, began_at_s: float = 0.0) -> None:
        self.is_open = is_open
        self.began_at_s = began_at_s
        self.has_failed = False
        self.locks: list[Hashable] = []
        self.effects: list[Effect] = []
        self.waiting: list[Callable[[], None]] = []

    def do(self, effect: Effect) -> None:
        """Change the books: now, or when the transaction is committed."""
        if self.is_open:
            self.effects.append(effect)
        else:
            effect()


class Books:
    """The tables. `asked` tells by fingerprint what an order wants; `fail` is told what must never be."""

    def __init__(self, now_s: Callable[[], float], fail: Callable[[str], None]) -> None:
        self.now_s = now_s  # the machine's; the server's clock is `clock_s`
        self.fail = fail
        self.step_s = 0.0
        self.is_seen, self.is_blind = False, False  # whether a steward has seen the clock as it is; missed how it was
        self.locks: dict[Hashable, Transaction] = {}
        self.total: dict[str, int] = {}
        self.shards: dict[str, list[list[int]]] = {}  # (free, version) of each
        self.leases: dict[bytes, Lease] = {}
        self.active: dict[str, dict[bytes, Lease]] = {}  # by SKU
        self.owners: dict[str, Owner] = {}
        self.closed: set[str] = set()  # owners whose leases were closed for good
        self.batches: dict[bytes, str] = {}
        self.keys: dict[bytes, Stored] = {}
        self.orders: dict[bytes, Stored] = {}
        self.held: dict[str, int] = {}
        self.taken: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.outbox: dict[bytes, Told] = {}
        self.due: set[str] = set()  # the events of all that is committed
        self.aliases: dict[bytes, bytes] = {}
        self.asked: dict[bytes, Asked] = {}
        self.waiting: dict[bytes, Stored] = {}  # orders for their payment
        self.payment_s = 0.0  # how long they may
        self.asked_at_s: dict[bytes, tuple[float, float]] = {}  # key -> when its buyer asked first, by both clocks
        self.steps: list[tuple[float, float]] = []  # of the clock: noted at, seconds ahead
        self.looks: dict[str, dict[str, Any]] = {}  # at the clock, by the boot of the host
        self.returned: list[tuple[float, str, int]] = []  # units of orders that expired: when, of what, how many
        self.given: set[tuple[bytes, int]] = set()  # gives that have moved units: lease, and the units it had
        self.rung: dict[str, int] = {}
        self.revision = 0

    def stock(self, sku: str, units: int, shards: int) -> None:
        self.total[sku], self.held[sku], self.active[sku] = units, 0, {}
        self.shards[sku] = [[units // shards + (at < units % shards), 1] for at in range(shards)]

    def step(self, step_s: float) -> None:
        """Put the server's clock so much ahead of what it should be."""
        self.is_blind |= not self.is_seen
        self.step_s, self.is_seen = step_s, False

    @property
    def clock_s(self) -> float:
        return self.now_s() + self.step_s

    def free(self, sku: str) -> int:
        return sum(shard[0] for shard in self.shards[sku])

    def outstanding(self, sku: str) -> int:
        return sum(lease.units - lease.used for lease in self.active[sku].values())

    def lock(self, transaction: Transaction, *row: Any) -> None:
        """Raises BlockedError while somebody else has it."""
        holder = self.locks.get(row)
        if holder is None:
            if transaction.is_open:
                self.locks[row] = transaction
                transaction.locks.append(row)
        elif holder is not transaction:
            raise BlockedError(holder)

    def commit(self, transaction: Transaction) -> bool:
        """False when it had failed before: then it is rolled back."""
        if not transaction.has_failed:
            for effect in transaction.effects:
                effect()
        self.end(transaction)
        return not transaction.has_failed

    def end(self, transaction: Transaction) -> None:
        """Give up the locks, and let those who wait for them try again."""
        for row in transaction.locks:
            del self.locks[row]
        transaction.locks.clear()
        transaction.effects.clear()
        transaction.is_open = False
        waiting, transaction.waiting = transaction.waiting, []
        for again in waiting:
            again()

    def check(self, skus: Sequence[str]) -> None:
        """The audit, for some SKUs: nothing is sold that was not there, and every unit is somewhere."""
        for sku in skus:
            free, outstanding, held, total = self.free(sku), self.outstanding(sku), self.held[sku], self.total[sku]
            if held > total:
                self.fail(f"I1: {held} units of {sku} are held, of {total}")
            if free + outstanding + held != total:
                self.fail(f"I2: {sku}: {total} <> {free} free + {outstanding} in hands + {held} held")
            if min((shard[0] for shard in self.shards[sku]), default=0) < 0:
                self.fail(f"a shard of {sku} has less than nothing")
            for lease in self.active[sku].values():
                if not 0 <= lease.used <= lease.units:
                    self.fail(f"a lease of {sku} has {lease.units} units, {lease.used} of them used")

    def check_all(self) -> None:
        """The rest of the audit, too."""
        self.check(list(self.total))
        held: defaultdict[str, int] = defaultdict(int)
        taken: defaultdict[tuple[str, str], int] = defaultdict(int)
        for stored in self.orders.values():
            if stored.is_live:
                for sku, units in stored.asked.demand:
                    held[sku] += units
                for sku, units in stored.asked.limited:
                    taken[sku, stored.asked.customer] += units
            if self.keys.get(stored.key_hash) is not stored:
                self.fail("I4: an order whose key belongs to another one")
        if {sku: held[sku] for sku in self.held} != self.held:
            self.fail(f"I2: orders hold {dict(held)}, and {self.held} is counted")
        if {key: units for key, units in self.taken.items() if units} != dict(taken):
            self.fail("I7: what buyers have taken is not what their orders say")
        for owner in self.closed:
            if any(lease.owner == owner for leases in self.active.values() for lease in leases.values()):
                self.fail(f"owner {owner[:8]} is closed for good and has an active lease")
