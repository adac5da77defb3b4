"""What a sale is: SKUs at prices of their own, from one instant to another, and what it answers to an order that comes
too early or too late. Pure: the time is an argument.
"""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from core_ext.faults import FaultAt
from core_ext.shapes import Product
from core_ext.times import text_of
from gateway.domain.outcomes import Refusal
from gateway.domain.stock_keys import stock_key

State = Literal["not_open", "open", "closed"]


class SaleItem(Struct, frozen=True):
    """A SKU of a sale: `price` in minor units of `currency`; `limit` is what one customer may hold of it in the sale,
    None what the catalogue says.
    """

    sku: str
    price: int
    currency: str
    limit: int | None


class Sale(Struct, frozen=True):
    """A sale is open in [starts_at, ends_at), milliseconds since 1970 by PostgreSQL's clock."""

    sale_id: str
    title: str
    starts_at: int
    ends_at: int
    payment_timeout_s: int | None
    items: tuple[SaleItem, ...]
    version: int

    def state(self, now_ms: int) -> State:
        if now_ms >= self.ends_at:
            return "closed"
        return "open" if now_ms >= self.starts_at else "not_open"

    def refusal(self, now_ms: int) -> Refusal | None:
        """Why an order cannot be taken now; None while the sale is open."""
        state = self.state(now_ms)
        if state == "open":
            return None
        if state == "closed":
            return Refusal("sale_closed", f"the sale ended at {text_of(self.ends_at)}")
        opens_at = text_of(self.starts_at)
        wait_s = -((now_ms - self.starts_at) // 1000)  # rounded up: who comes back then is not early again
        return Refusal("sale_not_open", f"the sale opens at {opens_at}", (), {"opens_at": opens_at}, wait_s)

    def stock_keys(self) -> list[str]:
        return [stock_key(self.sale_id, item.sku) for item in self.items]

    def products(self, catalogue: Mapping[str, Product]) -> dict[str, Product]:
        """What the sale sells: products of the catalogue with the sale's price and limit."""
        return {item.sku: _sold(catalogue[item.sku], item) for item in self.items if item.sku in catalogue}


def _sold(product: Product, item: SaleItem) -> Product:
    """The units are the sale's own, so it is stocked whatever has become of the product's everyday stock."""
    limit = product.limit if item.limit is None else item.limit
    return replace(product, price=item.price, currency=item.currency, limit=limit, stocked=True)


def not_in_sale(faults: list[FaultAt]) -> list[FaultAt]:
    """The faults of an order priced by the products of a sale, in the sale's words."""
    return [
        FaultAt("not_in_sale", fault.pointer, "is not in the sale") if fault.code == "unknown_sku" else fault
        for fault in faults
    ]
