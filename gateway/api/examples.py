"""The examples that the OpenAPI document shows; a test checks each against its schema."""

from typing import Any

ORDER_ID = "0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51"
ORDER_IN: dict[str, Any] = {
    "channel": "app",
    "currency": "CNY",
    "customer_id": "u-1",
    "external_id": "A-77",
    "items": [{"sku": "85123A", "quantity": 6}],
    "note": "请放门口",
    "ship_to": {"name": "王小明", "phone": "13800000000", "country": "CN", "city": "上海", "street": "南京路1号"},
    "metadata": {"basket": "b-9"},
}
ORDER: dict[str, Any] = {
    "order_id": ORDER_ID,
    "status": "pending_payment",
    "version": 1,
    "channel": "app",
    "currency": "CNY",
    "customer_id": "u-1",
    "external_id": "A-77",
    "total": 1530,
    "items": [{"line": 1, "sku": "85123A", "title": "白色心形烛台", "quantity": 6, "unit_price": 255, "amount": 1530}],
    "metadata": {"basket": "b-9"},
    "note": "***",
    "ship_to": {"name": "***", "phone": "***", "country": "***", "city": "***", "street": "***"},
    "created_at": "2026-11-11T00:00:00.000Z",
    "expires_at": "2026-11-11T00:30:00.000Z",
}
PRODUCT_IN: dict[str, Any] = {"title": "白色心形烛台", "price": 255, "currency": "CNY"}
PRODUCT: dict[str, Any] = {"sku": "85123A", **PRODUCT_IN, "stocked": True, "active": True, "version": 1, "limit": 2}
STOCK_IN: dict[str, Any] = {"total": 1000, "reason": "delivery 4711"}
STOCK: dict[str, Any] = {
    "sku": "85123A",
    "total": 1000,
    "owed": 0,
    "shards": 4,
    "version": 3,
    "free": 700,
    "leased": 256,
    "held": 44,
    "per_shard": [175, 175, 175, 175],
    "hands": [{"owner": "3f0c8e1a-6d52-4b7e-9a41-c2d85e7b9f06", "host": "gateway-1", "pid": 4711, "units": 256}],
    "parked": 0,
    "refills_per_s": 3.0,
    "refused_per_s": 0.0,
}
PINCHED: dict[str, Any] = {
    "items": [
        {
            "sku": "85123A",
            "sale_id": "double-11",
            "total": 1000,
            "shards": 16,
            "free": 0,
            "leased": 12,
            "held": 988,
            "parked": 3,
            "refills_per_s": 41.5,
            "refused_per_s": 812.0,
        }
    ]
}
ADJUSTMENT_IN: dict[str, Any] = {"delta": -3, "reason": "broken in the warehouse"}
MOVEMENT: dict[str, Any] = {
    "movement_id": 4711,
    "sku": "85123A",
    "delta": -3,
    "total": 997,
    "actor": "client:shop",
    "at": "2026-11-10T09:30:00.125Z",
    "reason": "broken in the warehouse",
}
AVAILABILITY: dict[str, Any] = {
    "items": [{"sku": "85123A", "availability": "low"}, {"sku": "22423", "availability": "sold_out"}]
}
SALE_IN: dict[str, Any] = {
    "title": "双十一",
    "starts_at": "2026-11-11T00:00:00+08:00",
    "ends_at": "2026-11-11T02:00:00+08:00",
    "payment_timeout_s": 900,
    "items": [{"sku": "85123A", "price": 199, "units": 1000, "limit": 2}],
}
SALE: dict[str, Any] = {
    "sale_id": "double-11",
    "title": "双十一",
    "state": "not_open",
    "starts_at": "2026-11-10T16:00:00.000Z",
    "ends_at": "2026-11-10T18:00:00.000Z",
    "now": "2026-11-10T15:59:30.250Z",
    "payment_timeout_s": 900,
    "items": [{"sku": "85123A", "price": 199, "currency": "CNY", "units": 1000, "limit": 2}],
    "version": 1,
}
SALE_REPORT: dict[str, Any] = {
    "sale_id": "double-11",
    "orders": 700,
    "units": 1010,
    "returned_units": 10,
    "unsold_units": 0,
    "total_units": 1000,
    "buyers": 690,
    "first_unit_at": "2026-11-10T16:00:00.004Z",
    "last_unit_at": "2026-11-10T16:00:01.731Z",
    "units_per_second": {"peak": 612, "mean": 505.0},
    "refusals": {"limit_reached": 12, "sale_not_open": 51230, "sold_out": 98211},
}
CLIENT_IN: dict[str, Any] = {"name": "app", "scopes": ["orders:read", "orders:write"], "channels": ["app"]}
TOKEN: dict[str, Any] = {
    "token_id": 12,
    "created_at": "2026-11-10T09:30:00.125Z",
    "expires_at": "2027-11-10T00:00:00.000Z",
    "last_used_at": None,
    "revoked_at": None,
}
CLIENT: dict[str, Any] = {**CLIENT_IN, "version": 1, "created_at": "2026-11-10T09:30:00.125Z", "tokens": [TOKEN]}
SHOWN_ONCE = "fg_EXAMPLE-EXAMPLE-EXAMPLE-EXAMPLE-EXAMPLE-EXA"
