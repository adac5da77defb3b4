"""Stock as the merchant sees it: one total per SKU, and where its units are. Every change is a movement with actor
and reason.

A total is never lowered below what is held or promised: units in this worker's hand are given back first, so what
nobody has bought can be taken away.
"""

import asyncpg
from litestar import Response, get, put

from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, OPERATION, SKU, Operation, Shown
from gateway.api.reading import read_if_match, read_json, read_sku, services_of
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.services import Services
from persistence.postgres import catalogue, stock

PATH = "/v1/stock"
SET_TRIES = 3  # of lowering a total while the till of this worker takes units for its buyers

SHOWN = Shown("The stock", shapes.Stock, headers={"ETag": "The version of the stock"}, example=examples.STOCK)
SHOW = Operation(
    name="showStock",
    tag="Stock",
    summary="Show a SKU's stock",
    scopes=("stock:read",),
    answers={200: SHOWN},
    problems=("not_found", "ledger_away"),
    parameters=(SKU,),
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
    parameters=(SKU, IF_MATCH),
)


@get(PATH + "/{sku:str}", opt={OPERATION: SHOW})
async def show_stock(request: AnyRequest) -> Response[bytes]:
    sku = read_sku(request)
    found = [] if sku is None else await stock.show(services_of(request).pool, [sku])
    if not found:
        raise refuse("not_found")
    return _shown(found[0])


@put(PATH + "/{sku:str}", opt={OPERATION: PUT})
async def set_stock(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    sku = read_sku(request)
    if_version = read_if_match(request)
    wanted = await read_json(request, shapes.StockIn)
    product = None if sku is None else await catalogue.get(services.pool, sku)
    if sku is None or product is None:
        raise refuse("not_found", "there is no such product")
    if not product["stocked"]:
        entry = {"detail": "the product is sold without stock", "pointer": "#/total"}
        raise ProblemError(Refusal("invalid", entry["detail"], (entry,)))
    await _set_total(services, sku, wanted, client_of(request).actor, if_version)
    (row,) = await stock.show(services.pool, [sku])
    if wanted.shards not in (None, row["shards"]):
        await stock.reshard(services.pool, sku, wanted.shards)
        (row,) = await stock.show(services.pool, [sku])
    return _shown(row)


async def _set_total(services: Services, sku: str, wanted: shapes.StockIn, actor: str, if_version: int | None) -> None:
    shards = wanted.shards or services.settings.stock.shards
    for _ in range(SET_TRIES):
        outcome, total, _ = await stock.set_total(
            services.pool, sku, wanted.total, shards, actor, wanted.reason, if_version
        )
        if outcome == "set":
            services.leases.restocked(sku)
            return
        if outcome == "version_mismatch":
            raise refuse("version_mismatch")
        await services.leases.give_back(sku)
    raise refuse("below_held", f"the total is {total}, and what is held or in workers' hands cannot be taken away")


def _shown(row: asyncpg.Record) -> Response[bytes]:
    per_shard = list(row["free"] or [])
    free = sum(per_shard)
    shown = shapes.Stock(
        sku=row["sku"],
        total=row["total"],
        owed=row["owed"],
        shards=row["shards"],
        version=row["version"],
        free=free,
        leased=row["leased"],
        held=row["total"] + row["owed"] - free - row["leased"],
        per_shard=per_shard,
    )
    return json_answer(shown, headers={"etag": etag(shown.version)})
