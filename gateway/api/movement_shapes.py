"""What the routes of stock movements take and give."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from core_ext.limits import MONEY_MAX
from gateway.api.sale_shapes import Instant
from gateway.api.shapes import Reason

Delta = Annotated[
    int,
    Meta(
        ge=-MONEY_MAX,
        le=MONEY_MAX,
        description="Units that are added to the total, or taken away when negative; not 0",
        extra_json_schema={"not": {"const": 0}},
    ),
]


class StockAdjustmentIn(Struct, forbid_unknown_fields=True):
    delta: Delta
    reason: Reason


class StockMovement(Struct, omit_defaults=True):
    """A change of a SKU's total."""

    movement_id: int
    sku: str
    delta: int
    total: Annotated[int, Meta(description="What the movement has made the total")]
    actor: Annotated[str, Meta(description="Who has made it, such as `client:shop`")]
    at: Instant
    reason: str | None = None
    sale_id: Annotated[str, Meta(description="The sale whose own units these are")] | None = None


class StockMovements(Struct):
    items: list[StockMovement]
    next_cursor: str | None


DOCUMENTED: tuple[Any, ...] = (StockAdjustmentIn, StockMovement, StockMovements)
