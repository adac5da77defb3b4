"""The shapes of the hot path: an order as it comes in, and as it stands afterwards.

`OrderIn` is what msgspec decodes a body into: it checks types and unknown fields, nothing else; `validation` checks
the bounds. `Order` is an accepted order: what the ledger stores, the answer shows and the event carries. Times are
integers: milliseconds since 1970-01-01T00:00:00Z, UTC.
"""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

Time = Annotated[datetime, Meta(tz=True)]


class ItemIn(Struct, forbid_unknown_fields=True, gc=False):
    sku: str
    quantity: int
    unit_price: int | None = None


class ShipTo(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """Where the goods go. Personal data: it stands in the ledger as ciphertext only."""

    name: str | None = None
    phone: str | None = None
    country: str | None = None
    province: str | None = None
    city: str | None = None
    district: str | None = None
    street: str | None = None
    postcode: str | None = None


class AdjustmentIn(Struct, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A signed amount beside the lines, in minor units; `line` counts from 1."""

    type: Literal["discount", "shipping", "tax", "fee"]
    amount: int
    label: str
    line: int | None = None


class PaidIn(Struct, forbid_unknown_fields=True, gc=False):
    reference: str
    at: Time | None = None


class OrderIn(Struct, forbid_unknown_fields=True):
    channel: str
    currency: str
    items: list[ItemIn]
    customer_id: str | None = None
    sale_id: str | None = None
    external_id: str | None = None
    note: str | None = None
    ship_to: ShipTo | None = None
    metadata: dict[str, str] | None = None
    adjustments: list[AdjustmentIn] | None = None
    placed_at: Time | None = None
    paid: PaidIn | None = None


class Product(Struct, gc=False):
    """A product of the catalogue as the hot path needs it; `price` in minor units of `currency`, `limit` in units that
    one customer may hold in live orders, None for as many as there are.
    """

    sku: str
    title: str
    price: int
    currency: str
    stocked: bool = True
    active: bool = True
    version: int = 1
    limit: int | None = None


class Line(Struct, gc=False):
    """A line of an accepted order; `line` counts from 1, `amount` = `quantity` x `unit_price`, `stocked` says that it
    holds units of stock, `limited` that its units count against what the customer may hold of the SKU.
    """

    line: int
    sku: str
    title: str
    quantity: int
    unit_price: int
    amount: int
    stocked: bool
    limited: bool = False


class Order(Struct):
    """An accepted order. `metadata` and `adjustments` are JSON text as stored; `note` and `ship_to` are plain and
    live in memory only.
    """

    id: bytes  # 16 bytes, UUIDv7
    client_id: int
    channel: str
    currency: str
    status: str
    version: int
    total: int
    lines: list[Line]
    created_at: int
    customer_id: str | None = None
    external_id: str | None = None
    sale_id: str | None = None
    metadata: bytes | None = None
    adjustments: bytes | None = None
    placed_at: int | None = None
    paid_reference: str | None = None
    paid_at: int | None = None
    expires_at: int | None = None
    note: str | None = None
    ship_to: ShipTo | None = None


class Change(Struct):
    """One version of an order: a row of its history and the envelope of its event. `at` is when it was decided."""

    version: int
    at: int
    event: str  # created, …: the last word but one of the event's type
    status: str
    actor: str
    previous_status: str | None = None
    reason: str | None = None
    changed: tuple[str, ...] = ()
    traceparent: str | None = None


class Personal(Struct, omit_defaults=True):
    """What is sealed of an order, as JSON."""

    note: str | None = None
    ship_to: ShipTo | None = None


class Sealed(NamedTuple):
    """Personal data as it is stored: the ciphertext beside the order, the order's own key, wrapped by the master key of
    that version, in a table of its own.
    """

    personal: bytes
    master_version: int
    wrapped: bytes


class Written(NamedTuple):
    """A new order as the ledger takes it: its rows in binary COPY form. `line_rows` come in pieces that one COPY takes,
    `key_row` is empty for an order without personal data. Times in milliseconds since 1970, `size` in bytes of all
    rows, `units` of all lines.
    """

    order_id: bytes
    status: str
    expires_at: int | None
    order_row: bytes
    line_rows: list[bytes]
    history_row: bytes
    key_row: bytes
    size: int
    units: int


class Told(NamedTuple):
    """What the world is told of a new order: its event (subject, id, payload, headers) and the answer to its buyer."""

    subject: str
    event_id: str
    payload: bytes
    headers: dict[str, str]
    body: bytes


class Priced(NamedTuple):
    """What pricing an order gives. `demand` holds the units of the stocked lines, summed per SKU, in code point order
    of the SKUs; `limits`, in the same order, (SKU, units, limit) of the SKUs of which a customer may hold so many.
    """

    lines: list[Line]
    total: int
    demand: list[tuple[str, int]]
    limits: list[tuple[str, int, int]]


class LeaseView(NamedTuple):
    """A lease as the stock table sees it: `used` units are in the ledger, `promised` ones in a commit under way, the
    rest may be sold.
    """

    lease: bytes
    sku: str
    units: int
    used: int
    promised: int
