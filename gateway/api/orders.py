"""Orders: the readable twin of the hot route, and reading what has been ordered. A client sees its own orders;
another client's order is 404, as one that does not exist.

A list is for looking things up. It is no change feed: those who need every change subscribe to the events.
"""

from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from core_ext import ids
from core_ext.shapes import Order, OrderIn
from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, etag, json_answer, passed_on
from gateway.api.filters import PARAMETERS, filters_of
from gateway.api.guard import client_of
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.api.reading import read_limit, read_query, receive_of, services_of
from gateway.domain.access import Client
from gateway.domain.cursors import Digest, decode_cursor, encode_cursor
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import refuse
from gateway.edge.requests import read_headers
from gateway.orders import body_of

PATH = "/v1/orders"
CURSOR_ROUTE = b"\x11"  # tells the digests of this list from those of keys and of other lists
READ_SCOPES = ("orders:read", "orders:read:all")

PLACE = Operation(
    name="placeOrder",
    tag="Orders",
    summary="Place an order",
    description=(
        "The order is durable before it is answered. A known key beats every refusal: the retry of an accepted order "
        "gets that order as it was created, with `Idempotency-Replayed: true`, whatever has happened since. Refusals "
        "are not stored: a retry of one is a new attempt. A body has at most 64 KiB, or 1 MiB when the order has over "
        "100 items and the client the scope `orders:price`, which `unit_price`, `adjustments`, `placed_at` and `paid` "
        "need as well."
    ),
    scopes=("orders:write",),
    checks_itself=True,
    keyed=True,
    body=OrderIn,
    body_example=examples.ORDER_IN,
    answers={
        201: Shown(
            "The order, as created",
            shapes.OrderOut,
            headers={
                "Location": "Where the order is",
                "ETag": "The version of the order",
                "Idempotency-Replayed": "`true` when an earlier request with the key has made the order",
            },
            example=examples.ORDER,
        )
    },
    problems=(
        "key_missing",
        "key_invalid",
        "channel_forbidden",
        "sold_out",
        "key_in_flight",
        "key_reused",
        "stock_returning",
        "overloaded",
        "ledger_away",
    ),
)
SHOW = Operation(
    name="showOrder",
    tag="Orders",
    summary="Show an order as it stands",
    scopes=READ_SCOPES,
    answers={
        200: Shown("The order", shapes.OrderOut, headers={"ETag": "The version of the order"}, example=examples.ORDER)
    },
    problems=("not_found", "ledger_away"),
    parameters=(Parameter("order_id", "path", str, "The order's id", required=True, example=examples.ORDER_ID),),
)
LIST = Operation(
    name="listOrders",
    tag="Orders",
    summary="List orders, newest first",
    description="The client's own orders, or with `orders:read:all` those of every client. Filters narrow it together.",
    scopes=READ_SCOPES,
    answers={
        200: Shown(
            "A page",
            shapes.OrderPage,
            headers={"Link": 'The next page, `rel="next"`, when there is one'},
            example={"items": [examples.ORDER], "next_cursor": None},
        )
    },
    problems=("bad_parameter", "bad_cursor", "ledger_away"),
    parameters=PARAMETERS,
)


@post(PATH, opt={OPERATION: PLACE})
async def place_order(request: AnyRequest) -> Response[bytes]:
    route = services_of(request).route
    return passed_on(await route.respond(read_headers(request.scope["headers"]), receive_of(request)))


@get(PATH + "/{order_id:str}", opt={OPERATION: SHOW})
async def show_order(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    client = client_of(request)
    parsed = ids.parse_id(order_id)
    order = None if parsed is None else await services_of(request).book.now(parsed)
    if order is None or not (client.may("orders:read:all") or order.client_id == client.client_id):
        raise refuse("not_found")
    return json_answer(body_of(order, client), headers={"etag": etag(order.version)})


@get(PATH, opt={OPERATION: LIST})
async def list_orders(request: AnyRequest) -> Response[bytes]:
    services, client = services_of(request), client_of(request)
    query = read_query(request, {parameter.name for parameter in PARAMETERS})
    limit = read_limit(query)
    filters = filters_of(query, services.hasher, client)
    digest, binding = _digest(services.hasher, client), _binding(query, client)
    if "cursor" in query:
        position = decode_cursor(digest, binding, query["cursor"])
        if position is None:
            raise refuse("bad_cursor")
        filters["before_id"] = position
    orders = await services.book.page(filters, limit + 1)
    page = orders[:limit]
    cursor = encode_cursor(digest, binding, page[-1].id) if len(orders) > limit else None
    return json_answer(_page(page, client, cursor), headers=_link(query, cursor))


def _page(orders: Sequence[Order], client: Client, cursor: str | None) -> bytes:
    items = b",".join(body_of(order, client) for order in orders)
    return b'{"items":[%s],"next_cursor":%s}' % (items, msgspec.json.encode(cursor))


def _link(query: dict[str, str], cursor: str | None) -> dict[str, str]:
    return {} if cursor is None else {"link": f'<{PATH}?{urlencode(query | {"cursor": cursor})}>; rel="next"'}


def _binding(query: dict[str, str], client: Client) -> bytes:
    """What a cursor belongs to: the filters, and how far the client sees."""
    filters = sorted((name, value) for name, value in query.items() if name not in ("cursor", "limit"))
    return msgspec.json.encode([client.may("orders:read:all"), filters])


def _digest(hasher: Hasher, client: Client) -> Digest:
    return lambda text: hasher.key_hash(client.client_id, text, CURSOR_ROUTE)
