"""The catalogue in memory: what is sold, for how much. The follower brings changes within a second; an order is priced
by what stands here.
"""

from collections.abc import Iterable

import asyncpg

from core_ext.shapes import Product


class Catalogue:
    """`products` by SKU, `revision` of the ledger's catalogue that they reflect; `loaded` once they are whole."""

    def __init__(self) -> None:
        self.products: dict[str, Product] = {}
        self.revision = -1

    @property
    def loaded(self) -> bool:
        return self.revision >= 0

    def apply(self, revision: int, rows: Iterable[asyncpg.Record]) -> None:
        """Take over changed products."""
        self.products.update((row["sku"], product_of(row)) for row in rows)
        self.revision = revision


def product_of(row: asyncpg.Record) -> Product:
    return Product(
        row["sku"], row["title"], row["price"], row["currency"], row["stocked"], row["active"], row["version"]
    )
