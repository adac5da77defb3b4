"""Sales: SKUs at prices of their own from one instant to another, with units of their own. A change made here is what
this worker sells by; the other workers follow within a second.

The units of a sale are not taken from the everyday stock of its SKUs. They are never lowered below what is held or
promised, and an item whose units are held is not taken away: then nothing of the change happens.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

import asyncpg
from litestar import Response, get, post, put
from msgspec import Meta

from core_ext.faults import FaultAt
from core_ext.times import EPOCH, MILLISECOND, ms_of, text_of
from gateway.api import examples
from gateway.api import sale_shapes as shapes
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, IF_NONE_MATCH, OPERATION, Operation, Parameter, Shown
from gateway.api.reading import (
    LIMIT,
    LIMIT_DEFAULT,
    is_sku,
    mismatch,
    read_if_match,
    read_json,
    read_limit,
    read_precondition,
    read_query,
    services_of,
)
from gateway.domain.cursors import decode_cursor, encode_cursor
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.domain.stock_keys import stock_key
from gateway.leases import RECALL_WAITS_S
from gateway.sales import sale_of
from gateway.services import Services
from persistence.postgres import sales

PATH = "/v1/sales"
CURSOR_ROUTE = b"\x13"
PATTERN = "^[a-z0-9-]{1,64}$"
ID_DETAIL = "a sale's id has 1 to 64 characters of a-z, 0-9 and -"
# Outcome of a put -> (code of the entry, member of the item at fault, what is wrong with it).
AT_FAULT = {
    "unknown_sku": ("unknown_sku", "sku", "is not in the catalogue"),
    "not_stocked": ("not_stocked", "sku", "is sold without stock"),
    "below_held": ("out_of_range", "units", "fewer than are held or promised"),
}

SALE_ID = Parameter(
    "sale_id", "path", Annotated[str, Meta(pattern=PATTERN)], "a-z, 0-9 and -", required=True, example="double-11"
)
SHOWN = Shown("The sale", shapes.Sale, headers={"ETag": "The version of the sale"}, example=examples.SALE)
SHOW = Operation(
    name="showSale",
    tag="Sales",
    summary="Show a sale, and the server's time",
    answers={200: SHOWN},
    problems=("not_found", "ledger_away"),
    parameters=(SALE_ID,),
)
PUT = Operation(
    name="putSale",
    tag="Sales",
    summary="Create or replace a sale",
    description=(
        "The units are a stock of the sale's own, beside the everyday stock of its SKUs. Either the whole change "
        "happens or nothing of it."
    ),
    scopes=("catalogue:write",),
    body=shapes.SaleIn,
    body_example=examples.SALE_IN,
    answers={
        200: Shown("The sale, replaced", shapes.Sale, headers=SHOWN.headers, example=examples.SALE),
        201: Shown(
            "The sale, created",
            shapes.Sale,
            headers=SHOWN.headers | {"Location": "Where it is"},
            example=examples.SALE,
        ),
    },
    problems=("below_held", "version_mismatch", "ledger_away"),
    parameters=(SALE_ID, IF_MATCH, IF_NONE_MATCH),
)
OPEN = Operation(
    name="openSale",
    tag="Sales",
    summary="Open a sale at this instant",
    description="A sale that is open stays as it is.",
    scopes=("catalogue:write",),
    answers={200: SHOWN},
    problems=("bad_request", "not_found", "sale_closed", "version_mismatch", "ledger_away"),
    parameters=(SALE_ID, IF_MATCH),
)
CLOSE = Operation(
    name="closeSale",
    tag="Sales",
    summary="End a sale at this instant",
    description="In force within a second. A sale that is over stays as it is; one that has not opened never will.",
    scopes=("catalogue:write",),
    answers={200: SHOWN},
    problems=("bad_request", "not_found", "version_mismatch", "ledger_away"),
    parameters=(SALE_ID, IF_MATCH),
)
LIST_PARAMETERS = (
    Parameter("limit", "query", LIMIT, f"Sales of a page; {LIMIT_DEFAULT} when left out"),
    Parameter("cursor", "query", str, "`next_cursor` of the page before"),
)
LIST = Operation(
    name="listSales",
    tag="Sales",
    summary="List sales, in order of their ids",
    answers={
        200: Shown(
            "A page",
            shapes.SalePage,
            headers={"Link": 'The next page, `rel="next"`, when there is one'},
            example={"items": [examples.SALE], "next_cursor": None, "now": examples.SALE["now"]},
        )
    },
    problems=("bad_cursor", "ledger_away"),
    parameters=LIST_PARAMETERS,
)
REPORT = Operation(
    name="reportSale",
    tag="Sales",
    summary="Report what a sale has sold, and what it has refused",
    scopes=("orders:read:all",),
    answers={200: Shown("The report", shapes.SaleReport, example=examples.SALE_REPORT)},
    problems=("not_found", "ledger_away"),
    parameters=(SALE_ID,),
)


@get(PATH + "/{sale_id:str}", opt={OPERATION: SHOW})
async def show_sale(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    row = await sales.get(services.pool, _read_id(request))
    if row is None:
        raise refuse("not_found")
    return _answer(services, row)


@put(PATH + "/{sale_id:str}", opt={OPERATION: PUT})
async def put_sale(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    sale_id = request.path_params["sale_id"]
    if not re.fullmatch(PATTERN, sale_id):
        raise refuse("invalid", ID_DETAIL)
    if_version = read_precondition(request)
    wanted = await read_json(request, shapes.SaleIn)
    faults = list(_faults(wanted))
    if faults:
        errors = tuple({"detail": fault.detail, "pointer": fault.pointer, "code": fault.code} for fault in faults)
        raise ProblemError(Refusal("invalid", "the body is not valid", errors))
    row = await _put(services, sale_id, wanted, client_of(request).actor, if_version)
    _taken_over(services, row)
    created = row["version"] == 1
    return _answer(services, row, 201 if created else 200, {"location": f"{PATH}/{sale_id}"} if created else {})


@post(PATH + "/{sale_id:str}/open", status_code=200, opt={OPERATION: OPEN})
async def open_sale(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    row = _changed(await sales.open_now(services.pool, _read_id(request), read_if_match(request)))
    _taken_over(services, row)
    if sale_of(row).state(services.clock.now_ms()) == "closed":
        raise refuse("sale_closed", "give the sale a new end to open it again")
    return _answer(services, row)


@post(PATH + "/{sale_id:str}/close", status_code=200, opt={OPERATION: CLOSE})
async def close_sale(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    row = _changed(await sales.close_now(services.pool, _read_id(request), read_if_match(request)))
    _taken_over(services, row)
    return _answer(services, row)


@get(PATH, opt={OPERATION: LIST})
async def list_sales(request: AnyRequest) -> Response[bytes]:
    services, client = services_of(request), client_of(request)
    query = read_query(request)
    limit = read_limit(query)

    def digest(text: bytes) -> bytes:
        return services.hasher.key_hash(client.client_id, text, CURSOR_ROUTE)

    after = decode_cursor(digest, b"", query["cursor"]) if "cursor" in query else b""
    if after is None:
        raise refuse("bad_cursor")
    rows = await sales.page(services.pool, after.decode(), limit + 1)
    page = [_shown(services, row) for row in rows[:limit]]
    cursor = encode_cursor(digest, b"", page[-1].sale_id.encode()) if len(rows) > limit else None
    link = {} if cursor is None else {"link": f'<{PATH}?{urlencode(query | {"cursor": cursor})}>; rel="next"'}
    return json_answer(shapes.SalePage(page, cursor, text_of(services.clock.now_ms())), headers=link)


@get(PATH + "/{sale_id:str}/report", opt={OPERATION: REPORT})
async def report_sale(request: AnyRequest) -> Response[bytes]:
    services, sale_id = services_of(request), _read_id(request)
    if await sales.get(services.pool, sale_id) is None:
        raise refuse("not_found")
    sold, refusals = await sales.report(services.pool, sale_id)
    return json_answer(_report(sale_id, sold, refusals))


def _read_id(request: AnyRequest) -> str:
    sale_id: str = request.path_params["sale_id"]
    if not re.fullmatch(PATTERN, sale_id):
        raise refuse("not_found")
    return sale_id


def _changed(found: asyncpg.Record | sales.Refused | None) -> asyncpg.Record:
    if found is None:
        raise refuse("not_found")
    if isinstance(found, dict):
        raise refuse("version_mismatch")
    return found


def _faults(wanted: shapes.SaleIn) -> Iterator[FaultAt]:
    """What is wrong with a body beyond the bounds of its fields."""
    for name, moment in (("starts_at", wanted.starts_at), ("ends_at", wanted.ends_at)):
        if not shapes.FIRST_MS <= ms_of(moment) < shapes.BEYOND_MS:
            yield FaultAt("out_of_range", f"#/{name}", f"must be in the {shapes.YEARS}")
    if not ms_of(wanted.starts_at) < ms_of(wanted.ends_at):
        yield FaultAt("out_of_range", "#/ends_at", "must be after starts_at, by a millisecond at least")
    seen = set()
    for at, item in enumerate(wanted.items):
        if not is_sku(item.sku):
            yield FaultAt("bad_format", f"#/items/{at}/sku", "must have printable characters only")
        if item.sku in seen:
            yield FaultAt("bad_count", f"#/items/{at}/sku", "must stand there once")
        seen.add(item.sku)


async def _put(
    services: Services, sale_id: str, wanted: shapes.SaleIn, actor: str, if_version: int | None
) -> asyncpg.Record:
    """Units that workers hold unsold are called back when they are in the way."""
    terms = sales.Terms(wanted.title, _whole(wanted.starts_at), _whole(wanted.ends_at), wanted.payment_timeout_s)
    items = [
        sales.Item(item.sku, item.price, item.units, item.limit, services.live.shards_of(item.sku))
        for item in wanted.items
    ]
    held: Sequence[str] = ()
    for wait_s in RECALL_WAITS_S:
        for sku in held:
            await services.leases.recall(stock_key(sale_id, sku))
        await asyncio.sleep(wait_s)
        found = await sales.put(services.pool, sale_id, terms, items, actor, if_version)
        if not isinstance(found, dict):
            return found
        held = found.get("below_held", ())
        if not held:
            break
    if "version_mismatch" in found:
        raise mismatch(if_version)
    raise ProblemError(_why_not(found, wanted))


def _why_not(refused: sales.Refused, wanted: shapes.SaleIn) -> Refusal:
    places = {item.sku: f"#/items/{at}" for at, item in enumerate(wanted.items)}
    errors: list[dict[str, Any]] = []
    for outcome, skus in refused.items():
        code, member, what = AT_FAULT[outcome]
        for sku in skus:
            pointer = f"{places[sku]}/{member}" if sku in places else "#/items"
            errors.append({"detail": f"{sku}: {what}", "pointer": pointer, "code": code})
    if "below_held" in refused:
        return Refusal("below_held", "units that are held or in workers' hands cannot be taken away", tuple(errors))
    return Refusal("invalid", "the sale does not fit the catalogue", tuple(errors))


def _taken_over(services: Services, row: asyncpg.Record) -> None:
    """Sell by the change at once; the follower brings it to the other workers."""
    services.sales.apply([row])
    for key in sale_of(row).stock_keys():
        services.leases.restocked(key)


def _answer(
    services: Services, row: asyncpg.Record, status: int = 200, headers: dict[str, str] | None = None
) -> Response[bytes]:
    return json_answer(_shown(services, row), status, {"etag": etag(row["version"])} | (headers or {}))


def _shown(services: Services, row: asyncpg.Record) -> shapes.Sale:
    sale, now_ms = sale_of(row), services.clock.now_ms()
    return shapes.Sale(
        sale_id=sale.sale_id,
        title=sale.title,
        state=sale.state(now_ms),
        starts_at=text_of(sale.starts_at),
        ends_at=text_of(sale.ends_at),
        now=text_of(now_ms),
        payment_timeout_s=sale.payment_timeout_s,
        items=[
            shapes.SaleItem(item.sku, item.price, item.currency, units, item.limit)
            for item, units in zip(sale.items, row["units"], strict=True)
        ],
        version=sale.version,
    )


def _report(sale_id: str, sold: asyncpg.Record, refusals: dict[str, int]) -> shapes.SaleReport:
    first, last = sold["first_unit_at"], sold["last_unit_at"]
    # Of the seconds that the peak was counted by, so that it is the mean's upper bound.
    seconds = int((last.replace(microsecond=0) - first.replace(microsecond=0)).total_seconds()) + 1 if first else 1
    return shapes.SaleReport(
        sale_id=sale_id,
        orders=sold["orders"],
        units=sold["units"],
        returned_units=sold["returned_units"],
        unsold_units=sold["unsold_units"],
        total_units=sold["total_units"],
        buyers=sold["buyers"],
        first_unit_at=text_of(ms_of(first)) if first else None,
        last_unit_at=text_of(ms_of(last)) if last else None,
        units_per_second=shapes.UnitsPerSecond(sold["peak_units_per_second"], round(sold["units"] / seconds, 1)),
        refusals=refusals,
    )


def _whole(moment: datetime) -> datetime:
    """In UTC and whole milliseconds, rounded down, as orders have their times."""
    return EPOCH + ms_of(moment) * MILLISECOND
