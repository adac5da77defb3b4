"""The orders of `floodgate bench`: the same bytes whoever sends, copies or publishes them.

The canonical order has a customer, a note of 20 Chinese characters and an address, so that personal data are encrypted.
A customer stands for a run: that is how the orders of a run are found again in the ledger. wrk/order.lua makes the same
bytes; a test holds the two together.
"""

import secrets
from typing import Any

import msgspec

from gateway.channels.feed import Goods

SKU = "FLASH-001"
SOLD_OUT_SKU = "GONE-001"
CHANNEL = "app"
CURRENCY = "CNY"
PRICE = 9900
NOTE = "请放在门口，到货前请先打电话，谢谢您了。"
SHIP_TO = {
    "name": "王小明",
    "phone": "13800000000",
    "country": "CN",
    "province": "浙江省",
    "city": "杭州市",
    "district": "西湖区",
    "street": "文三路 1 号",
    "postcode": "310012",
}
CATALOGUE_PREFIX = "BENCH-"
CATALOGUE_SKUS = 2000
CATALOGUE_LINES = 5
UNITS = 1_000_000_000  # of a SKU that does not sell out
assert len(NOTE) == 20


def new_customer() -> str:
    """A customer nobody else is, of always the same length."""
    return f"u-{secrets.token_hex(4)}"


def order(sku: str = SKU, customer_id: str = "u-00000000") -> dict[str, Any]:
    """The canonical order of one line."""
    return {
        "channel": CHANNEL,
        "currency": CURRENCY,
        "items": [{"sku": sku, "quantity": 1}],
        "customer_id": customer_id,
        "note": NOTE,
        "ship_to": SHIP_TO,
    }


def body(sku: str = SKU, customer_id: str = "u-00000000") -> bytes:
    """The canonical order as it is sent."""
    return msgspec.json.encode(order(sku, customer_id))


def catalogue_sku(number: int) -> str:
    """The SKU of this number, 1 to CATALOGUE_SKUS, as wrk/order.lua names it."""
    return f"{CATALOGUE_PREFIX}{number:04d}"


def goods(sku: str, units: int = UNITS) -> Goods:
    """A product of a scenario with its units of stock."""
    return Goods(sku, "Flash", PRICE, CURRENCY, units)


def catalogue() -> list[Goods]:
    return [goods(catalogue_sku(number)) for number in range(1, CATALOGUE_SKUS + 1)]
