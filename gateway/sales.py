"""Sales in memory: what each sells, for how much, and when. The follower brings changes within a second; before a sale
opens, its units are brought into this worker's hand.

Every worker opens a sale by PostgreSQL's clock, which the worker's own is never ahead of, so no order is created before
the start. Refusals are counted here by sale and code and added to the ledger every second: a crash loses what it had
not added yet, and a lost answer may count some twice.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable

import asyncpg
import structlog

from core_ext.shapes import Product
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.domain.outcomes import Refusal
from gateway.domain.sales import Sale, SaleItem
from gateway.leases import Leases
from persistence.errors import LedgerUnavailableError
from persistence.postgres import sales
from persistence.postgres.orders import to_ms
from persistence.postgres.session import Session

TURN_S = 1.0
LEAD_S = 3.0  # how long before its start a sale's units are asked for

log = structlog.get_logger("sales")


class Sales:
    """All sales of the ledger, by id; `revision` of the topic that they reflect, `loaded` once they are whole."""

    def __init__(self, session: Session, clock: Clock, catalogue: Catalogue, leases: Leases) -> None:
        self.revision = -1
        self._session = session
        self._clock = clock
        self._catalogue = catalogue
        self._leases = leases
        self._sales: dict[str, Sale] = {}
        self._products: dict[str, tuple[int, dict[str, Product]]] = {}
        self._refused: Counter[tuple[str, str]] = Counter()

    @property
    def loaded(self) -> bool:
        return self.revision >= 0

    def find(self, sale_id: str) -> Sale | None:
        return self._sales.get(sale_id)

    def refusal(self, sale: Sale) -> Refusal | None:
        """Why the sale takes no order now; None while it is open. It may have been moved since `sale` was found."""
        return self._sales.get(sale.sale_id, sale).refusal(self._clock.now_ms())

    def products(self, sale: Sale) -> dict[str, Product]:
        """What the sale sells now, by SKU: as the catalogue stands, at the sale's prices and limits."""
        made_at, products = self._products.get(sale.sale_id, (-1, {}))
        if made_at != self._catalogue.changes:
            products = sale.products(self._catalogue.products)
            self._products[sale.sale_id] = self._catalogue.changes, products
        return products

    def count(self, sale: Sale, code: str) -> None:
        """Count a refusal of an order of the sale."""
        self._refused[sale.sale_id, code] += 1

    def apply(self, rows: Iterable[asyncpg.Record]) -> None:
        """Take over changed sales; an older version than the one at hand changes nothing. The units of one that is open
        are asked for at once.
        """
        for row in rows:
            sale = sale_of(row)
            known = self._sales.get(sale.sale_id)
            if known is None or known.version < sale.version:
                self._sales[sale.sale_id] = sale
                self._products.pop(sale.sale_id, None)
                if sale.state(self._clock.now_ms()) == "open":
                    self._leases.stock_up(sale.stock_keys())

    async def load(self, connection: asyncpg.Connection) -> int:
        """Take over what has changed in the ledger."""
        revision, rows = await sales.changes_since(connection, self.revision)
        self.apply(rows)
        self.revision = revision
        return revision

    async def run(self) -> None:
        """Stock up for the sales that open soon, and bring the counts of refusals to the ledger, until cancelled."""
        while True:
            self.stock_up()
            await self.flush()
            await asyncio.sleep(TURN_S)

    def stock_up(self) -> None:
        """Ask for units of the sales that open within LEAD_S."""
        now_ms = self._clock.now_ms()
        for sale in self._sales.values():
            if 0 < sale.starts_at - now_ms <= LEAD_S * 1000 and sale.starts_at < sale.ends_at:
                self._leases.stock_up(sale.stock_keys())

    async def flush(self) -> None:
        """Add the counts of refusals to the ledger. Whatever goes wrong, they wait here, one number per sale and code.
        Raises what is not LedgerUnavailableError.
        """
        if not self._refused:
            return
        counts, self._refused = self._refused, Counter()
        try:
            await sales.add_refusals(self._session, counts)
            counts.clear()
        except LedgerUnavailableError as error:
            log.warning("refusals_not_counted_yet", error=str(error))
        finally:
            self._refused.update(counts)


def sale_of(row: asyncpg.Record) -> Sale:
    columns = (row["skus"], row["prices"], row["currencies"], row["limits"])
    starts_at, ends_at = to_ms(row["starts_at"]), to_ms(row["ends_at"])
    assert starts_at is not None
    assert ends_at is not None
    items = tuple(SaleItem(*item) for item in zip(*columns, strict=True))
    return Sale(row["sale_id"], row["title"], starts_at, ends_at, row["payment_timeout_s"], items, row["version"])
