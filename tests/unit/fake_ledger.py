"""The ledger's functions as the worker's rooms ask for them, without a server: stock, the control connection, counts of
refusals. See `fakes`.
"""

from collections import Counter
from typing import Any

import asyncpg
import msgspec
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres.stock import OWNER_NOT_ALIVE

START_S = 1_790_000_000.0
NO_SHARDS: dict[str, Any] = {"shards": None, "frees": None, "versions": None}
PLENTY_MIN = 16  # units that the ledger grants at least while it has plenty


class FakeLease(msgspec.Struct):
    owner: str
    sku: str
    units: int
    used: int = 0
    active: bool = True


class FakeStock:
    """The ledger's stock functions: free units by SKU, leases, and who is alive (`dead` owners are not). It notes what
    is asked for, in `orders` the order's number by SKU of each take.
    """

    def __init__(self, **free: int) -> None:
        self.free = dict(free)
        self.leases: dict[bytes, FakeLease] = {}
        self.dead: set[str] = set()
        self.takes: list[list[bytes]] = []
        self.wants: list[tuple[str, int, int]] = []
        self.orders: list[dict[str, int]] = []

    def outstanding(self, sku: str) -> int:
        return sum(lease.units - lease.used for lease in self.leases.values() if lease.sku == sku and lease.active)

    def close(self, lease_id: bytes) -> int:
        lease = self.leases[lease_id]
        units = lease.units - lease.used if lease.active else 0
        lease.units, lease.active = lease.units - units, False
        self.free[lease.sku] += units
        return units

    def active(self, owner: str) -> set[bytes]:
        return {lease_id for lease_id, lease in self.leases.items() if lease.active and lease.owner == owner}

    def is_active(self, lease_id: bytes) -> bool:
        return lease_id in self.leases and self.leases[lease_id].active

    async def fetch(self, text: str, *arguments: Any) -> list[Any]:
        if "stock_take" in text:
            owner, _, leases, skus, least, most, orders = arguments
            return self._take(owner, [lease.bytes for lease in leases], skus, least, most, orders)
        if "from stock_shard" in text:
            return [(sku, 0, self.free[sku], 1) for sku in arguments[0]]
        assert "stock_give" in text, text
        _, leases, before, units = arguments
        return [self._give(*give) for give in zip(leases, before, units, strict=True)]

    async def fetchval(self, text: str, *arguments: Any) -> int:
        assert "stock_close" in text, text
        _, owner, leases = arguments
        return sum(self.close(lease.bytes) for lease in leases if lease.bytes in self.active(owner))

    def _take(
        self, owner: str, leases: list[bytes], skus: list[str], least: list[int], most: list[int], orders: list[int]
    ) -> list[dict[str, Any]]:
        if owner in self.dead:
            error = asyncpg.RaiseError("owner is not alive")
            error.sqlstate = OWNER_NOT_ALIVE
            raise error
        assert skus == sorted(skus)
        self.takes.append(leases)
        self.wants += zip(skus, least, most, strict=True)
        self.orders.append(dict(zip(skus, orders, strict=True)))
        short = {order for sku, need, order in zip(skus, least, orders, strict=True) if self.free.get(sku, 0) < need}
        wants = zip(leases, skus, least, most, (order in short for order in orders), strict=True)
        return [self._take_one(owner, *want) | self._shards(want[1]) | {"lease_id": UUID(want[0])} for want in wants]

    def _shards(self, sku: str) -> dict[str, Any]:
        return {"shards": [0], "frees": [self.free[sku]], "versions": [1]} if sku in self.free else NO_SHARDS

    def _take_one(self, owner: str, lease: bytes, sku: str, least: int, most: int, refused: bool) -> dict[str, Any]:  # noqa: FBT001 - by position
        if lease in self.leases:
            return {"granted": self.leases[lease].units, "free_left": None, "outstanding": None}
        if refused:
            return {"granted": 0, "free_left": self.free.get(sku, 0), "outstanding": self.outstanding(sku)}
        free = self.free.get(sku, 0)
        plenty = min(most, free // 4)
        is_plenty = plenty >= max(least, PLENTY_MIN)
        exact = least if free >= least else 0
        granted = plenty if is_plenty else exact
        if granted:
            self.free[sku] = free - granted
            self.leases[lease] = FakeLease(owner, sku, granted)
        if is_plenty or least == 0:
            return {"granted": granted, "free_left": None, "outstanding": None}
        return {"granted": granted, "free_left": free - granted, "outstanding": self.outstanding(sku)}

    def _give(self, lease_id: UUID, before: int, units: int) -> dict[str, Any]:
        lease = self.leases[lease_id.bytes]
        if lease.active and lease.units == before and before - units >= lease.used:
            lease.units -= units
            lease.active = lease.units > lease.used
            self.free[lease.sku] += units
        return {"lease_id": lease_id, "units": lease.units}


class FakeControl:
    """What the control connection is asked: the outcome of batches, heartbeats, leases."""

    def __init__(self, stock: FakeStock | None = None) -> None:
        self.outcome = "committed"
        self.others_may_hold = False
        self.stock = stock or FakeStock()
        self.registered: list[str] = []
        self.pinches: list[str | None] = []
        self.resolved: list[bytes] = []
        self.ended: list[tuple[int, str]] = []  # backends, with the names that they were ended by
        self.compared: list[int] = []  # the leases of each question about leases

    async def execute(self, text: str, *arguments: Any) -> None:
        if "insert into worker" in text:
            self.registered.append(arguments[0])
        if "pg_terminate_backend" in text:
            self.ended.append((arguments[0], arguments[1]))

    async def fetch(self, text: str, *arguments: Any) -> list[dict[str, Any]]:
        if "from stock_lease" in text:
            return [{"lease_id": UUID(lease)} for lease in self._leases(*arguments)]
        return []  # No committer hangs.

    def _leases(self, *arguments: Any) -> list[bytes]:
        """Those of the leases named that are active, or those of an owner after one."""
        if len(arguments) == 1:
            self.compared.append(len(arguments[0]))
            return [lease.bytes for lease in arguments[0] if self.stock.is_active(lease.bytes)]
        owner, after, leases_max = arguments
        found = sorted(lease for lease in self.stock.active(owner) if lease > after.bytes)[:leases_max]
        self.compared.append(len(found))
        return found

    async def fetchval(self, text: str, *arguments: Any) -> Any:
        if "select outcome" in text:
            self.resolved.append(arguments[0].bytes)
            return self.outcome
        if not arguments:
            return Moment(START_S)
        owner, pinch, *_ = arguments
        self.pinches.append(pinch)
        return None if owner in self.stock.dead else self.others_may_hold


class FakeRefusals:
    """The ledger's counts of refusals, by (sale, code)."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.error: Exception | None = None  # raised while it is there

    async def execute(self, text: str, sale_ids: list[str], codes: list[str], counts: list[int]) -> None:
        assert "insert into sale_refusal" in text, text
        if self.error:
            raise self.error
        named = list(zip(sale_ids, codes, strict=True))
        assert named == sorted(named)
        self.counts.update(dict(zip(named, counts, strict=True)))


class Moment:
    """A time of PostgreSQL's."""

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s

    def timestamp(self) -> float:
        return self._at_s
