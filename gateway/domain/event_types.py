"""The registry of event types: every type that goes over a stream, what its `data` holds, and the JSON Schema of it.
The files in deploy/contracts, the AsyncAPI document and the page of events are made from here.

Nothing is encoded by these shapes: an order's event is written by `core_ext.documents`, one of stock by
`gateway.stock_events`, and tests hold both against the schemas. Within `.v1` fields are only added.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from core_ext.limits import MONEY_MAX, QUANTITY_MAX, SKU_CHARS_MAX, TITLE_CHARS_MAX
from gateway.domain.levels import Level
from gateway.domain.lifecycle import CHANGES, Status

PARTITIONS = 16  # of a stream's subjects, written 00 to 15
VERSION = "v1"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
DEFINITION = "#/$defs/{name}"

Sku = Annotated[str, Meta(min_length=1, max_length=SKU_CHARS_MAX)]
Money = Annotated[int, Meta(ge=0, le=MONEY_MAX, description="In minor units of the currency")]
Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217")]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, description="RFC 3339 in UTC")]
Version = Annotated[int, Meta(ge=1, description="Of what the event is about; a later event has a higher one")]
Units = Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]
Title = Annotated[str, Meta(max_length=TITLE_CHARS_MAX)]
SaleId = Annotated[str, Meta(description="The sale whose own units these are; left out otherwise")]


class EventItem(Struct):
    line: Annotated[int, Meta(ge=1, description="Counts from 1")]
    sku: Sku
    title: Title
    quantity: Units
    unit_price: Money
    amount: Annotated[int, Meta(ge=0, le=MONEY_MAX, description="quantity x unit_price")]


class EventAdjustment(Struct):
    type: Literal["discount", "shipping", "tax", "fee"]
    amount: Annotated[int, Meta(description="Signed, in minor units of the currency")]
    label: str
    line: Annotated[int, Meta(ge=1, description="The line that it belongs to")] | UnsetType = UNSET


class EventPayment(Struct):
    reference: str
    at: Time | UnsetType = UNSET


class OrderChanged(Struct):
    """The whole order as this change left it, without personal fields, and what the change was."""

    order_id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    status: Status
    version: Version
    channel: str
    currency: Currency
    total: Money
    items: list[EventItem]
    created_at: Time
    previous_status: Annotated[Status | None, Meta(description="Null for a new order")]
    actor: Annotated[str, Meta(description="Who decided it, such as `client:7`")]
    reason: str | None
    changed: Annotated[list[str], Meta(description="Fields that the change set; none of a new order")]
    customer_id: str | UnsetType = UNSET
    external_id: str | UnsetType = UNSET
    sale_id: str | UnsetType = UNSET
    adjustments: list[EventAdjustment] | UnsetType = UNSET
    metadata: dict[str, str] | UnsetType = UNSET
    placed_at: Annotated[Time, Meta(description="When the channel took the order")] | UnsetType = UNSET
    paid: EventPayment | UnsetType = UNSET
    expires_at: Annotated[Time, Meta(description="When it expires unless paid")] | UnsetType = UNSET


class StockLevelChanged(Struct):
    """What is left of a SKU: in the everyday stock, or in that of a sale."""

    sku: Sku
    level: Level
    previous_level: Level
    available: Annotated[int, Meta(ge=0, description="Unsold units at the time of the event")]
    version: Annotated[int, Meta(ge=1, description="Counts the changes of level of this stock")]
    sale_id: SaleId | UnsetType = UNSET


class ProductChanged(Struct):
    """The whole product as this change left it."""

    sku: Sku
    title: Title
    price: Money
    currency: Currency
    stocked: Annotated[bool, Meta(description="Whether its orders need units of stock")]
    active: Annotated[bool, Meta(description="Whether it can be ordered")]
    version: Annotated[int, Meta(ge=1, description="Of the product")]
    changed: Annotated[list[str], Meta(description="Fields that differ from before; of a new product all that it has")]
    limit: (
        Annotated[int, Meta(ge=1, description="Units that one customer may hold in live orders, when it has its own")]
        | UnsetType
    ) = UNSET


class EventType(Struct, frozen=True):
    """`name` is `<what>.<event>`, without the version; `data` describes the event's `data`."""

    name: str
    stream: str
    summary: str
    data: type[Struct]

    @property
    def versioned(self) -> str:
        """As files and schemas name it: `order.created.v1`."""
        return f"{self.name}.{VERSION}"

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return f"com.floodgate.{self.versioned}"

    @property
    def dataschema(self) -> str:
        return f"urn:floodgate:schema:{self.versioned}"

    @property
    def event(self) -> str:
        """The second word of the subject."""
        return self.name.partition(".")[2]

    @property
    def subject(self) -> str:
        """The subject, with its parameters in braces."""
        middle = ".{channel}" if self.stream == "ORDERS" else ""
        return f"{self.stream.lower()}.{self.event}{middle}.{{partition}}"

    @property
    def id_form(self) -> str:
        """How the id is made, which is the Nats-Msg-Id, too."""
        if self.data is OrderChanged:
            return "<order id>.<version>"
        if self.data is ProductChanged:
            return "<hex of the SKU>.product.<version>"
        return "<hex of the SKU, or of sale, 0x1f, SKU>.<version>"

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of `data`, complete in itself."""
        (reference,), definitions = msgspec.json.schema_components((self.data,), ref_template=DEFINITION)
        top = definitions.pop(reference["$ref"].rpartition("/")[2])
        document = {"$schema": DIALECT, "$id": self.dataschema, **top, "title": self.versioned}
        return document | ({"$defs": definitions} if definitions else {})


TOLD = ("pay", "cancel", "expire")  # the changes of an order that the product makes
EVENT_TYPES = {
    kind.name: kind
    for kind in (
        EventType("order.created", "ORDERS", "An order is in the ledger, its units are taken.", OrderChanged),
        *(EventType(f"order.{CHANGES[told].event}", "ORDERS", CHANGES[told].summary, OrderChanged) for told in TOLD),
        EventType("stock.sold_out", "STOCK", "No unit is left unsold.", StockLevelChanged),
        EventType("stock.low", "STOCK", "At most `stock.low_units` units are left unsold.", StockLevelChanged),
        EventType("stock.back_in_stock", "STOCK", "There are units again after it was sold out.", StockLevelChanged),
        EventType("stock.product_changed", "STOCK", "A product is new, or differs from before.", ProductChanged),
    )
}
