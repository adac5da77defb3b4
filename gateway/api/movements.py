"""Movements of stock: every change of a total with its actor and reason, and the change by so many units.

An adjustment happens once per key, however often it is asked for, over whichever worker; the movement that it made is
the answer to all of them.
"""

import asyncio
from urllib.parse import quote

from litestar import Response, get, post

from core_ext.limits import MONEY_MAX
from core_ext.times import text_of
from gateway.api import examples
from gateway.api import movement_shapes as shapes
from gateway.api.answers import AnyRequest, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, OPERATION, SKU, Operation, Shown
from gateway.api.paging import LINK, parameters, read_page
from gateway.api.reading import (
    mismatch,
    parse_json,
    read_if_match,
    read_key,
    read_query,
    read_raw,
    read_sku,
    services_of,
)
from gateway.api.stock import PATH, SALE_ID, below_held
from gateway.domain.keys import ADJUSTMENTS_ROUTE
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.domain.stock_keys import SEPARATOR, stock_key
from gateway.leases import RECALL_WAITS_S
from gateway.services import Services
from persistence.postgres import movements
from persistence.postgres.movements import Key, Movement
from persistence.postgres.orders import to_ms

CURSOR_ROUTE = b"\x14"
POSITION_BYTES = 8

ADJUST = Operation(
    name="adjustStock",
    tag="Stock",
    summary="Change a SKU's total by so many units",
    description=(
        "What happens at the same time is not overwritten, as it can be by setting the total. A total never goes below "
        "what is held or promised: units in workers' hands are called back first, then it is `below_held`. A key is "
        "good for one SKU and body, and a known key beats every refusal: a call that is repeated gets the movement of "
        "the first one, with `Idempotency-Replayed: true`. The units of a sale are changed with the sale."
    ),
    scopes=("stock:write",),
    keyed=True,
    body=shapes.StockAdjustmentIn,
    body_example=examples.ADJUSTMENT_IN,
    answers={
        201: Shown(
            "The movement",
            shapes.StockMovement,
            headers={
                "Location": "The SKU's movements",
                "Idempotency-Replayed": "`true` when an earlier request with the key has made the movement",
            },
            example=examples.MOVEMENT,
        )
    },
    problems=(
        "key_missing",
        "key_invalid",
        "key_reused",
        "not_found",
        "below_held",
        "version_mismatch",
        "ledger_away",
    ),
    parameters=(SKU, IF_MATCH),
)
LIST = Operation(
    name="listMovements",
    tag="Stock",
    summary="List the changes of a SKU's total, newest first",
    scopes=("stock:read",),
    answers={
        200: Shown(
            "A page",
            shapes.StockMovements,
            headers=LINK,
            example={"items": [examples.MOVEMENT], "next_cursor": None},
        )
    },
    problems=("not_found", "bad_cursor", "ledger_away"),
    parameters=(SKU, *parameters("Movements", SALE_ID)),
)


@post(PATH + "/{sku:str}/adjustments", opt={OPERATION: ADJUST})
async def adjust_stock(request: AnyRequest) -> Response[bytes]:
    services, client = services_of(request), client_of(request)
    sku, key = read_sku(request), read_key(request)
    if_version = read_if_match(request)
    body = await read_raw(request)
    wanted = parse_json(body, shapes.StockAdjustmentIn)
    if wanted.delta == 0:
        raise _out_of_range("must not be 0")
    if sku is None:
        raise refuse("not_found")
    # Which SKU it is stands in the path, so the fingerprint has it too: a key is never answered with another SKU's.
    hashed = Key(
        services.hasher.key_hash(client.client_id, key, ADJUSTMENTS_ROUTE),
        services.hasher.fingerprint(sku.encode() + b"\0" + body),
    )
    movement, replayed = await _adjust(services, hashed, sku, wanted, client.actor, if_version)
    headers = {"location": _path(sku)} | ({"idempotency-replayed": "true"} if replayed else {})
    return json_answer(_shown(movement), 201, headers)


@get(PATH + "/{sku:str}/movements", opt={OPERATION: LIST})
async def list_movements(request: AnyRequest) -> Response[bytes]:
    sku, sale_id = read_sku(request), read_query(request).get(SALE_ID.name)
    if sku is None:
        raise refuse("not_found")
    key = stock_key(sale_id, sku)
    page = read_page(request, CURSOR_ROUTE, key.encode())
    before = int.from_bytes(page.position) if page.position else None
    found = await movements.page(services_of(request).pool, key, before, page.limit + 1)
    if found is None:
        raise refuse("not_found")
    shown = [_shown(movement) for movement in found[: page.limit]]
    more = len(found) > page.limit
    cursor = page.cursor(shown[-1].movement_id.to_bytes(POSITION_BYTES)) if more else None
    return json_answer(shapes.StockMovements(shown, cursor), headers=page.link(_path(sku), cursor))


async def _adjust(
    services: Services, key: Key, sku: str, wanted: shapes.StockAdjustmentIn, actor: str, if_version: int | None
) -> tuple[Movement, bool]:
    """The movement, and whether an earlier call has made it. Units in workers' hands are called back when they are
    needed.
    """
    for wait_s in RECALL_WAITS_S:
        if wait_s:
            await services.leases.recall(sku)
            await asyncio.sleep(wait_s)
        outcome, movement = await movements.adjust(
            services.pool, key, sku, wanted.delta, actor, wanted.reason, if_version
        )
        if movement is not None:
            services.leases.restocked(sku)
            return movement, outcome == "replayed"
        if outcome != "below_held":
            raise _why_not(outcome, if_version)
    raise await below_held(services, sku)


def _why_not(outcome: str, if_version: int | None) -> ProblemError:
    if outcome == "key_reused":
        return refuse("key_reused", "the key belongs to an adjustment of another SKU, or with another body")
    if outcome == "version_mismatch":
        return mismatch(if_version)
    if outcome == "out_of_range":
        return _out_of_range(f"makes the total larger than {MONEY_MAX}")
    assert outcome == "not_found", outcome
    return refuse("not_found", "the SKU has no stock yet: PUT gives it some")


def _out_of_range(detail: str) -> ProblemError:
    entry = {"detail": detail, "pointer": "#/delta", "code": "out_of_range"}
    return ProblemError(Refusal("invalid", "the body is not valid", (entry,)))


def _path(sku: str) -> str:
    return f"{PATH}/{quote(sku, safe='')}/movements"


def _shown(movement: Movement) -> shapes.StockMovement:
    sale_id, _, sku = movement.sku.rpartition(SEPARATOR)
    return shapes.StockMovement(
        movement_id=movement.movement_id,
        sku=sku,
        delta=movement.delta,
        total=movement.total,
        actor=movement.actor,
        at=text_of(to_ms(movement.at) or 0),
        reason=movement.reason,
        sale_id=sale_id or None,
    )
