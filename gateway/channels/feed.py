"""What a channel's file becomes: orders in file order, and the catalogue and stock that they need.

A channel reads its own format into this shape, so that whoever sends the orders knows no format. Pure: bytes in,
values out; nothing here touches a file, the network or a clock.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class ChannelError(Exception):
    """The file is not of the channel's format; the message names the line and what is wrong with it."""


class Sale(NamedTuple):
    """An order as it goes to the edge. `key` is its idempotency key; `value` the sum of its amounts in minor units."""

    key: str
    order: dict[str, Any]
    lines: int
    units: int
    value: int


class Goods(NamedTuple):
    """A product and the stock to start with. `price` in minor units; `units` are None where nothing is counted."""

    sku: str
    title: str
    price: int
    currency: str
    units: int | None


class Feed(NamedTuple):
    """`cancellations` and `adjustments` are documents that are no orders: counted and left."""

    sales: list[Sale]
    cancellations: int
    adjustments: int
    goods: list[Goods]


Reader = Callable[[bytes], Feed]
