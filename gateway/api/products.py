"""The catalogue: what is sold, for how much. A change made here is what this worker prices the next order by; the
other workers follow within a second.
"""

from urllib.parse import quote, urlencode

import asyncpg
from litestar import Response, get, patch, put
from msgspec import UNSET

from core_ext.limits import SKU_CHARS_MAX
from core_ext.shapes import Product
from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import IF_MATCH, IF_NONE_MATCH, OPERATION, SKU, Operation, Parameter, Shown
from gateway.api.reading import (
    LIMIT,
    LIMIT_DEFAULT,
    mismatch,
    read_if_match,
    read_json,
    read_limit,
    read_precondition,
    read_query,
    read_sku,
    services_of,
)
from gateway.catalogue import product_of
from gateway.domain.cursors import decode_cursor, encode_cursor
from gateway.domain.outcomes import refuse
from gateway.services import Services
from persistence.postgres import catalogue
from persistence.postgres.catalogue import ProductRow

PATH = "/v1/products"
CURSOR_ROUTE = b"\x12"
CHANGE_TRIES = 5  # of a PATCH without If-Match that others overtake

SKU_DETAIL = f"a SKU has 1 to {SKU_CHARS_MAX} printable characters"
SHOWN = {"ETag": "The version of the product"}
SHOW = Operation(
    name="showProduct",
    tag="Products",
    summary="Show a product",
    answers={200: Shown("The product", Product, headers=SHOWN, example=examples.PRODUCT)},
    problems=("not_found", "ledger_away"),
    parameters=(SKU,),
)
PUT = Operation(
    name="putProduct",
    tag="Products",
    summary="Create or replace a product",
    scopes=("catalogue:write",),
    body=shapes.ProductIn,
    body_example=examples.PRODUCT_IN,
    answers={
        200: Shown("The product, replaced", Product, headers=SHOWN, example=examples.PRODUCT),
        201: Shown(
            "The product, created", Product, headers=SHOWN | {"Location": "Where it is"}, example=examples.PRODUCT
        ),
    },
    problems=("version_mismatch", "ledger_away"),
    parameters=(SKU, IF_MATCH, IF_NONE_MATCH),
)
PATCH = Operation(
    name="changeProduct",
    tag="Products",
    summary="Change some fields of a product",
    scopes=("catalogue:write",),
    body=shapes.ProductChange,
    body_example={"active": False},
    answers={200: Shown("The product, changed", Product, headers=SHOWN, example=examples.PRODUCT)},
    problems=("not_found", "version_mismatch", "ledger_away"),
    parameters=(SKU, IF_MATCH),
)
LIST_PARAMETERS = (
    Parameter("limit", "query", LIMIT, f"Products of a page; {LIMIT_DEFAULT} when left out"),
    Parameter("cursor", "query", str, "`next_cursor` of the page before"),
)
LIST = Operation(
    name="listProducts",
    tag="Products",
    summary="List the catalogue, in order of SKUs",
    answers={
        200: Shown(
            "A page",
            shapes.ProductPage,
            headers={"Link": 'The next page, `rel="next"`, when there is one'},
            example={"items": [examples.PRODUCT], "next_cursor": None},
        )
    },
    problems=("bad_cursor", "ledger_away"),
    parameters=LIST_PARAMETERS,
)


@get(PATH + "/{sku:str}", opt={OPERATION: SHOW})
async def show_product(request: AnyRequest) -> Response[bytes]:
    sku = read_sku(request)
    row = None if sku is None else await catalogue.get(services_of(request).pool, sku)
    if row is None:
        raise refuse("not_found")
    return _shown(row)


@put(PATH + "/{sku:str}", opt={OPERATION: PUT})
async def put_product(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    sku = read_sku(request)
    if sku is None:
        raise refuse("invalid", SKU_DETAIL)
    if_version = read_precondition(request)
    product = await read_json(request, shapes.ProductIn)
    row = ProductRow(sku, *(getattr(product, name) for name in ProductRow._fields[1:]))
    rows = await catalogue.put(services.pool, [row], if_version)
    if rows is None:
        raise mismatch(if_version)
    return _written(services, rows[0])


@patch(PATH + "/{sku:str}", opt={OPERATION: PATCH})
async def change_product(request: AnyRequest) -> Response[bytes]:
    services = services_of(request)
    sku = read_sku(request)
    if_version = read_if_match(request)
    change = await read_json(request, shapes.ProductChange)
    for _ in range(CHANGE_TRIES):
        row = None if sku is None else await catalogue.get(services.pool, sku)
        if row is None:
            raise refuse("not_found")
        if if_version not in (None, row["version"]):
            raise refuse("version_mismatch")
        changed = _changed(row, change)
        if changed == ProductRow(*(row[name] for name in ProductRow._fields)):
            return _shown(row)
        rows = await catalogue.put(services.pool, [changed], row["version"])
        if rows is not None:
            return _written(services, rows[0])
    raise refuse("version_mismatch", "others have changed the product again and again")


@get(PATH, opt={OPERATION: LIST})
async def list_products(request: AnyRequest) -> Response[bytes]:
    services, client = services_of(request), client_of(request)
    query = read_query(request)
    limit = read_limit(query)

    def digest(text: bytes) -> bytes:
        return services.hasher.key_hash(client.client_id, text, CURSOR_ROUTE)

    after = decode_cursor(digest, b"", query["cursor"]) if "cursor" in query else b""
    if after is None:
        raise refuse("bad_cursor")
    rows = await catalogue.page(services.pool, after.decode(), limit + 1)
    page = [product_of(row) for row in rows[:limit]]
    cursor = encode_cursor(digest, b"", page[-1].sku.encode()) if len(rows) > limit else None
    link = {} if cursor is None else {"link": f'<{PATH}?{urlencode(query | {"cursor": cursor})}>; rel="next"'}
    return json_answer({"items": page, "next_cursor": cursor}, headers=link)


def _changed(row: asyncpg.Record, change: shapes.ProductChange) -> ProductRow:
    given = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not UNSET}
    return ProductRow(*(given.get(name, row[name]) for name in ProductRow._fields))


def _written(services: Services, row: asyncpg.Record) -> Response[bytes]:
    """Take the row over at once; the follower may have been faster, and with a later one."""
    product = product_of(row)
    services.catalogue.put(product_of(row))
    created = product.version == 1
    location = {"location": f"{PATH}/{quote(product.sku, safe='')}"} if created else {}
    return json_answer(product, 201 if created else 200, {"etag": etag(product.version)} | location)


def _shown(row: asyncpg.Record) -> Response[bytes]:
    return json_answer(product_of(row), headers={"etag": etag(row["version"])})
