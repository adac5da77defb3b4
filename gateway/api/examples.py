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
PRODUCT: dict[str, Any] = {"sku": "85123A", **PRODUCT_IN, "stocked": True, "active": True, "version": 1}
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
}
