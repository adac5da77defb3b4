"""Reading orders: own ones and no others, personal data only for those who may see it, pages that neither repeat nor
skip.
"""

import json
from urllib.parse import quote

import pytest

from core_ext import ids
from core_ext.shapes import Line, Order, ShipTo
from gateway import api
from tests.api import App, Book, call, services


def order(at: int, client_id: int = 1) -> Order:
    line = Line(1, "85123A", "烛台", 6, 255, 1530, stocked=True)
    return Order(
        id=ids.new_id(1_800_000_000_000 + at),
        client_id=client_id,
        channel="app",
        currency="CNY",
        status="paid",
        version=3,
        total=1530,
        lines=[line],
        created_at=1_800_000_000_000 + at,
        note="请放门口",
        ship_to=ShipTo(name="王小明"),
    )


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def app(book: Book) -> App:
    return api.create(services(book=book))


def path_of(stored: Order) -> str:
    return f"/v1/orders/{ids.format_id(stored.id)}"


async def test_show_order_of_the_client_shows_it(app: App, book: Book) -> None:
    book.orders = [order(1)]
    reply = await call(app, "GET", path_of(book.orders[0]))
    assert (reply.status, reply.header("etag")) == (200, '"3"')
    assert reply.header("content-type") == "application/json"
    assert reply.json["order_id"] == ids.format_id(book.orders[0].id)
    assert reply.json["note"] == "请放门口"


async def test_show_order_of_another_client_is_not_found(app: App, book: Book) -> None:
    book.orders = [order(1)]
    reply = await call(app, "GET", path_of(book.orders[0]), token="fg_own")
    assert (reply.status, reply.code) == (404, "not_found")


async def test_show_order_of_another_client_for_who_reads_all_shows_it(app: App, book: Book) -> None:
    book.orders = [order(1, client_id=9)]
    assert (await call(app, "GET", path_of(book.orders[0]))).status == 200


async def test_show_order_without_pii_read_masks(app: App, book: Book) -> None:
    book.orders = [order(1, client_id=3)]
    reply = await call(app, "GET", path_of(book.orders[0]), token="fg_own")
    assert reply.json["note"] == "***"
    assert reply.json["ship_to"] == {"name": "***"}


@pytest.mark.parametrize(
    "order_id", ["x", "0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51", "%00", "0199a7c25d807c3e9b1f4a6d2e8c0f51"]
)
async def test_show_order_that_does_not_exist_is_not_found(app: App, order_id: str) -> None:
    assert (await call(app, "GET", f"/v1/orders/{order_id}")).code == "not_found"


async def test_cancel_order_without_if_match_is_428(app: App) -> None:
    reply = await call(app, "POST", path_of(order(1)) + "/cancel", b'{"reason":"r"}')
    assert (reply.status, reply.code) == (428, "precondition_required")


async def test_cancel_order_with_an_etag_that_is_not_ours_is_412(app: App) -> None:
    reply = await call(app, "POST", path_of(order(1)) + "/cancel", b'{"reason":"r"}', {"if-match": 'W/"1"'})
    assert (reply.status, reply.code) == (412, "version_mismatch")


@pytest.mark.parametrize("body", [b"{}", b'{"reason":""}', b'{"reason":"%s"}' % (b"x" * 201), rb'{"reason":"\u0000"}'])
async def test_cancel_order_without_a_reason_is_refused(app: App, body: bytes) -> None:
    reply = await call(app, "POST", path_of(order(1)) + "/cancel", body, {"if-match": '"1"'})
    assert (reply.status, reply.json["errors"][0]["pointer"]) == (422, "#/reason")


async def test_cancel_order_that_cannot_exist_is_not_found(app: App) -> None:
    reply = await call(app, "POST", "/v1/orders/x/cancel", b'{"reason":"r"}', {"if-match": '"1"'})
    assert (reply.status, reply.code) == (404, "not_found")


async def test_list_orders_page_by_page_gives_each_once(app: App, book: Book) -> None:
    book.orders = [order(at) for at in range(7)]
    target, seen = "/v1/orders?limit=3&status=paid", []
    while target:
        reply = await call(app, "GET", target)
        seen += [item["order_id"] for item in reply.json["items"]]
        link = reply.header("link")
        assert (link is None) is (reply.json["next_cursor"] is None)
        target = link.removeprefix("<").removesuffix('>; rel="next"') if link else ""
    assert seen == sorted((ids.format_id(known.id) for known in book.orders), reverse=True)


async def test_list_orders_that_fill_the_page_exactly_has_no_next(app: App, book: Book) -> None:
    book.orders = [order(at) for at in range(3)]
    reply = await call(app, "GET", "/v1/orders?limit=3")
    assert reply.json["next_cursor"] is None
    assert len(reply.json["items"]) == 3


async def test_list_orders_without_any_is_empty(app: App) -> None:
    assert (await call(app, "GET", "/v1/orders")).json == {"items": [], "next_cursor": None}


async def test_list_orders_asks_for_the_client_alone(app: App, book: Book) -> None:
    await call(app, "GET", "/v1/orders", token="fg_own")
    await call(app, "GET", "/v1/orders")
    assert book.asked == [({"client_id": 3}, 51), ({}, 51)]


async def test_list_orders_with_filters_asks_for_them(app: App, book: Book) -> None:
    query = "status=paid&channel=app&customer_id=u%2B1&external_id=%E4%B9%99&sku=a%2Fb&sale_id=double-11"
    times = "created_from=2027-01-15T08:00:00.123Z&created_to=2027-01-15T16:00:00.124%2B08:00"
    await call(app, "GET", f"/v1/orders?{query}&{times}&limit=200")
    ((filters, limit),) = book.asked
    assert limit == 201
    assert filters == {
        "status": "paid",
        "channel": "app",
        "customer_id": "u+1",
        "external_id": "乙",
        "sale_id": "double-11",
        "sku": "a/b",
        "from_id": ids.floor_of(1_800_000_000_123),
        "to_id": ids.floor_of(1_800_000_000_124),
    }


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59Z"])
async def test_list_orders_from_a_far_time_asks(app: App, time: str) -> None:
    assert (await call(app, "GET", f"/v1/orders?created_from={time}")).status == 200


@pytest.mark.parametrize("key", ["k-1", '"k-1"'])
async def test_list_orders_by_key_asks_for_its_hash(app: App, book: Book, key: str) -> None:
    reply = await call(app, "GET", f"/v1/orders?idempotency_key={quote(key)}")
    assert reply.json["items"] == []
    assert book.asked[0][0] == {"key_hash": services().hasher.key_hash(1, b"k-1")}


async def test_list_by_a_key_that_may_be_in_a_journal_is_503() -> None:
    book = Book()
    book.journaled = True
    reply = await call(api.create(services(book=book)), "GET", "/v1/orders?idempotency_key=k-1")
    assert (reply.status, reply.code) == (503, "ledger_away")
    assert reply.header("retry-after") == "1"
    assert (await call(api.create(services(book=book)), "GET", "/v1/orders?channel=app")).json["items"] == []


async def test_list_by_a_key_that_is_in_this_workers_journal_is_503() -> None:
    parts = services()
    parts.journaling.receipts[parts.hasher.key_hash(1, b"k-1")] = b"f" * 16
    reply = await call(api.create(parts), "GET", "/v1/orders?idempotency_key=k-1")
    assert (reply.status, reply.code) == (503, "ledger_away")
    assert (await call(api.create(parts), "GET", "/v1/orders?idempotency_key=k-2")).json["items"] == []


BAD = [
    "unknown=1",
    "%ff=1",
    "\x01=1",
    "status=paid&status=paid",
    "status=sold",
    "status=",
    "channel=App",
    "channel=" + "a" * 33,
    "customer_id=",
    "customer_id=" + "a" * 129,
    "customer_id=a%00",
    "external_id=%ff",
    "sale_id=",
    "sale_id=Double",
    "sale_id=" + "a" * 65,
    "external_id=%ed%a0%80",
    "sku=" + "a" * 65,
    "sku=a%0a",
    "created_from=yesterday",
    "created_from=2026-11-11",
    "created_from=2026-11-11T00:00:00",
    "created_from=2026-11-11T00:00:00+08:00",
    "created_to=1",
    "idempotency_key=",
    "idempotency_key=%20",
    "idempotency_key=%C3%BC",
    "limit=0",
    "limit=201",
    "limit=-1",
    "limit=1.0",
    "limit=",
    "limit=%D9%A3",
    "limit=1&limit=2",
    "&".join(f"p{at}=1" for at in range(60)),
]


@pytest.mark.parametrize("query", BAD)
async def test_list_orders_with_a_bad_parameter_is_refused(app: App, book: Book, query: str) -> None:
    reply = await call(app, "GET", f"/v1/orders?{query}")
    assert (reply.status, reply.code) == (400, "bad_parameter")
    assert not book.asked


async def next_cursor(app: App, query: str, token: str = "fg_all") -> str:
    return str((await call(app, "GET", f"/v1/orders?limit=1&{query}", token=token)).json["next_cursor"])


async def test_list_orders_with_a_cursor_of_other_filters_is_refused(app: App, book: Book) -> None:
    book.orders = [order(1), order(2)]
    cursor = await next_cursor(app, "status=paid")
    assert (await call(app, "GET", f"/v1/orders?limit=9&status=paid&cursor={cursor}")).status == 200
    assert (await call(app, "GET", f"/v1/orders?cursor={cursor}")).code == "bad_cursor"


async def test_list_orders_with_a_cursor_of_another_client_is_refused(app: App, book: Book) -> None:
    book.orders = [order(1, 3), order(2, 3)]
    cursor = await next_cursor(app, "", token="fg_own")
    assert (await call(app, "GET", f"/v1/orders?cursor={cursor}")).code == "bad_cursor"


@pytest.mark.parametrize("cursor", ["", "x", "A" * 43, "%00" * 3 + "a", "a" * 600])
async def test_list_orders_with_a_made_up_cursor_is_refused(app: App, cursor: str) -> None:
    assert (await call(app, "GET", f"/v1/orders?cursor={cursor}")).code in {"bad_cursor", "bad_parameter"}


async def test_list_orders_items_are_the_bytes_of_the_orders(app: App, book: Book) -> None:
    book.orders = [order(1)]
    one = await call(app, "GET", path_of(book.orders[0]))
    page = await call(app, "GET", "/v1/orders")
    assert page.body == b'{"items":[' + one.body + b'],"next_cursor":null}'
    assert json.loads(page.body)
