"""What the buyers of the fault matrix ask for: a seeded mix of orders, so that every way through the gateway is gone
while it is broken.

One line, several lines, a SKU with a limit per buyer, SKUs with so few units that they sell out. Each order carries its
key as `external_id`: the ledger itself says then whose order it is, whatever has become of the table of keys. Names and
notes are canaries, which must be found nowhere but sealed in the ledger.
"""

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.channels.feed import Goods

CHANNEL = "app"
CURRENCY = "CNY"
PRICE = 9900
PLENTY = "FAULT-PLENTY"
MANY = tuple(f"FAULT-MANY-{number:02}" for number in range(20))
LIMITED = "FAULT-LIMITED"
LIMIT_UNITS = 2
# Of each row. Of the last one workers take more than they need at first, so that its last units are in several hands.
SCARCE_UNITS = (60, 60, 120)
CUSTOMERS = 400
UNITS = 100_000_000
LINES_MAX = 5
CANARY_NAME = "Kanarienvogel-Zq7Xw"
CANARY_NOTE = "kanari-notiz-9fKp2"
RETRIED_SHARE = 0.10  # of the orders that were acknowledged
CANCELLED_SHARE = 0.05


class Wanted(NamedTuple):
    """An order before it is sent."""

    key: str
    customer: str
    items: tuple[tuple[str, int], ...]

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(document(self))


def scarce_skus(run: str) -> tuple[str, ...]:
    """The SKUs of one row that sell out."""
    return tuple(f"FAULT-SCARCE-{run}-{number}" for number in range(len(SCARCE_UNITS)))


def lasting_goods() -> list[Goods]:
    """What every row sells, without the SKU that has a limit."""
    return [Goods(sku, "Faults", PRICE, CURRENCY, UNITS) for sku in (PLENTY, *MANY)]


def scarce_goods(run: str) -> list[Goods]:
    skus = zip(scarce_skus(run), SCARCE_UNITS, strict=True)
    return [Goods(sku, "Faults", PRICE, CURRENCY, units) for sku, units in skus]


def document(wanted: Wanted) -> dict[str, Any]:
    """An order as it goes to the edge."""
    return {
        "channel": CHANNEL,
        "currency": CURRENCY,
        "customer_id": wanted.customer,
        "external_id": wanted.key,
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in wanted.items],
        "note": CANARY_NOTE,
        "ship_to": {"name": CANARY_NAME, "country": "CN"},
    }


class Mix:
    """Orders of one row, one after the other; `run` begins their keys."""

    def __init__(self, run: str, seed: int) -> None:
        self._run = run
        self._random = random.Random(seed)  # noqa: S311 - a workload is seeded
        self._scarce = scarce_skus(run)
        self._count = 0

    def next(self) -> Wanted:
        self._count += 1
        customer = f"faults-{self._random.randrange(CUSTOMERS)}"
        return Wanted(f"{self._run}-{self._count}", customer, self._items())

    def _items(self) -> tuple[tuple[str, int], ...]:
        kind, pick = self._random.random(), self._random
        if kind < 0.45:
            return ((PLENTY, pick.randint(1, 3)),)
        if kind < 0.65:
            skus: Sequence[str] = pick.sample(MANY, pick.randint(2, LINES_MAX))
            return tuple((sku, pick.randint(1, 2)) for sku in skus)
        if kind < 0.80:
            return ((LIMITED, 1),)
        if kind < 0.97:
            return ((pick.choice(self._scarce), 1),)
        # Scarce and plentiful ones together: all or nothing.
        return ((PLENTY, 1), (pick.choice(self._scarce), 2))
