"""The key under which units are counted: the units of a sale are a stock of their own, and so is what a customer may
hold of them. The SQL function `stock_key` gives the same text. People are shown the plain SKU.
"""

SEPARATOR = "\x1f"  # stands in no sale id and no SKU


def stock_key(sale_id: str | None, sku: str) -> str:
    """The SKU itself, or for an order of a sale its id and the SKU. Keys of one sale sort as their SKUs do."""
    return sku if sale_id is None else f"{sale_id}{SEPARATOR}{sku}"


def sku_of(key: str) -> str:
    """The plain SKU of a stock key."""
    return key.rpartition(SEPARATOR)[2]
