"""Sales over HTTP, on a real ledger: put, opened, closed, listed, reported, and what this worker sells at once."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.services import Services
from tests.api import App, Reply, call, running_worker
from tests.ledger_world import force
from tests.worker_world import eventually

SALE: dict[str, Any] = {
    "title": "双十一",
    "starts_at": "2001-11-11T08:00:00.0019+08:00",
    "ends_at": "3000-01-01T00:00:00Z",
    "items": [{"sku": "A", "price": 99, "units": 10}],
}
PATH = "/v1/sales/double-11"


@pytest.fixture
async def worker(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[tuple[App, Services]]:
    """With the products A and B, and SERVICE that has no stock."""
    async with running_worker(postgres_url, nats_url) as running:
        for sku in ("A", "B", "SERVICE"):
            product = {"title": sku, "price": 255, "currency": "CNY", "stocked": sku != "SERVICE"}
            assert (await call(running[0], "PUT", f"/v1/products/{sku}", msgspec.json.encode(product))).status == 201
        yield running


def body(**changes: Any) -> bytes:
    return msgspec.json.encode(SALE | changes)


def items(**units: int) -> list[dict[str, Any]]:
    return [{"sku": sku, "price": 99, "units": count} for sku, count in units.items()]


async def order(app: App, key: str, **changes: Any) -> Reply:
    document = {"channel": "app", "currency": "CNY", "sale_id": "double-11", "items": [{"sku": "A", "quantity": 1}]}
    return await call(app, "POST", "/v1/orders", msgspec.json.encode(document | changes), {"idempotency-key": key})


def faults(reply: Reply) -> list[tuple[str, str]]:
    return [(error["code"], error["pointer"]) for error in reply.json["errors"]]


async def test_put_sale_that_is_new_creates_it(worker: tuple[App, Services]) -> None:
    app, _ = worker
    reply = await call(app, "PUT", PATH, body())
    assert reply.status == 201
    assert (reply.header("etag"), reply.header("location")) == ('"1"', PATH)
    shown = reply.json
    now = shown.pop("now")
    assert shown == {
        "sale_id": "double-11",
        "title": "双十一",
        "state": "open",
        "starts_at": "2001-11-11T00:00:00.001Z",
        "ends_at": "3000-01-01T00:00:00.000Z",
        "payment_timeout_s": None,
        "items": [{"sku": "A", "price": 99, "currency": "CNY", "units": 10, "limit": None}],
        "version": 1,
    }
    again = (await call(app, "GET", PATH, token="fg_none")).json
    assert again.pop("now") >= now
    assert again == shown


async def test_put_sale_is_what_the_next_order_is_sold_by(worker: tuple[App, Services]) -> None:
    app, _ = worker
    for price in (70, 80):
        await call(app, "PUT", PATH, body(items=[{"sku": "A", "price": price, "units": 10}]))
        reply = await order(app, f"k-{price}")
        assert (reply.status, reply.json["total"]) == (201, price)


async def test_put_sale_with_a_stale_etag_changes_nothing(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body())
    for match in ('"2"', '"x"'):
        assert (await call(app, "PUT", PATH, body(title="x"), {"if-match": match})).code == "version_mismatch"
    assert (await call(app, "GET", PATH)).json["title"] == "双十一"
    reply = await call(app, "PUT", PATH, body(title="x"), {"if-match": '"1"'})
    assert (reply.status, reply.header("etag")) == (200, '"2"')


async def test_put_sale_of_the_first_and_the_last_instant_there_is_can_be_read(worker: tuple[App, Services]) -> None:
    app, _ = worker
    times = {"starts_at": "2000-01-01T00:00:00.000Z", "ends_at": "9998-12-31T23:59:59.999Z"}
    assert (await call(app, "PUT", PATH, body(**times))).status == 201
    (shown,) = (await call(app, "GET", "/v1/sales")).json["items"]
    assert {name: shown[name] for name in times} == times


async def test_put_sale_only_when_there_is_none_creates_and_never_replaces(worker: tuple[App, Services]) -> None:
    app, _ = worker
    for status in (201, 412):
        assert (await call(app, "PUT", PATH, body(title=str(status)), {"if-none-match": "*"})).status == status
    shown = (await call(app, "GET", PATH)).json
    assert (shown["title"], shown["version"]) == ("201", 1)


@pytest.mark.parametrize("headers", [{"if-none-match": '"1"'}, {"if-none-match": "*, *"}])
async def test_put_sale_with_another_if_none_match_is_a_bad_request(
    worker: tuple[App, Services], headers: dict[str, str]
) -> None:
    app, _ = worker
    assert (await call(app, "PUT", PATH, body(), headers)).code == "bad_request"
    assert (await call(app, "GET", PATH)).status == 404


async def test_put_sale_that_wants_both_a_version_and_none_is_412(worker: tuple[App, Services]) -> None:
    app, _ = worker
    headers = {"if-none-match": "*", "if-match": '"1"'}
    assert (await call(app, "PUT", PATH, body(), headers)).code == "version_mismatch"
    assert (await call(app, "GET", PATH)).status == 404


async def test_put_sale_of_the_etag_0_creates_nothing(worker: tuple[App, Services]) -> None:
    app, _ = worker
    assert (await call(app, "PUT", PATH, body(), {"if-match": '"0"'})).code == "version_mismatch"
    assert (await call(app, "GET", PATH)).status == 404


@pytest.mark.parametrize("change", ["open", "close"])
async def test_sale_is_opened_and_closed_in_the_version_that_if_match_names(
    worker: tuple[App, Services], change: str
) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body(starts_at="2999-01-01T00:00:00Z"))
    before = (await call(app, "GET", PATH)).json
    for match in ('"2"', '"x"', '"999999999999999999"'):
        refused = await call(app, "POST", f"{PATH}/{change}", headers={"if-match": match})
        assert (refused.status, refused.code) == (412, "version_mismatch")
    assert (await call(app, "GET", PATH)).json | {"now": before["now"]} == before
    done = await call(app, "POST", f"{PATH}/{change}", headers={"if-match": '"1"'})
    assert (done.status, done.header("etag")) == (200, '"2"')


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ends_at": SALE["starts_at"]}, [("out_of_range", "#/ends_at")]),
        ({"ends_at": "2001-11-11T00:00:00.0018Z"}, [("out_of_range", "#/ends_at")]),
        ({"starts_at": "tomorrow"}, [("bad_format", "#/starts_at")]),
        ({"starts_at": "2001-11-11T00:00:00"}, [("bad_format", "#/starts_at")]),
        ({"starts_at": 5}, [("wrong_type", "#/starts_at")]),
        ({"starts_at": "0001-01-01T00:00:00+14:00"}, [("out_of_range", "#/starts_at")]),
        ({"starts_at": "0001-01-01T00:00:00Z"}, [("out_of_range", "#/starts_at")]),
        ({"starts_at": "2000-01-01T00:00:00+00:01"}, [("out_of_range", "#/starts_at")]),
        ({"ends_at": "9998-12-31T23:59:59.999-00:01"}, [("out_of_range", "#/ends_at")]),
        ({"ends_at": "9999-12-31T23:59:59.999999Z"}, [("out_of_range", "#/ends_at")]),
        ({"items": []}, [("bad_count", "#/items")]),
        ({"items": {}}, [("wrong_type", "#/items")]),
        ({"items": items(A=1) * 501}, [("bad_count", "#/items")]),
        ({"items": items(A=1) * 2}, [("bad_count", "#/items/1/sku")]),
        ({"items": items(A=-1)}, [("out_of_range", "#/items/0/units")]),
        ({"items": [{"sku": "A", "limit": 0}]}, [("required", "#/items/0/price"), ("required", "#/items/0/units"),
                                                  ("out_of_range", "#/items/0/limit")]),
        ({"items": [7]}, [("wrong_type", "#/items/0")]),
        ({"items": [{"sku": "a\u2028", "price": 1, "units": 1}]}, [("bad_format", "#/items/0/sku")]),
        ({"items": items(A=1, NO=1, SERVICE=1)}, [("not_stocked", "#/items/2/sku"), ("unknown_sku", "#/items/1/sku")]),
        ({"payment_timeout_s": 0}, [("out_of_range", "#/payment_timeout_s")]),
        ({"title": "a\x7f"}, [("control_character", "#/title")]),
    ],
)  # fmt: skip
async def test_put_sale_that_is_not_valid_names_every_fault(
    worker: tuple[App, Services], changes: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    app, _ = worker
    reply = await call(app, "PUT", PATH, body(**changes))
    assert (reply.status, reply.code) == (422, "invalid")
    assert sorted(faults(reply)) == sorted(expected)
    assert (await call(app, "GET", PATH)).status == 404


@pytest.mark.parametrize("sale_id", ["A", "a_b", "a" * 65, "%31", "a%2Fb", "%1F"])
async def test_sale_with_an_impossible_id_is_refused(worker: tuple[App, Services], sale_id: str) -> None:
    app, _ = worker
    assert (await call(app, "PUT", f"/v1/sales/{sale_id}", body())).code == "invalid"
    for method, rest in (("GET", ""), ("GET", "/report"), ("POST", "/open"), ("POST", "/close")):
        assert (await call(app, method, f"/v1/sales/{sale_id}{rest}")).code == "not_found"


async def test_put_sale_below_what_is_held_names_the_item(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body(items=items(A=10, B=5)))
    assert (await order(app, "k-1", items=[{"sku": "A", "quantity": 4}])).status == 201
    reply = await call(app, "PUT", PATH, body(items=items(B=5, A=3)))
    assert (reply.status, reply.code, faults(reply)) == (409, "below_held", [("out_of_range", "#/items/1/units")])
    assert reply.json["errors"][0]["detail"] == "A: fewer than are held or promised"
    reply = await call(app, "PUT", PATH, body(items=items(B=4)))
    assert (reply.code, faults(reply)) == ("below_held", [("out_of_range", "#/items")])
    assert [item["units"] for item in (await call(app, "GET", PATH)).json["items"]] == [10, 5]


async def test_put_sale_takes_away_units_that_only_this_worker_holds(worker: tuple[App, Services]) -> None:
    app, services = worker
    await call(app, "PUT", PATH, body(items=items(A=100)))
    assert (await order(app, "k-1")).status == 201
    reply = await call(app, "PUT", PATH, body(items=items(A=1)))
    assert (reply.status, reply.json["items"][0]["units"]) == (200, 1)
    assert services.leases.till.free("double-11\x1fA") == 0
    assert (await order(app, "k-2")).code == "sold_out"


async def test_put_sale_with_more_units_sells_them_at_once(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body(items=items(A=1)))
    assert [(await order(app, f"k-{n}")).status for n in range(2)] == [201, 409]
    await call(app, "PUT", PATH, body(items=items(A=2)))
    assert (await order(app, "k-3")).status == 201


async def test_sale_before_its_start_refuses_until_it_is_opened(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body(starts_at="2999-01-01T00:00:00Z"))
    early = await order(app, "k-1")
    assert (early.status, early.code, early.json["opens_at"]) == (409, "sale_not_open", "2999-01-01T00:00:00.000Z")
    assert early.json["retryable"]
    assert int(early.header("retry-after") or 0) > 86400
    opened = await call(app, "POST", f"{PATH}/open")
    assert (opened.status, opened.header("etag")) == (200, '"2"')

    async def is_open() -> bool:
        return (await order(app, "k-1")).status == 201

    await eventually("the sale is open by this worker's clock, too", is_open)
    assert (await call(app, "POST", f"{PATH}/open")).header("etag") == '"2"'


async def test_sale_closed_refuses_and_cannot_be_opened_without_a_new_end(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body())
    accepted = await order(app, "k-1")
    closed = await call(app, "POST", f"{PATH}/close")
    assert closed.status == 200

    async def is_closed() -> bool:
        return bool((await call(app, "GET", PATH)).json["state"] == "closed")

    await eventually("the sale is closed by this worker's clock, too", is_closed)
    refused = await order(app, "k-2")
    assert (refused.status, refused.code, refused.json["retryable"]) == (409, "sale_closed", False)
    again = await order(app, "k-1")
    assert (again.body, again.header("idempotency-replayed")) == (accepted.body, "true")
    assert (await call(app, "POST", f"{PATH}/open")).code == "sale_closed"
    assert (await call(app, "PUT", PATH, body())).json["state"] == "open"


async def test_list_sales_of_several_pages_has_each_once(worker: tuple[App, Services]) -> None:
    app, _ = worker
    for number in range(5):
        await call(app, "PUT", f"/v1/sales/s-{number}", body())
    seen, target = [], "/v1/sales?limit=2"
    while target:
        reply = await call(app, "GET", target, token="fg_none")
        assert reply.json["now"]
        seen += [sale["sale_id"] for sale in reply.json["items"]]
        target = (reply.header("link") or "").partition(">")[0].lstrip("<")
    assert seen == [f"s-{number}" for number in range(5)]


async def test_list_sales_with_a_foreign_cursor_is_refused(worker: tuple[App, Services]) -> None:
    app, _ = worker
    assert (await call(app, "GET", "/v1/sales?cursor=AAAA")).code == "bad_cursor"


async def test_report_of_a_sale_tells_what_it_sold_and_refused(worker: tuple[App, Services]) -> None:
    app, services = worker
    await call(app, "PUT", PATH, body(items=items(A=3, B=2)))
    for number in range(4):
        await order(app, f"k-{number}", customer_id=f"u-{number % 2}")
    await services.sales.flush()
    report = (await call(app, "GET", f"{PATH}/report")).json
    first, last = report.pop("first_unit_at"), report.pop("last_unit_at")
    assert first <= last
    mean = report["units_per_second"].pop("mean")
    assert 0 < mean <= 3.0
    assert 1 <= report["units_per_second"].pop("peak") <= 3
    assert report == {
        "sale_id": "double-11",
        "orders": 3,
        "units": 3,
        "returned_units": 0,
        "unsold_units": 2,
        "total_units": 5,
        "buyers": 2,
        "units_per_second": {},
        "refusals": {"sold_out": 1},
    }


async def test_report_of_a_sale_tells_a_mean_that_is_never_above_the_peak(worker: tuple[App, Services]) -> None:
    app, services = worker
    await call(app, "PUT", PATH, body())
    for number in range(4):
        assert (await order(app, f"k-{number}", customer_id=f"u-{number}")).status == 201
    # Four units within 0.2 s, two on each side of a second's end.
    await force(
        services.pool,
        "update orders set created_at = timestamptz '2026-11-11T00:00:00.9Z'"
        " + case when customer_id in ('u-0', 'u-1') then interval '0' else interval '0.2 s' end",
    )
    rate = (await call(app, "GET", f"{PATH}/report")).json["units_per_second"]
    assert rate == {"peak": 2, "mean": 2.0}


async def test_report_of_a_sale_that_sold_nothing_has_no_times(worker: tuple[App, Services]) -> None:
    app, _ = worker
    await call(app, "PUT", PATH, body())
    report = (await call(app, "GET", f"{PATH}/report")).json
    assert (report["first_unit_at"], report["units_per_second"]) == (None, {"peak": 0, "mean": 0.0})


@pytest.mark.parametrize(
    ("method", "target"),
    [("PUT", PATH), ("POST", f"{PATH}/open"), ("POST", f"{PATH}/close"), ("GET", f"{PATH}/report")],
)
async def test_sale_without_the_scope_is_forbidden(worker: tuple[App, Services], method: str, target: str) -> None:
    app, _ = worker
    reply = await call(app, method, target, body() if method == "PUT" else None, token="fg_none")
    assert (reply.status, reply.code) == (403, "scope_missing")
