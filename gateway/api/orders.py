"""Orders: the readable twins of the hot routes, and reading what has been ordered. A client sees its own orders;
another client's order is 404, as one that does not exist.

A list is for looking things up. It is no change feed: those who need every change subscribe to the events.
"""

from collections.abc import Sequence

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from core_ext.shapes import Order, OrderIn
from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, etag, json_answer, passed_on
from gateway.api.filters import PARAMETERS, filters_of
from gateway.api.guard import client_of
from gateway.api.operations import OPERATION, Operation, Parameter, Shown
from gateway.api.paging import LINK, read_page
from gateway.api.reading import read_query, receive_of, services_of
from gateway.domain.access import Client
from gateway.domain.outcomes import ProblemError, Refusal, refuse
from gateway.edge.requests import read_headers
from gateway.heart import HEARTBEATS_MISSED
from gateway.orders import body_of
from gateway.services import Services

PATH = "/v1/orders"
CURSOR_ROUTE = b"\x11"  # tells the digests of this list from those of keys and of other lists
READ_SCOPES = ("orders:read", "orders:read:all")
ORDER_ID = Parameter("order_id", "path", str, "The order's id", required=True, example=examples.ORDER_ID)

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
        ),
        202: Shown(
            "A receipt: the ledger is away, and the order is durable in a journal. It will be a row, and whoever asks "
            "again with the key then gets the order",
            shapes.ReceiptOut,
            headers={
                "Location": "Where the order will be; there is 503 `ledger_away` meanwhile",
                "Retry-After": "Seconds after which to look there",
            },
            example={"status": "accepted", "idempotency_key": "A-77"},
        ),
    },
    problems=(
        "key_missing",
        "key_invalid",
        "channel_forbidden",
        "sold_out",
        "limit_reached",
        "sale_not_open",
        "sale_closed",
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
    problems=("not_found", "overloaded", "ledger_away"),
    parameters=(ORDER_ID,),
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
            headers=LINK,
            example={"items": [examples.ORDER], "next_cursor": None},
        )
    },
    problems=("bad_cursor", "ledger_away"),
    parameters=PARAMETERS,
)


@post(PATH, opt={OPERATION: PLACE})
async def place_order(request: AnyRequest) -> Response[bytes]:
    route = services_of(request).route
    return passed_on(await route.respond(read_headers(request.scope["headers"]), receive_of(request)))


@get(PATH + "/{order_id:str}", opt={OPERATION: SHOW})
async def show_order(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    client = client_of(request)
    order = await services_of(request).reads.show(client, order_id)
    if isinstance(order, Refusal):
        raise ProblemError(order)
    return json_answer(body_of(order, client), headers={"etag": etag(order.version)})


@get(PATH, opt={OPERATION: LIST})
async def list_orders(request: AnyRequest) -> Response[bytes]:
    services, client = services_of(request), client_of(request)
    query = read_query(request)
    filters = filters_of(query, services.hasher, client)
    page = read_page(request, CURSOR_ROUTE, _binding(query, client))
    if page.position:
        filters["before_id"] = page.position
    found = await services.book.page(filters, page.limit + 1)
    if not found and "key_hash" in filters and await _may_be_journaled(services, filters["key_hash"]):
        raise refuse("ledger_away", "an order with this key may be in a journal, and is not in the ledger yet")
    orders = found[: page.limit]
    cursor = page.cursor(orders[-1].id) if len(found) > page.limit else None
    return json_answer(_page(orders, client, cursor), headers=page.link(PATH, cursor))


async def _may_be_journaled(services: Services, key_hash: object) -> bool:
    """Whether an order with this key may be in a journal: in ours, or in that of an owner who has not been heard of
    since the ledger came back.
    """
    if key_hash in services.journaling.receipts:
        return True
    silent_s = HEARTBEATS_MISSED * services.settings.owner.heartbeat_ms / 1000
    since_s = max(services.clock.now_s() - silent_s, services.journaling.back_at_s)
    return await services.book.may_be_journaled(services.journaling.owner, since_s)


def _page(orders: Sequence[Order], client: Client, cursor: str | None) -> bytes:
    items = b",".join(body_of(order, client) for order in orders)
    return b'{"items":[%s],"next_cursor":%s}' % (items, msgspec.json.encode(cursor))


def _binding(query: dict[str, str], client: Client) -> bytes:
    """What a cursor belongs to: the filters, and how far the client sees."""
    filters = sorted((name, value) for name, value in query.items() if name not in ("cursor", "limit"))
    return msgspec.json.encode([client.may("orders:read:all"), filters])
