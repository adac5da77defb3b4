"""One event of each type, as the encoders of the road make it: what the AsyncAPI document and the page of events show,
and what the golden files in deploy/contracts/events pin to the byte.
"""

from msgspec.structs import replace

from core_ext import ids
from core_ext.shapes import Change, Line, Order
from gateway.domain.stock_keys import stock_key
from gateway.orders import event_of
from gateway.stock_events import event_of as level_event_of
from gateway.stock_events import product_event_of
from persistence.nats.stream import Event
from persistence.postgres.levels import LevelChange
from persistence.postgres.product_events import ProductChange

AT_MS = 1_794_355_200_000  # 2026-11-11T00:00:00Z
SKU = "85123A"
SALE = "double-11"


def order() -> Order:
    """An order of a sale in which only personal fields are left out."""
    order_id = ids.parse_id("0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51")
    assert order_id is not None
    return Order(
        id=order_id,
        client_id=7,
        channel="app",
        currency="CNY",
        status="pending_payment",
        version=1,
        total=1430,
        lines=[Line(1, SKU, "白色心形烛台 <T>", 6, 255, 1530, stocked=True)],
        created_at=AT_MS,
        customer_id="u-1",
        external_id="A-77",
        sale_id=SALE,
        metadata=b'{"basket":"b-9"}',
        adjustments='[{"type":"discount","amount":-100,"label":"满减","line":1}]'.encode(),
        placed_at=AT_MS - 1500,
        expires_at=AT_MS + 1_800_000,
    )


def examples(source: str) -> dict[str, Event]:
    """Name of the type -> an event of it."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    created = Change(1, AT_MS, "created", "pending_payment", "client:7", traceparent=trace)
    cancelled = Change(
        2, AT_MS + 60_000, "cancelled", "cancelled", "client:7", "pending_payment", "changed my mind", ("status",)
    )
    paid = Change(
        2,
        AT_MS + 30_000,
        "paid",
        "paid",
        "client:7",
        "pending_payment",
        changed=("status", "paid"),
        traceparent=trace,
    )
    bought = replace(order(), paid_reference="wx-4200001", paid_at=AT_MS + 29_000)
    expired = Change(
        2, AT_MS + 1_800_040, "expired", "expired", "floodgate", "pending_payment", "payment_timeout", ("status",)
    )
    levels = (
        LevelChange(SKU, 1, "low", "low", "in_stock", 8, AT_MS),
        LevelChange(stock_key(SALE, SKU), 2, "sold_out", "sold_out", "low", 0, AT_MS + 1),
        LevelChange(stock_key(SALE, SKU), 3, "back_in_stock", "low", "sold_out", 3, AT_MS + 2),
    )
    product = ProductChange(SKU, 4, "白色心形烛台", 255, "CNY", True, True, 2, ["price", "limit"], AT_MS)
    return {
        "order.created": event_of(order(), created, source),
        "order.paid": event_of(bought, paid, source),
        "order.cancelled": event_of(order(), cancelled, source),
        "order.expired": event_of(order(), expired, source),
        **{f"stock.{level.event}": level_event_of(level, source) for level in levels},
        "stock.product_changed": product_event_of(product, source),
    }
