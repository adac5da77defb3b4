"""The pass over a new order: the same bytes as its rows and documents one by one, by both twins, on any order."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.limits import TIME_MS_MAX
from core_ext.shapes import AdjustmentIn, Change, ItemIn, Line, Order, OrderIn, PaidIn, Priced, ShipTo, Told, Written
from core_ext.times import ms_of
from tests.ext import strategies
from tests.ext.pools import no_noise
from tests.ext.twins import COMPILED, REFERENCE, Twin, order_in, product

NOW_MS = 1_764_291_600_123
PAYMENT_MS = 1_800_000
SOURCE = "/floodgate/local"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
KEY_HASH, FINGERPRINT = bytes(range(16)), bytes(range(16, 32))
MASKED, PLAIN = 1, 2


def priced(twin: Twin, order: OrderIn) -> Priced:
    made = twin.pricing.price_order(order, {"85123A": product(), "B": product("B", 5, limit=3)}, True)
    assert isinstance(made, Priced)
    return made


def written(twin: Twin, order: OrderIn, made: Priced, trace: str | None = None) -> Written:
    sealer = twin.sealing.Sealer(bytes(32), 3)
    done: Written = twin.admission.write(order, made, 7, "client:shop", NOW_MS, PAYMENT_MS, trace, sealer)
    return done


def told(twin: Twin, order: OrderIn, made: Priced, done: Written, trace: str | None = None) -> Told:
    said: Told = twin.admission.tell(
        order, made, done, 7, "client:shop", NOW_MS, trace, SOURCE, KEY_HASH, FINGERPRINT, PLAIN
    )
    return said


def both(order: OrderIn, made: Priced, trace: str | None = None) -> list[tuple[Written, Told]]:
    """What each twin makes of an order, with the same random bits."""
    results = []
    for twin in (REFERENCE, COMPILED):
        with no_noise():
            done = written(twin, order, made, trace)
            results.append((done, told(twin, order, made, done, trace)))
    return results


def full_order_in() -> OrderIn:
    return order_in(
        sale_id="double-11",
        items=[{"sku": "85123A", "quantity": 6, "unit_price": 250}, {"sku": "B", "quantity": 2}],
        ship_to={"name": "张三", "phone": "1", "country": "CN", "street": 'A "1"\\', "postcode": "3"},
        adjustments=[{"type": "fee", "amount": 5, "label": "é", "line": 1}],
        placed_at="2025-11-28T00:59:00+00:00",
        paid={"reference": "wx-1", "at": "2025-11-28T00:58:00+00:00"},
    )


def test_write_gives_the_rows_of_the_order(twin: Twin) -> None:
    order = order_in(note=..., ship_to=...)
    made = priced(twin, order)
    done = written(twin, order, made, TRACE)
    line = Line(1, "85123A", "HEART T-LIGHT", 6, 255, 1530, stocked=True)
    stored = Order(
        done.order_id, 7, "app", "CNY", "pending_payment", 1, 1530, [line], NOW_MS, "u-1", "A-77", None,
        b'{"k":"v"}', expires_at=NOW_MS + PAYMENT_MS,
    )  # fmt: skip
    change = Change(1, NOW_MS, "created", "pending_payment", "client:shop", traceparent=TRACE)
    assert done.order_row == twin.rows.order_row(stored, None)
    assert done.line_rows == [twin.rows.line_rows(stored)]
    assert done.history_row == twin.rows.history_row(done.order_id, change)
    assert done.key_row == b""
    assert done.size == len(done.order_row) + len(done.line_rows[0]) + len(done.history_row)


def test_write_seals_personal_data_into_the_rows(twin: Twin) -> None:
    order = order_in()
    with no_noise():
        done = written(twin, order, priced(twin, order))
    with no_noise():
        sealed = twin.sealing.Sealer(bytes(32), 3).seal(done.order_id, order.note, order.ship_to)
    assert sealed.personal in done.order_row
    assert done.key_row == twin.rows.key_row(done.order_id, 3, sealed.wrapped)
    assert "请放门口".encode() not in done.order_row


def test_tell_gives_the_event_and_the_answer_of_the_order(twin: Twin) -> None:
    order = order_in()
    made = priced(twin, order)
    done = written(twin, order, made)
    said = told(twin, order, made, done)
    id_text = twin.ids.format_id(done.order_id)
    event, answer = msgspec.json.decode(said.payload), msgspec.json.decode(said.body)
    assert said.subject == twin.documents.event_subject(done.order_id, "created", "app")
    assert said.event_id == event["id"] == f"{id_text}.1"
    assert event["data"] == {
        **{name: value for name, value in answer.items() if name not in {"note", "ship_to"}},
        "previous_status": None, "actor": "client:shop", "reason": None, "changed": [],
    }  # fmt: skip
    assert (answer["order_id"], answer["note"], answer["total"]) == (id_text, "请放门口", 1530)


def test_tell_masks_personal_fields_on_request(twin: Twin) -> None:
    order = order_in()
    made = priced(twin, order)
    done = written(twin, order, made)
    said = twin.admission.tell(order, made, done, 7, "client:shop", NOW_MS, None, SOURCE, KEY_HASH, FINGERPRINT, MASKED)
    assert msgspec.json.decode(said.body)["ship_to"] == {"name": "***", "city": "***"}


def test_tell_says_beside_the_event_what_a_restored_ledger_needs(twin: Twin) -> None:
    order = order_in(items=[{"sku": "85123A", "quantity": 1}, {"sku": "B", "quantity": 1}])
    made = priced(twin, order)
    assert told(twin, order, made, written(twin, order, made)).headers == {
        "Floodgate-Order": "7.13",
        "Floodgate-Key": "000102030405060708090a0b0c0d0e0f.101112131415161718191a1b1c1d1e1f",
    }


@pytest.mark.parametrize(
    "changes", [{"paid": {"reference": "wx-1"}}, {"items": [{"sku": "B", "quantity": 1, "unit_price": 0}]}]
)
def test_write_of_an_order_that_needs_no_payment_starts_as_paid(twin: Twin, changes: dict[str, Any]) -> None:
    order = order_in(**changes)
    done = written(twin, order, priced(twin, order))
    assert (done.status, done.expires_at) == ("paid", None)


def test_write_of_many_lines_gives_pieces_that_one_copy_takes(twin: Twin) -> None:
    order = order_in(items=[{"sku": "B", "quantity": 1}] * 501)
    made = priced(twin, order)
    pieces = written(twin, order, made).line_rows
    whole = Order(pieces[0][6:22], 7, "app", "CNY", "paid", 1, 1, made.lines, 0)
    assert [int.from_bytes(piece[26:30], "big") for piece in pieces] == [1, 251, 501]
    assert b"".join(pieces) == twin.rows.line_rows(whole)


def test_write_of_an_instant_beyond_the_columns_is_refused(twin: Twin) -> None:
    order = order_in()
    sealer = twin.sealing.Sealer(bytes(32), 1)
    with pytest.raises(OverflowError):
        twin.admission.write(order, priced(twin, order), 7, "a", TIME_MS_MAX, 1, None, sealer)


def test_pass_of_another_shape_is_refused_by_the_compiled_twin() -> None:
    order = order_in()
    sealer = COMPILED.sealing.Sealer(bytes(32), 1)
    with pytest.raises(TypeError, match="OrderIn"):
        COMPILED.admission.write(ShipTo(), priced(COMPILED, order), 7, "a", 0, 1, None, sealer)
    with pytest.raises(TypeError, match="Priced"):
        COMPILED.admission.write(order, ([], 0, [], []), 7, "a", 0, 1, None, sealer)


def test_pass_of_an_order_in_which_nothing_is_left_out_is_equal() -> None:
    order = full_order_in()
    reference, compiled = both(order, priced(REFERENCE, order), TRACE)
    assert compiled == reference
    assert [type(entry) for entry in compiled] == [Written, Told]


texts = strategies.text
orders_in = st.builds(
    OrderIn,
    channel=texts,
    currency=texts,
    items=st.just([ItemIn("A", 1)]),
    customer_id=strategies.optional_text,
    sale_id=strategies.optional_text,
    external_id=strategies.optional_text,
    note=strategies.optional_text,
    ship_to=st.none() | strategies.ship_tos,
    metadata=st.none() | st.dictionaries(texts, texts, max_size=2),
    adjustments=st.none()
    | st.lists(st.builds(AdjustmentIn, st.just("fee"), strategies.int8, texts, st.none() | st.just(1)), max_size=2),
    placed_at=st.none() | st.datetimes(timezones=st.just(UTC)),
    paid=st.none() | st.builds(PaidIn, texts, st.none() | st.just(datetime(2026, 1, 1, tzinfo=UTC))),
)
prices = st.builds(
    Priced, st.lists(strategies.lines, min_size=1, max_size=3), strategies.int8, st.just([]), st.just([])
)


@given(order=orders_in, made=prices, trace=strategies.optional_text)
def test_pass_of_twins_is_equal(order: OrderIn, made: Priced, trace: str | None) -> None:
    (done, said), compiled = both(order, made, trace)
    assert compiled == (done, said)
    answer = msgspec.json.decode(said.body)
    assert answer.get("note") == order.note
    if order.placed_at is not None:
        assert ms_of(datetime.fromisoformat(answer["placed_at"])) == ms_of(order.placed_at)
