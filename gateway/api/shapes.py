"""What the routes beside the hot one take and give. The bounds of what comes in stand here once: `faults` checks
them, the OpenAPI document shows them.

What goes out as raw bytes (orders) has its shape here for the document only, and a test compares the two.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from core_ext.codes import PROBLEMS
from core_ext.limits import MONEY_MAX, QUANTITY_MAX, REFERENCE_CHARS_MAX, TITLE_CHARS_MAX
from core_ext.shapes import AdjustmentIn, OrderIn, Product, ShipTo, Time
from gateway.domain.keys import KEY_PATTERN
from gateway.domain.lifecycle import Status

REASON_CHARS_MAX = 200
SHARDS_MAX = 256  # the ledger's own bound

Title = Annotated[str, Meta(min_length=1, max_length=TITLE_CHARS_MAX, description="No control characters")]
Price = Annotated[int, Meta(ge=0, le=MONEY_MAX, description="In minor units of the currency")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217")]
Total = Annotated[
    int, Meta(ge=0, le=MONEY_MAX, description="Units that the merchant has to sell, those held by live orders included")
]
Reason = Annotated[str, Meta(min_length=1, max_length=REASON_CHARS_MAX, description="Kept with the movement")]
Limit = Annotated[
    int,
    Meta(
        ge=1,
        le=QUANTITY_MAX,
        description="Units that one customer may hold in live orders, which then need `customer_id`; null: any number",
    ),
]
CancelReason = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=REASON_CHARS_MAX,
        description="Kept in the order's history and told in its event, so no place for personal data",
    ),
]
PaymentReference = Annotated[
    str,
    Meta(min_length=1, max_length=REFERENCE_CHARS_MAX, description="Of whoever was paid; by it the payment is found"),
]
Shards = Annotated[
    int, Meta(ge=1, le=SHARDS_MAX, description="Shards of the SKU's stock; as they are, or the setting, when left out")
]
ProblemCode = Annotated[str, Meta(extra_json_schema={"enum": list(PROBLEMS)})]


class ProductIn(Struct, forbid_unknown_fields=True):
    """A whole product: what is left out gets its default."""

    title: Title
    price: Price
    currency: Currency
    stocked: bool = True
    active: bool = True
    limit: Limit | None = None


class ProductChange(Struct, forbid_unknown_fields=True):
    """A change of a product: what is left out stays as it is."""

    title: Title | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    currency: Currency | UnsetType = UNSET
    stocked: bool | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    limit: Limit | UnsetType | None = UNSET


class ProductPage(Struct):
    items: list[Product]
    next_cursor: str | None


class OrderCancelIn(Struct, forbid_unknown_fields=True):
    reason: CancelReason


class OrderPayIn(Struct, forbid_unknown_fields=True):
    reference: PaymentReference
    at: Annotated[Time, Meta(description="When it was paid")] | None = None


class StockIn(Struct, forbid_unknown_fields=True):
    total: Total
    reason: Reason | None = None
    shards: Shards | None = None


class StockChange(Struct, forbid_unknown_fields=True):
    shards: Annotated[int, Meta(ge=1, le=SHARDS_MAX, description="Over how many shards the free units are spread")]


class Hand(Struct):
    """Unsold units that a worker holds."""

    owner: str
    host: str
    pid: int
    units: int


PerSecond = Annotated[float, Meta(ge=0, description="Per second, all workers together, at their last heartbeats")]
Parked = Annotated[int, Meta(ge=0, description="Orders that wait for units")]


class Stock(Struct, omit_defaults=True):
    """A SKU's stock at one instant: total + owed = free + leased + held. `hands` and what follows is told by the
    workers, up to a heartbeat later.
    """

    sku: str
    total: int
    owed: Annotated[int, Meta(description="Units that were sold beyond the total")]
    shards: int
    version: int
    free: Annotated[int, Meta(description="Units that nobody has")]
    leased: Annotated[int, Meta(description="Unsold units in the hands of workers")]
    held: Annotated[int, Meta(description="Units of live orders")]
    per_shard: Annotated[list[int], Meta(description="Free units of each shard")]
    hands: list[Hand]
    parked: Parked
    refills_per_s: PerSecond
    refused_per_s: PerSecond
    sale_id: Annotated[str, Meta(description="The sale whose own units these are")] | None = None


class PinchedStock(Struct, omit_defaults=True):
    """A SKU's stock, and what goes on there."""

    sku: str
    total: int
    shards: int
    free: int
    leased: int
    held: int
    parked: Parked
    refills_per_s: PerSecond
    refused_per_s: PerSecond
    sale_id: str | None = None


class PinchedStocks(Struct):
    items: list[PinchedStock]


Had = Literal["in_stock", "low", "sold_out", "unknown"]


class Availability(Struct):
    sku: str
    availability: Annotated[Had, Meta(description="`unknown`: the SKU is not for sale")]


class Availabilities(Struct):
    """In the order in which they were asked for."""

    items: list[Availability]


class LineOut(Struct):
    line: Annotated[int, Meta(ge=1)]
    sku: str
    title: str
    quantity: int
    unit_price: Annotated[int, Meta(description="In minor units")]
    amount: Annotated[int, Meta(description="quantity x unit_price")]


class PaidOut(Struct, omit_defaults=True):
    reference: str
    at: datetime | None = None


class OrderOut(Struct, omit_defaults=True):
    """An order. What it does not have is left out; personal fields are `***` without the scope pii:read."""

    order_id: str
    status: Status
    version: Annotated[int, Meta(ge=1)]
    channel: str
    currency: str
    total: Annotated[int, Meta(description="Sum of amounts and adjustments, in minor units")]
    items: list[LineOut]
    created_at: datetime
    customer_id: str | None = None
    external_id: str | None = None
    sale_id: str | None = None
    adjustments: list[AdjustmentIn] | None = None
    metadata: dict[str, str] | None = None
    placed_at: datetime | None = None
    paid: PaidOut | None = None
    note: str | None = None
    ship_to: ShipTo | None = None
    expires_at: Annotated[datetime | None, Meta(description="Until when it has to be paid; then it expires")] = None


class ReceiptOut(Struct, frozen=True):
    """An order that has been accepted and has no id yet."""

    status: Literal["accepted"]
    idempotency_key: str


class OrderPage(Struct):
    items: list[OrderOut]
    next_cursor: str | None


class ProblemEntry(Struct, omit_defaults=True):
    """One fault of several that were found at once."""

    detail: str
    pointer: Annotated[str, Meta(description="JSON pointer (RFC 6901) into the body, as a URI fragment")]
    code: str | None = None
    available: Annotated[int, Meta(description="Units of the SKU that are left")] | None = None


class Problem(Struct, omit_defaults=True):
    """An answer that is not a success (RFC 9457)."""

    type: Annotated[str, Meta(description="urn:floodgate:problem:<code>")]
    title: Annotated[str, Meta(description="The same for every occurrence of the code")]
    status: int
    code: ProblemCode
    retryable: Annotated[bool, Meta(description="The same request may succeed later without a change")]
    request_id: str
    detail: str | None = None
    errors: list[ProblemEntry] | None = None
    opens_at: Annotated[datetime, Meta(description="When the sale opens; of `sale_not_open`")] | None = None
    order_status: (
        Annotated[Status, Meta(description="What the order is; of `not_payable` and `not_cancellable`")] | None
    ) = None
    allowed: (
        Annotated[list[Literal["pay", "cancel"]], Meta(description="What may be asked of it as it is; of the same")]
        | None
    ) = None
    violated_policies: (
        Annotated[list[Literal["client", "customer"]], Meta(description="Whose rate it is; of `rate_limited`")] | None
    ) = None


class BulkLine(Struct, forbid_unknown_fields=True):
    """A line of orders in bulk."""

    idempotency_key: Annotated[
        str, Meta(min_length=1, max_length=512, pattern=KEY_PATTERN, description="As the header of a single order")
    ]
    order: Annotated[OrderIn, Meta(description="As the body of a single order; a retry repeats it byte for byte")]


class BulkSummary(Struct):
    complete: Annotated[bool, Meta(description="False: the last verdict ended the stream; go on with its line")]
    lines: Annotated[int, Meta(description="Verdicts above")]
    accepted: int
    replayed: Annotated[int, Meta(description="Of those accepted: orders that an earlier request had made")]
    receipts: Annotated[int, Meta(description="Of those accepted: orders that are in the journal, status 202")]
    refused: Annotated[dict[str, int], Meta(description="By code")]


class BulkVerdict(Struct, omit_defaults=True):
    """A line of the answer to orders in bulk: a verdict, or at last the summary."""

    line: Annotated[int, Meta(ge=1, description="The line it is about, counted from 1")] | None = None
    status: Annotated[int, Meta(description="What the order alone would have been answered with")] | None = None
    order_id: Annotated[str, Meta(description="Of status 201")] | None = None
    replayed: Annotated[bool, Meta(description="True when an earlier request with the key has made the order")] = False
    problem: Annotated[Problem, Meta(description="Of any other status; pointers start at the order")] | None = None
    retry_after_s: Annotated[int, Meta(description="When to try the line again, if that can help")] | None = None
    summary: BulkSummary | None = None


DOCUMENTED: tuple[Any, ...] = (
    OrderPage,
    ReceiptOut,
    OrderCancelIn,
    OrderPayIn,
    ProductIn,
    ProductChange,
    ProductPage,
    StockIn,
    StockChange,
    Stock,
    PinchedStocks,
    Availabilities,
    Problem,
    BulkLine,
    BulkVerdict,
)
