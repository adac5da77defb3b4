"""What storefronts poll: whether SKUs can be had, from this worker's memory, at most a second old."""

import re
from collections.abc import Mapping
from typing import Annotated

from litestar import Response, get
from msgspec import Meta

from core_ext.limits import SKU_CHARS_MAX
from core_ext.shapes import Product
from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, json_answer
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.api.reading import SKUS_MAX, is_sku, read_pairs, services_of
from gateway.domain.levels import level_of
from gateway.domain.outcomes import refuse
from gateway.domain.stock_keys import stock_key
from gateway.services import Services

SALE_ID = re.compile("[a-z0-9-]{1,64}")
Skus = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=SKU_CHARS_MAX)]], Meta(min_length=1, max_length=SKUS_MAX)
]

SHOW = Operation(
    name="showAvailability",
    tag="Stock",
    summary="Tell storefronts which SKUs can be had",
    description=(
        "From memory, at most one second old. A product that is sold without stock is always `in_stock`, one that has "
        "no stock yet is `sold_out`. `unknown` is a SKU that is not for sale: there is no active product of it, or the "
        "sale does not have it or is over. Of a sale that has not opened yet it tells what there will be."
    ),
    scopes=("stock:read", "orders:write"),
    answers={200: Shown("What can be had", shapes.Availabilities, example=examples.AVAILABILITY)},
    problems=("ledger_away",),
    parameters=(
        Parameter(
            "sku", "query", Skus, f"Given 1 to {SKUS_MAX} times: `?sku=85123A&sku=22423`", True, ["85123A", "22423"]
        ),
        Parameter("sale_id", "query", str, "The units of this sale; everyday stock when left out"),
    ),
)


@get("/v1/availability", opt={OPERATION: SHOW})
async def show_availability(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    skus, sale_id = _read(request)
    sold = _sold(services, sale_id)
    products = {sku: sold[sku] for sku in skus if sku in sold and sold[sku].active}
    keys = {sku: stock_key(sale_id, sku) for sku, product in products.items() if product.stocked}
    units = await services.board.units(list(keys.values())) if keys else {}
    had: dict[str, shapes.Had] = dict.fromkeys(products, "in_stock")
    had |= {sku: level_of(units[key] or 0, services.live.stock.low_units) for sku, key in keys.items()}
    return json_answer(shapes.Availabilities([shapes.Availability(sku, had.get(sku, "unknown")) for sku in skus]))


def _sold(services: Services, sale_id: str | None) -> Mapping[str, Product]:
    """What is sold, by SKU: everyday, or by the sale, which may not have opened yet."""
    if sale_id is None:
        return services.catalogue.products
    sale = services.sales.find(sale_id)
    if sale is None or sale.state(services.clock.now_ms()) == "closed":
        return {}
    return services.sales.products(sale)


def _read(request: AnyRequest) -> tuple[list[str], str | None]:
    """SKUs, each once, in order; and the sale."""
    pairs = read_pairs(request.scope["query_string"])
    skus = [value for name, value in pairs if name == "sku"]
    sales = [value for name, value in pairs if name == "sale_id"]
    if len(sales) > 1:
        raise refuse("bad_parameter", "`sale_id` is given more than once")
    if not 1 <= len(skus) <= SKUS_MAX:
        raise refuse("bad_parameter", f"`sku` is given 1 to {SKUS_MAX} times")
    if not all(map(is_sku, skus)) or not all(map(SALE_ID.fullmatch, sales)):
        raise refuse("bad_parameter", "no SKU, or no sale, can be called so")
    return list(dict.fromkeys(skus)), sales[0] if sales else None
