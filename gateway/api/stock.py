"""Stock as the merchant sees it: one total per SKU, and where its units are. Every change is a movement with actor and
reason.

A total is never lowered below what is held or promised: units in workers' hands are called back first, so what nobody
has bought can be taken away.
"""

import asyncio
from typing import Any

import asyncpg
from litestar import Response, get, patch, put

from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, IF_NONE_MATCH, OPERATION, SKU, Operation, Parameter, Shown
from gateway.api.reading import (
    LIMIT,
    mismatch,
    read_if_match,
    read_json,
    read_limit,
    read_precondition,
    read_query,
    read_sku,
    services_of,
)
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.domain.stock_keys import SEPARATOR, stock_key
from gateway.leases import RECALL_WAITS_S
from gateway.services import Services
from persistence.postgres import catalogue, pinch, stock

PATH = "/v1/stock"
WORST_DEFAULT = 20

SHOWN = Shown("The stock", shapes.Stock, headers={"ETag": "The version of the stock"}, example=examples.STOCK)
SALE_ID = Parameter("sale_id", "query", str, "The SKU's stock in this sale; its everyday stock when left out")
SHOW = Operation(
    name="showStock",
    tag="Stock",
    summary="Show a SKU's stock, and whose hands it is in",
    scopes=("stock:read",),
    answers={200: SHOWN},
    problems=("not_found", "ledger_away"),
    parameters=(SKU, SALE_ID),
)
PUT = Operation(
    name="setStock",
    tag="Stock",
    summary="Set a SKU's total, and its number of shards",
    scopes=("stock:write",),
    body=shapes.StockIn,
    body_example=examples.STOCK_IN,
    answers={200: SHOWN},
    problems=("not_found", "below_held", "version_mismatch", "ledger_away"),
    parameters=(SKU, IF_MATCH, IF_NONE_MATCH),
)
PATCH = Operation(
    name="changeStock",
    tag="Stock",
    summary="Change the number of shards of a SKU's stock",
    description="While orders flow: only free units move. From then on no rule changes the number.",
    scopes=("stock:write",),
    body=shapes.StockChange,
    body_example={"shards": 16},
    answers={200: SHOWN},
    problems=("not_found", "version_mismatch", "ledger_away"),
    parameters=(SKU, SALE_ID, IF_MATCH),
)
LIST_PARAMETERS = (Parameter("limit", "query", LIMIT, f"So many at most; {WORST_DEFAULT} when left out"),)
LIST = Operation(
    name="listPinchedStock",
    tag="Stock",
    summary="List the SKUs whose stock pinches most",
    description="Where orders are refused for want of units first, then where they wait, then where workers refill.",
    scopes=("stock:read",),
    answers={200: Shown("The worst first", shapes.PinchedStocks, example=examples.PINCHED)},
    problems=("ledger_away",),
    parameters=LIST_PARAMETERS,
)


@get(PATH + "/{sku:str}", opt={OPERATION: SHOW})
async def show_stock(request: AnyRequest) -> Response[bytes]:
    return await _shown(services_of(request), _read_key(request))


@put(PATH + "/{sku:str}", opt={OPERATION: PUT})
async def set_stock(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    sku = read_sku(request)
    if_version = read_precondition(request)
    wanted = await read_json(request, shapes.StockIn)
    product = None if sku is None else await catalogue.get(services.pool, sku)
    if sku is None or product is None:
        raise refuse("not_found", "there is no such product")
    if not product["stocked"]:
        entry = {"detail": "the product is sold without stock", "pointer": "#/total", "code": "not_stocked"}
        raise ProblemError(Refusal("invalid", entry["detail"], (entry,)))
    await _set_total(services, sku, wanted, client_of(request).actor, if_version)
    if wanted.shards is not None:
        await stock.fix_shards(services.pool, sku)
        (row,) = await stock.show(services.pool, [sku])
        if wanted.shards != row["shards"]:
            await stock.reshard(services.pool, sku, wanted.shards)
    return await _shown(services, sku)


@patch(PATH + "/{sku:str}", opt={OPERATION: PATCH})
async def change_stock(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    key = _read_key(request)
    if_version = read_if_match(request)
    wanted = await read_json(request, shapes.StockChange)
    spread = key is not None and await stock.reshard(services.pool, key, wanted.shards, if_version)
    shown = await _shown(services, key)
    if not spread:
        raise mismatch(if_version)
    return shown


@get(PATH, opt={OPERATION: LIST})
async def list_pinched_stock(request: AnyRequest) -> Response[bytes]:
    pool = services_of(request).pool
    query = read_query(request)
    worst = await pinch.worst(pool, read_limit({"limit": str(WORST_DEFAULT)} | query))
    rows = {row["sku"]: row for row in await stock.show(pool, [pinched.sku for pinched in worst])}
    items = [
        shapes.PinchedStock(**_units(rows[pinched.sku], shapes.PinchedStock), **_pinch(pinched))
        for pinched in worst
        if pinched.sku in rows
    ]
    return json_answer(shapes.PinchedStocks(items))


def _read_key(request: AnyRequest) -> str | None:
    """The stock key that path and query name; None when there can be none."""
    sale_id = read_query(request).get(SALE_ID.name)
    sku = read_sku(request)
    return None if sku is None else stock_key(sale_id, sku)


async def _set_total(services: Services, sku: str, wanted: shapes.StockIn, actor: str, if_version: int | None) -> None:
    shards = wanted.shards or services.live.shards_of(sku)
    for wait_s in RECALL_WAITS_S:
        if wait_s:
            await services.leases.recall(sku)
            await asyncio.sleep(wait_s)
        outcome, _, _ = await stock.set_total(
            services.pool, sku, wanted.total, shards, actor, wanted.reason, if_version
        )
        if outcome == "set":
            services.leases.restocked(sku)
            return
        if outcome == "version_mismatch":
            raise mismatch(if_version)
    raise await below_held(services, sku)


async def below_held(services: Services, sku: str) -> ProblemError:
    """The error of a total that would go below what is held or in workers' hands."""
    (row,) = await stock.show(services.pool, [sku])
    units = _units(row, shapes.Stock)
    lowest = units["total"] - units["free"]
    return refuse(
        "below_held",
        f"the total cannot go below {lowest}: {units['held']} units are held, {units['leased']} in workers' hands",
    )


async def _shown(services: Services, key: str | None) -> Response[bytes]:
    rows = [] if key is None else await stock.show(services.pool, [key])
    if key is None or not rows:
        raise refuse("not_found")
    hands = [shapes.Hand(*hand) for hand in await pinch.hands(services.pool, key)]
    shown = shapes.Stock(**_units(rows[0], shapes.Stock), hands=hands, **_pinch(await pinch.of(services.pool, key)))
    return json_answer(shown, headers={"etag": etag(shown.version)})


def _units(row: asyncpg.Record, shape: type[shapes.Stock] | type[shapes.PinchedStock]) -> dict[str, Any]:
    """The members of `shape` that a row of `stock.show` gives."""
    sale_id, _, sku = row["sku"].rpartition(SEPARATOR)
    per_shard = list(row["free"] or [])
    free = sum(per_shard)
    found = dict(row) | {
        "sku": sku,
        "sale_id": sale_id or None,
        "free": free,
        "held": row["total"] + row["owed"] - free - row["leased"],
        "per_shard": per_shard,
    }
    return {name: value for name, value in found.items() if name in shape.__struct_fields__}


def _pinch(pinched: pinch.Pinched) -> dict[str, Any]:
    return {
        "parked": pinched.parked,
        "refills_per_s": round(pinched.refills_per_s, 1),
        "refused_per_s": round(pinched.refused_per_s, 1),
    }
