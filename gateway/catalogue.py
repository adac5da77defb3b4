"""The catalogue in memory: what is sold, for how much. The follower brings changes within a second; an order is priced
by what stands here.
"""

from collections.abc import Callable, Iterable

import asyncpg

from core_ext.shapes import Product
from persistence.postgres import catalogue


class Catalogue:
    """`products` by SKU, `revision` of the ledger's catalogue that they reflect; `loaded` once they are whole. A
    product without a limit of its own has here the one that the rules give it.
    """

    def __init__(self) -> None:
        self.products: dict[str, Product] = {}
        self.revision = -1
        self.changes = 0  # rises with whatever changes here: what is made of the products is stale then
        self._limit_of: Callable[[str], int | None] = lambda _: None
        self._own_limits: set[str] = set()  # the SKUs whose limit is their own

    @property
    def loaded(self) -> bool:
        return self.revision >= 0

    def apply(self, revision: int, rows: Iterable[asyncpg.Record]) -> None:
        """Take over changed products."""
        for row in rows:
            self._put(product_of(row))
        self.revision = revision

    def put(self, product: Product) -> None:
        """Take over a product as it was just written, unless a later version is known already."""
        known = self.products.get(product.sku)
        if known is None or known.version < product.version:
            self._put(product)

    def apply_limits(self, limit_of: Callable[[str], int | None]) -> None:
        """From now on products without a limit of their own have that of `limit_of`, those that come later, too."""
        self._limit_of = limit_of
        self.changes += 1
        for sku, product in self.products.items():
            if sku not in self._own_limits:
                product.limit = limit_of(sku)

    async def load(self, connection: asyncpg.Connection) -> int:
        """Take over what has changed in the ledger."""
        revision, rows = await catalogue.changes_since(connection, self.revision)
        if revision != self.revision:
            self.apply(revision, rows)
        return revision

    def _put(self, product: Product) -> None:
        if product.limit is None:
            self._own_limits.discard(product.sku)
            product.limit = self._limit_of(product.sku)
        else:
            self._own_limits.add(product.sku)
        self.products[product.sku] = product
        self.changes += 1


def product_of(row: asyncpg.Record) -> Product:
    """The product as stored: its limit is its own or None."""
    columns = ("sku", "title", "price", "currency", "stocked", "active", "version", "limit")
    return Product(*(row[column] for column in columns))
