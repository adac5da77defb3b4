"""Shows orders as they stand. Whatever asks together is one look-up in the ledger, and nothing is answered from memory
that somebody else may have changed: another worker, a steward.

Only an id that the ledger did not know a moment ago is not asked for again. That hides no order from its buyer: an id
is random, and nobody is told it before its order is committed; so whoever knows it asks after that.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice

from core_ext import ids
from core_ext.shapes import Order
from gateway.domain.access import Client
from gateway.domain.outcomes import Refusal
from gateway.lookup import Asker, Lookup, OverloadedError
from gateway.metrics import Counters
from persistence.errors import LedgerUnavailableError
from persistence.postgres.orders import StoredOrder

NOT_FOUND = Refusal("not_found")
UNKNOWN_S = 1.0  # how long an id that the ledger does not know is not asked for again
UNKNOWN_MAX = 50_000  # ids that are remembered: more than one worker answers in that time

Fetch = Callable[[Sequence[bytes]], Awaitable[dict[bytes, StoredOrder]]]
Restore = Callable[[StoredOrder], Order]


class Shield:
    """Ids that the ledger did not know within the last UNKNOWN_S. Beyond UNKNOWN_MAX the oldest are forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._asked_at: OrderedDict[bytes, float] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        return len(self._asked_at)

    def holds(self, order_id: bytes) -> bool:
        asked_at = self._asked_at.get(order_id)
        return asked_at is not None and self._clock() - asked_at < UNKNOWN_S

    def note(self, order_ids: Iterable[bytes], asked_at: float) -> None:
        """The ledger did not know these when it was asked at that moment, which is never before the last one."""
        for order_id in order_ids:
            self._asked_at[order_id] = asked_at
            self._asked_at.move_to_end(order_id)
        while len(self._asked_at) > UNKNOWN_MAX or self._is_first_over(asked_at):
            self._asked_at.popitem(last=False)

    def _is_first_over(self, now: float) -> bool:
        return any(now - asked_at >= UNKNOWN_S for asked_at in islice(self._asked_at.values(), 1))


class OrderReads:
    """One per worker."""

    def __init__(
        self, fetch: Fetch, restore: Restore, counters: Counters, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`fetch` gives the orders among these ids that exist; `restore` opens one for whoever wants to see it."""
        self._fetch = fetch
        self._restore = restore
        self._counters = counters
        self._clock = clock
        self._unknown = Shield(clock)
        self._lookup = Lookup(self._fetch_unshielded)

    async def find(self, order_id: bytes) -> Order | None:
        """The order as it stands, None when there is none. Raises LedgerUnavailableError, OverloadedError,
        LookupFailedError, VaultError.
        """
        if self._unknown.holds(order_id):
            self._counters.reads_shielded += 1
            return None
        stored = await self._lookup.find(order_id)
        return None if stored is None else self._restore(stored)

    def ask(self, order_id: bytes, asker: Asker[StoredOrder]) -> None:
        """Call `asker` with what `find` would open, at once or in the turn in which it is there. Raises
        OverloadedError.
        """
        if self._unknown.holds(order_id):
            self._counters.reads_shielded += 1
            asker(None, None)
        else:
            self._lookup.ask(order_id, asker)

    def opened(self, client: Client, stored: StoredOrder | None) -> Order | Refusal:
        """The order, if there is one and the client may see it. Raises VaultError."""
        return self._shown(client, None if stored is None else self._restore(stored))

    async def show(self, client: Client, text: str) -> Order | Refusal:
        """The order of this id, if there is one and the client may see it. Raises LookupFailedError, VaultError."""
        order_id = ids.parse_id(text)
        try:
            order = None if order_id is None else await self.find(order_id)
        except OverloadedError:
            return Refusal("overloaded")
        except LedgerUnavailableError:
            return Refusal("ledger_away")
        return self._shown(client, order)

    def _shown(self, client: Client, order: Order | None) -> Order | Refusal:
        if order is None or not (order.client_id == client.client_id or client.may("orders:read:all")):
            return NOT_FOUND
        return order

    async def run(self) -> None:
        """Look orders up until cancelled."""
        await self._lookup.run()

    async def _fetch_unshielded(self, order_ids: Sequence[bytes]) -> dict[bytes, StoredOrder]:
        """Some may have turned out to be unknown while they waited for this look-up."""
        asked = [order_id for order_id in order_ids if not self._unknown.holds(order_id)]
        self._counters.reads_shielded += len(order_ids) - len(asked)
        if not asked:
            return {}
        asked_at = self._clock()
        found = await self._fetch(asked)
        self._counters.reads_asked += len(asked)
        self._unknown.note([order_id for order_id in asked if order_id not in found], asked_at)
        return found
