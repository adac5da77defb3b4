"""What an event carries for a ledger that may have to be restored: it comes back as it was, and nothing is believed
that is not as it should be.
"""

import pytest

from core_ext import documents, ids
from core_ext.shapes import Change, Line, Order
from gateway.domain.recall import KEY_HEADER, ORDER_HEADER, Recall, headers_of, read_headers
from gateway.recovery.decoding import UnreadableError, read_level, read_order, read_product

KEY = (bytes(range(16)), bytes(range(16, 32)))
AT = 1_794_000_000_123
SOURCE = "/floodgate/local"


def order(*lines: tuple[bool, bool], **fields: object) -> Order:
    """An order with lines that are (stocked, limited)."""
    made = [Line(at, f"茶-{at}", "壶", 2, 50, 100, *flags) for at, flags in enumerate(lines or [(True, False)], 1)]
    return Order(ids.new_id(AT), 7, "app", "CNY", "pending_payment", 1, 100 * len(made), made, AT, **fields)  # type: ignore[arg-type]


RICH = order(
    (True, True),
    (False, False),
    customer_id="u-1",
    external_id="A-77",
    sale_id="double-11",
    metadata='{"第":"\u2028","b":"\\n"}'.encode(),
    adjustments=b'[{"type":"discount","amount":-10,"label":"x"}]',
    placed_at=AT - 1,
    paid_reference="P-1",
    paid_at=AT - 2,
    expires_at=AT + 3,
)


@pytest.mark.parametrize(
    ("lines", "flags"),
    [
        ([(True, False)], "1"),
        ([(True, True)] * 1000, "3"),
        ([(False, False), (True, False), (False, True), (True, True)], "0123"),
    ],
)
def test_headers_say_key_client_and_lines(lines: list[tuple[bool, bool]], flags: str) -> None:
    headers = headers_of(order(*lines), KEY)
    assert headers == {ORDER_HEADER: f"7.{flags}", KEY_HEADER: f"{KEY[0].hex()}.{KEY[1].hex()}"}
    recall = read_headers(headers, len(lines))
    assert (recall.key, recall.client_id) == (KEY, 7)
    assert [recall.flags_of(at) for at in range(1, len(lines) + 1)] == [a + 2 * b for a, b in lines]


def test_headers_of_an_order_whose_key_is_forgotten_leave_the_key_out() -> None:
    assert read_headers(headers_of(order(), None), 1) == Recall(None, 7, "1")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {KEY_HEADER: "ab.cd", ORDER_HEADER: "x.11"},
        {KEY_HEADER: f"{'g' * 32}.{'0' * 32}", ORDER_HEADER: ".111"},
        {KEY_HEADER: "0" * 32, ORDER_HEADER: "٣.9"},
    ],
)
def test_headers_that_are_not_as_they_should_be_say_nothing(headers: dict[str, str]) -> None:
    assert read_headers(headers, 2).key is None
    assert read_headers(headers, 2).client_id is None
    assert read_headers({ORDER_HEADER: "1.111"}, 2).flags == ""
    assert Recall().flags_of(1) is None


@pytest.mark.parametrize("placed", [order(), RICH])
@pytest.mark.parametrize(
    "change",
    [
        Change(1, AT, "created", "pending_payment", "client:shop", traceparent="00-1-2-01"),
        Change(2, AT + 5, "cancelled", "cancelled", "client:shop", "paid", "订错了", ("status",)),
    ],
)
def test_event_read_back_gives_the_rows_that_it_was_made_of(placed: Order, change: Change) -> None:
    payload = documents.event_json(placed, change, SOURCE)
    version, exact = read_order(payload, headers_of(placed, KEY))
    assert exact
    assert (version.order_id, version.number, version.client) == (placed.id, change.version, "shop")
    assert (version.client_id, version.key) == (7, KEY)
    assert [(line["stocked"], line["limited"]) for line in version.lines] == [
        (line.stocked, line.limited) for line in placed.lines
    ]
    assert version.history["traceparent"] == change.traceparent
    assert version.order["metadata"] == (placed.metadata.decode() if placed.metadata else None)


def test_event_without_headers_leaves_open_what_it_does_not_say() -> None:
    change = Change(1, AT, "created", "paid", "system")
    version, exact = read_order(documents.event_json(order(), change, SOURCE), {})
    assert exact
    assert (version.client, version.client_id, version.key) == ("", None, None)
    assert not {"stocked", "limited"} & version.lines[0].keys()


def test_event_with_a_field_of_a_later_release_is_read_and_is_not_exact() -> None:
    payload = documents.event_json(order(), Change(1, AT, "created", "paid", "client:shop"), SOURCE)
    version, exact = read_order(payload.replace(b'"data":{', b'"data":{"later":1,'), {})
    assert (version.number, exact) == (1, False)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b'{"type":"com.floodgate.order.created.v2"}'])
def test_what_is_no_event_of_ours_is_unreadable(payload: bytes) -> None:
    for read in (lambda: read_order(payload, {}), lambda: read_level(payload), lambda: read_product(payload)):
        with pytest.raises(UnreadableError):
            read()
