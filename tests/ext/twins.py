"""What the tests of core_ext share: both twins as one value each, and a well-formed order in and out.

The examples are built anew at every call, so no test can spoil another's.
"""

from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import msgspec

from core_ext.codes import FAULTS
from core_ext.shapes import Change, Line, Order, OrderIn, Product, ShipTo

MODULES = ("admission", "documents", "ids", "pricing", "rows", "sealing", "stock_table", "validation")
FAULT_NAMES = {fault.number: fault.name for fault in FAULTS.values()}
ORDER_ID = bytes.fromhex("019ac4d4e0007abc8123456789abcdef")


class Twin(NamedTuple):
    """One implementation of all modules."""

    name: str
    admission: ModuleType
    documents: ModuleType
    ids: ModuleType
    pricing: ModuleType
    rows: ModuleType
    sealing: ModuleType
    stock_table: ModuleType
    validation: ModuleType


def load(name: str) -> Twin:
    return Twin(name, *(import_module(f"core_ext.{name}.{module}") for module in MODULES))


REFERENCE = load("reference")
COMPILED = load("compiled")


def body(**changes: Any) -> dict[str, Any]:
    """An order as a client sends it; a field changed to `...` is left out."""
    document = {
        "channel": "app",
        "currency": "CNY",
        "items": [{"sku": "85123A", "quantity": 6}],
        "customer_id": "u-1",
        "external_id": "A-77",
        "note": "请放门口",
        "ship_to": {"name": "张三", "city": "杭州市"},
        "metadata": {"k": "v"},
    }
    return {name: value for name, value in (document | changes).items() if value is not ...}


def order_in(**changes: Any) -> OrderIn:
    return msgspec.convert(body(**changes), OrderIn)


def product(sku: str = "85123A", price: int = 255, **changes: Any) -> Product:
    fields: dict[str, Any] = {"sku": sku, "title": "HEART T-LIGHT", "price": price, "currency": "CNY"}
    return Product(**(fields | changes))


def order(**changes: Any) -> Order:
    fields: dict[str, Any] = {
        "id": ORDER_ID,
        "client_id": 7,
        "channel": "app",
        "currency": "CNY",
        "status": "pending_payment",
        "version": 1,
        "total": 1530,
        "lines": [Line(1, "85123A", 'HEART "T"-LIGHT', 6, 255, 1530, stocked=True)],
        "created_at": 1_764_291_600_123,
        "customer_id": "u-1",
        "note": "请放门口",
        "ship_to": ShipTo(name="张三", city="杭州市"),
        "expires_at": 1_764_293_400_123,
    }
    return Order(**(fields | changes))


def full_order() -> Order:
    """An order in which nothing is left out."""
    return order(
        external_id="A-77",
        sale_id="double-11",
        metadata=b'{"k":"v"}',
        adjustments=b'[{"type":"fee","amount":1,"label":"x"}]',
        placed_at=0,
        paid_reference="wx-1",
        paid_at=-1,
        ship_to=ShipTo("n", "t", "CN", "p", "c", "d", "s", "1"),
    )


def change(**changes: Any) -> Change:
    fields: dict[str, Any] = {
        "version": 1,
        "at": 1_764_291_600_123,
        "event": "created",
        "status": "pending_payment",
        "actor": "client:7",
    }
    return Change(**(fields | changes))
