"""The JSON of orders and events: golden bytes, what is shown of personal fields, and both twins on any order."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given

from core_ext.limits import TIME_MS_MAX, TIME_MS_MIN
from core_ext.shapes import Change, Order, ShipTo
from core_ext.times import ms_of, text_of
from tests.ext import strategies
from tests.ext.twins import COMPILED, ORDER_ID, REFERENCE, Twin, change, full_order, order

SOURCE = "/floodgate/local"
NONE, MASKED, PLAIN = 0, 1, 2

HEAD = (
    '"order_id":"019ac4d4-e000-7abc-8123-456789abcdef","status":"pending_payment","version":%d,'
    '"channel":"app","currency":"CNY",'
)
ITEMS = '"items":[{"line":1,"sku":"85123A","title":"HEART \\"T\\"-LIGHT","quantity":6,"unit_price":255,"amount":1530}],'
TIMES = '"created_at":"2025-11-28T01:00:00.123Z","expires_at":"2025-11-28T01:30:00.123Z"'
SMALL = f'{HEAD}"customer_id":"u-1","total":1530,{ITEMS}'
FULL = (
    f'{HEAD}"customer_id":"u-1","external_id":"A-77","sale_id":"double-11","total":1530,{ITEMS}'
    '"adjustments":[{"type":"fee","amount":1,"label":"x"}],"metadata":{"k":"v"},'
    '"placed_at":"1970-01-01T00:00:00.000Z","paid":{"reference":"wx-1","at":"1969-12-31T23:59:59.999Z"},'
)
SHIP_TO = (
    '"ship_to":{"name":"n","phone":"t","country":"CN","province":"p",'
    '"city":"c","district":"d","street":"s","postcode":"1"},'
)
CREATED = (
    '{"specversion":"1.0","id":"019ac4d4-e000-7abc-8123-456789abcdef.1","source":"/floodgate/local",'
    '"type":"com.floodgate.order.created.v1","subject":"019ac4d4-e000-7abc-8123-456789abcdef",'
    '"time":"2025-11-28T01:00:00.123Z",'
    '"datacontenttype":"application/json","dataschema":"urn:floodgate:schema:order.created.v1","sequence":"0000000001",'
    '"partitionkey":"019ac4d4-e000-7abc-8123-456789abcdef","data":{'
    f'{SMALL % 1}{TIMES},"previous_status":null,"actor":"client:7","reason":null,"changed":[]}}}}'
)
CHANGED = (
    '{"specversion":"1.0","id":"019ac4d4-e000-7abc-8123-456789abcdef.2","source":"/floodgate/local",'
    '"type":"com.floodgate.order.changed.v1","subject":"019ac4d4-e000-7abc-8123-456789abcdef",'
    '"time":"2025-11-28T01:00:00.123Z",'
    '"datacontenttype":"application/json","dataschema":"urn:floodgate:schema:order.changed.v1","sequence":"0000000002",'
    '"partitionkey":"019ac4d4-e000-7abc-8123-456789abcdef","traceparent":"00-a-b-01","data":{'
    f'{FULL % 2}{TIMES},"previous_status":"paid","actor":"client:7","reason":"r","changed":["note","字"]}}}}'
)


def shown(twin: Twin, personal: int, **changes: Any) -> Any:
    return msgspec.json.decode(twin.documents.order_json(order(**changes), personal))


def test_order_json_with_all_fields_has_golden_bytes(twin: Twin) -> None:
    expected = f'{{{FULL % 1}"note":"请放门口",{SHIP_TO}{TIMES}}}'
    assert twin.documents.order_json(full_order(), PLAIN).decode() == expected


def test_order_json_masked_shows_which_personal_fields_there_are(twin: Twin) -> None:
    expected = f'{{{SMALL % 1}"note":"***","ship_to":{{"name":"***","city":"***"}},{TIMES}}}'
    assert twin.documents.order_json(order(), MASKED).decode() == expected


def test_order_json_without_personal_fields_leaves_them_out(twin: Twin) -> None:
    assert twin.documents.order_json(order(), NONE).decode() == f"{{{SMALL % 1}{TIMES}}}"


@pytest.mark.parametrize("personal", [MASKED, PLAIN])
def test_order_json_of_an_empty_address_is_an_empty_object(twin: Twin, personal: int) -> None:
    assert shown(twin, personal, ship_to=ShipTo())["ship_to"] == {}


@pytest.mark.parametrize("field", ShipTo.__struct_fields__)
def test_order_json_of_an_address_with_one_field_has_that_field(twin: Twin, field: str) -> None:
    assert shown(twin, PLAIN, ship_to=ShipTo(**{field: "字"}))["ship_to"] == {field: "字"}


def test_order_json_of_a_payment_without_time_leaves_the_time_out(twin: Twin) -> None:
    assert shown(twin, NONE, paid_reference="r")["paid"] == {"reference": "r"}


def test_order_json_with_an_unknown_view_is_a_bug(twin: Twin) -> None:
    with pytest.raises(AssertionError):
        twin.documents.order_json(order(), 3)


def test_event_json_of_creation_has_golden_bytes(twin: Twin) -> None:
    assert twin.documents.event_json(order(), change(), SOURCE).decode() == CREATED


def test_event_json_of_a_change_shows_its_status_and_version(twin: Twin) -> None:
    made = change(
        version=2, event="changed", previous_status="paid", reason="r", changed=("note", "字"), traceparent="00-a-b-01"
    )
    assert twin.documents.event_json(full_order(), made, SOURCE).decode() == CHANGED


def test_event_json_never_carries_personal_fields(twin: Twin) -> None:
    secret = order(note="SECRET", ship_to=ShipTo(*["SECRET"] * 8))
    assert b"SECRET" not in twin.documents.event_json(secret, change(), SOURCE)


def test_event_subject_names_event_channel_and_partition(twin: Twin) -> None:
    assert twin.documents.event_subject(ORDER_ID, "created", "app") == "orders.created.app.15"
    assert twin.documents.event_subject(bytes(16), "cancelled", "a-1") == "orders.cancelled.a-1.00"


def test_event_id_is_the_order_and_the_version(twin: Twin) -> None:
    assert twin.documents.event_id(ORDER_ID, 12) == "019ac4d4-e000-7abc-8123-456789abcdef.12"


def test_strings_are_escaped_as_msgspec_does(twin: Twin) -> None:
    every = "".join(map(chr, [*range(0x300), 0x2028, 0x2029, 0xFFFF, 0x1F600]))
    expected = b'"note":' + msgspec.json.encode(every)
    assert expected in twin.documents.order_json(order(note=every), PLAIN)


@pytest.mark.parametrize("ms", [TIME_MS_MIN - 1, TIME_MS_MAX + 1, 2**200])
def test_time_outside_of_the_years_is_refused(twin: Twin, ms: int) -> None:
    with pytest.raises(OverflowError):
        twin.documents.order_json(order(created_at=ms), NONE)


def test_documents_larger_than_the_first_buffer_are_whole(twin: Twin) -> None:
    assert len(shown(twin, NONE, lines=order().lines * 1000)["items"]) == 1000
    assert shown(twin, PLAIN, note="字" * 100_000)["note"] == "字" * 100_000


@given(order=strategies.orders)
def test_order_json_of_twins_is_equal_and_readable(order: Order) -> None:
    for personal in (NONE, MASKED, PLAIN):
        encoded = REFERENCE.documents.order_json(order, personal)
        assert encoded == COMPILED.documents.order_json(order, personal)
    decoded = msgspec.json.decode(encoded)
    assert (decoded["channel"], decoded["total"], decoded.get("note")) == (order.channel, order.total, order.note)
    assert [(line["sku"], line["amount"]) for line in decoded["items"]] == [
        (line.sku, line.amount) for line in order.lines
    ]
    assert ms_of(datetime.fromisoformat(decoded["created_at"])) == order.created_at


@given(order=strategies.orders, change=strategies.changes, source=strategies.text)
def test_event_json_of_twins_is_equal_and_readable(order: Order, change: Change, source: str) -> None:
    encoded = REFERENCE.documents.event_json(order, change, source)
    assert encoded == COMPILED.documents.event_json(order, change, source)
    event = msgspec.json.decode(encoded)
    assert (event["source"], event["type"], int(event["sequence"])) == (
        source,
        f"com.floodgate.order.{change.event}.v1",
        change.version,
    )
    assert (event["data"]["version"], event["data"]["changed"]) == (change.version, list(change.changed))
    assert (event["id"], event["subject"]) == (
        COMPILED.documents.event_id(order.id, change.version),
        event["partitionkey"],
    )


@given(ms=strategies.times)
def test_text_of_any_instant_is_read_back_as_it(ms: int) -> None:
    assert ms_of(datetime.fromisoformat(text_of(ms))) == ms


def test_ms_of_a_time_between_milliseconds_is_the_earlier() -> None:
    assert ms_of(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)) == -1
