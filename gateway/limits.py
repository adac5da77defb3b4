"""What a buyer is told who may hold no more units of a SKU. Whether that is so only the ledger decides, in the
transaction that would have made the order.
"""

from collections.abc import Iterable, Mapping

import msgspec

from gateway.domain.outcomes import Refusal
from gateway.domain.stock_keys import sku_of
from persistence.postgres.ledger import Limit


class _Item(msgspec.Struct):
    sku: str


class _Body(msgspec.Struct):
    items: list[_Item]


_decode = msgspec.json.Decoder(_Body).decode


def limit_reached(body: bytes, limits: Iterable[Limit], taken: Mapping[str, int]) -> Refusal:
    """The refusal of an order that would have been shown as `body`. `taken` names the stock keys that are over their
    limit, with the units that the customer holds of each.
    """
    over = {sku_of(limit.sku): limit.units_max for limit in limits if limit.sku in taken}
    left = {sku_of(key): max(over[sku_of(key)] - units, 0) for key, units in taken.items()}
    errors = tuple(
        {
            "detail": f"the buyer may have {left[item.sku]} more of {item.sku}",
            "pointer": f"#/items/{at}/quantity",
            "available": left[item.sku],
        }
        for at, item in enumerate(_decode(body).items)
        if item.sku in left
    )
    detail = ", ".join(f"{units_max} of {sku}" for sku, units_max in over.items())
    return Refusal("limit_reached", f"a buyer may hold {detail}", errors)
