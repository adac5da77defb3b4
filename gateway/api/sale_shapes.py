"""What the routes of sales take and give: the bounds of what comes in, and what the OpenAPI document shows."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from core_ext.limits import MONEY_MAX, QUANTITY_MAX, SKU_CHARS_MAX
from core_ext.times import ms_of
from gateway.api.shapes import Price, Title

ITEMS_MAX = 500  # so that a sale with its SKUs fits into a body
PAYMENT_TIMEOUT_S_MAX = 31_536_000
# What PostgreSQL and its driver call infinite lies beyond; the table has the same bounds.
FIRST_MS = ms_of(datetime(2000, 1, 1, tzinfo=UTC))
BEYOND_MS = ms_of(datetime(9999, 1, 1, tzinfo=UTC))
YEARS = "years 2000 to 9998 of UTC"
DATE_TIME = {"format": "date-time"}

Instant = Annotated[str, Meta(extra_json_schema=DATE_TIME)]
Now = Annotated[str, Meta(description="The server's time, for countdowns", extra_json_schema=DATE_TIME)]
Units = Annotated[
    int,
    Meta(
        ge=0,
        le=MONEY_MAX,
        description="The sale's own, those held by live orders included; not taken from the SKU's everyday stock",
    ),
]
Limit = Annotated[
    int,
    Meta(
        ge=1,
        le=QUANTITY_MAX,
        description="Units of it that one customer may hold in live orders of the sale, which then need `customer_id`; "
        "null: the product's limit",
    ),
]
PaymentTimeout = Annotated[
    int,
    Meta(ge=1, le=PAYMENT_TIMEOUT_S_MAX, description="Seconds to an order's `expires_at`; null: as of any other order"),
]


class SaleItemIn(Struct, forbid_unknown_fields=True):
    sku: Annotated[str, Meta(min_length=1, max_length=SKU_CHARS_MAX, description="Of a product with stock")]
    price: Price
    units: Units
    limit: Limit | None = None


class SaleIn(Struct, forbid_unknown_fields=True):
    """A whole sale: an item that is left out is taken away."""

    title: Title
    starts_at: Annotated[
        datetime, Meta(tz=True, description=f"By PostgreSQL's clock, in whole milliseconds, in the {YEARS}")
    ]
    ends_at: Annotated[datetime, Meta(tz=True, description=f"No order is taken from this instant on; in the {YEARS}")]
    items: Annotated[list[SaleItemIn], Meta(min_length=1, max_length=ITEMS_MAX, description="Each SKU once")]
    payment_timeout_s: PaymentTimeout | None = None


class SaleItem(Struct):
    sku: str
    price: int
    currency: Annotated[str, Meta(description="The product's when the sale was put")]
    units: int
    limit: Annotated[int | None, Meta(description="Units of it that one customer may hold; null: the product's limit")]


class Sale(Struct):
    sale_id: str
    title: str
    state: Literal["not_open", "open", "closed"]
    starts_at: Instant
    ends_at: Instant
    now: Now
    payment_timeout_s: int | None
    items: list[SaleItem]
    version: int


class SalePage(Struct):
    items: list[Sale]
    next_cursor: str | None
    now: Now


class UnitsPerSecond(Struct):
    peak: Annotated[int, Meta(description="Units of the busiest second")]
    mean: Annotated[
        float, Meta(description="Over the seconds from that of the first unit to that of the last, each counted whole")
    ]


class SaleReport(Struct):
    """What a sale has sold. Where every unit is: total_units = units - returned_units + unsold_units."""

    sale_id: str
    orders: Annotated[int, Meta(description="Placed, cancelled ones included")]
    units: Annotated[int, Meta(description="Of these orders")]
    returned_units: Annotated[int, Meta(description="Of orders that were cancelled, have expired or were refunded")]
    unsold_units: int
    total_units: int
    buyers: Annotated[int, Meta(description="Different customer_id")]
    first_unit_at: Instant | None
    last_unit_at: Instant | None
    units_per_second: UnitsPerSecond
    refusals: Annotated[dict[str, int], Meta(description="Refused orders by code, about a second old")]


DOCUMENTED: tuple[Any, ...] = (SaleIn, SalePage, SaleReport)
