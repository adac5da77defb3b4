"""The bytes of PostgreSQL's binary COPY: golden rows field by field, and both twins on any order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.limits import TIME_MS_MAX, TIME_MS_MIN
from core_ext.shapes import Change, Order
from tests.ext import strategies
from tests.ext.twins import COMPILED, ORDER_ID, REFERENCE, Twin, change, full_order, order

NULL = "ffffffff"
ID = "00000010 019ac4d4e0007abc8123456789abcdef"
CREATED = "00000008 0002e79beae32478"  # 2025-11-28T01:00:00.123Z
STATUS = "0000000f 70656e64696e675f7061796d656e74"  # pending_payment

# fmt: off
FULL_ORDER_ROW = [
    "0012", ID, "00000004 00000007", "00000003 617070", "00000003 434e59", "00000003 752d31", "00000004 412d3737",
    "00000009 646f75626c652d3131", STATUS, "00000004 00000001", "00000008 00000000000005fa",
    "00000009 7b226b223a2276227d",
    "00000027 5b7b2274797065223a22666565222c22616d6f756e74223a312c226c6162656c223a2278227d5d",
    "00000008 fffca2fec4c82000", "00000004 77782d31", "00000008 fffca2fec4c81c18", "00000002 0102", CREATED,
    "00000008 0002e79c562cf678",
]
SMALL_ORDER_ROW = [
    "0012", ID, "00000004 00000007", "00000003 617070", "00000003 434e59", "00000003 752d31", NULL, NULL, STATUS,
    "00000004 00000001", "00000008 00000000000005fa", NULL, NULL, NULL, NULL, NULL, NULL, CREATED,
    "00000008 0002e79c562cf678",
]
LINE_ROW = [
    "0009", ID, "00000004 00000001", "00000006 383531323341", "0000000f 4845415254202254222d4c49474854",
    "00000004 00000006", "00000008 00000000000000ff", "00000008 00000000000005fa", "00000001 01",
    "00000001 00",
]
CREATION_ROW = [
    "000a", ID, "00000004 00000001", CREATED, "00000007 63726561746564", STATUS, NULL, "00000008 636c69656e743a37",
    NULL, "0000000c 000000000000000000000019", NULL,
]
CHANGE_ROW = [
    "000a", ID, "00000004 00000002", CREATED, "00000007 6368616e676564", STATUS, "00000004 70616964",
    "00000008 636c69656e743a37", "00000001 72",
    "00000023 0000000100000000000000190000000200000001000000046e6f746500000003e5ad97", "00000009 30302d612d622d3031",
]
KEY_ROW = [
    "0003", ID, "00000004 00000001", "00000002 6b00",
]
# fmt: on


def golden(fields: list[str]) -> bytes:
    return bytes.fromhex("".join(fields))


def test_header_and_trailer_are_those_of_the_manual(twin: Twin) -> None:
    assert twin.rows.HEADER.hex(" ") == "50 47 43 4f 50 59 0a ff 0d 0a 00 00 00 00 00 00 00 00 00"
    assert twin.rows.TRAILER.hex() == "ffff"


def test_order_row_with_all_fields_has_golden_bytes(twin: Twin) -> None:
    assert twin.rows.order_row(full_order(), b"\1\2") == golden(FULL_ORDER_ROW)


def test_order_row_with_absent_fields_has_nulls(twin: Twin) -> None:
    assert twin.rows.order_row(order(), None) == golden(SMALL_ORDER_ROW)


def test_line_rows_have_golden_bytes(twin: Twin) -> None:
    two_lines = order().lines * 2
    assert twin.rows.line_rows(order(lines=two_lines)) == golden(LINE_ROW) * 2


def test_line_row_says_whether_it_is_stocked_and_limited(twin: Twin) -> None:
    changed = order()
    changed.lines[0].stocked, changed.lines[0].limited = False, True
    assert twin.rows.line_rows(changed) == golden([*LINE_ROW[:-2], "00000001 00", "00000001 01"])


def test_history_row_of_creation_has_golden_bytes(twin: Twin) -> None:
    assert twin.rows.history_row(ORDER_ID, change()) == golden(CREATION_ROW)


def test_history_row_of_a_change_has_golden_bytes(twin: Twin) -> None:
    made = change(
        version=2, event="changed", previous_status="paid", reason="r", changed=("note", "字"), traceparent="00-a-b-01"
    )
    assert twin.rows.history_row(ORDER_ID, made) == golden(CHANGE_ROW)


def test_key_row_has_golden_bytes(twin: Twin) -> None:
    assert twin.rows.key_row(ORDER_ID, 1, b"k\0") == golden(KEY_ROW)


@pytest.mark.parametrize(
    ("table", "row"), [("ORDER", FULL_ORDER_ROW), ("LINE", LINE_ROW), ("HISTORY", CHANGE_ROW), ("KEY", KEY_ROW)]
)
def test_columns_are_as_many_as_the_fields_of_a_row(twin: Twin, table: str, row: list[str]) -> None:
    assert len(getattr(twin.rows, f"{table}_COLUMNS")) == int(row[0], 16)


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": 2**31},
        {"version": -(2**31) - 1},
        {"total": 2**63},
        {"created_at": TIME_MS_MAX + 1},
        {"placed_at": TIME_MS_MIN - 1},
        {"expires_at": 2**200},
    ],
)
def test_value_that_its_column_cannot_hold_is_refused(twin: Twin, changes: dict[str, Any]) -> None:
    with pytest.raises(OverflowError):
        twin.rows.order_row(order(**changes), None)


def test_id_of_another_length_is_a_bug(twin: Twin) -> None:
    with pytest.raises(AssertionError):
        twin.rows.key_row(bytes(15), 1, b"")


def test_rows_larger_than_the_first_buffer_are_whole(twin: Twin) -> None:
    large = order(lines=order().lines * 1000, metadata=bytes(100_000))
    assert twin.rows.line_rows(large) == golden(LINE_ROW) * 1000
    assert twin.rows.order_row(large, bytes(70_000)) == REFERENCE.rows.order_row(large, bytes(70_000))


@given(order=strategies.orders, personal=st.none() | st.binary(max_size=3000))
def test_order_and_line_rows_of_twins_are_equal(order: Order, personal: bytes | None) -> None:
    assert REFERENCE.rows.order_row(order, personal) == COMPILED.rows.order_row(order, personal)
    assert REFERENCE.rows.line_rows(order) == COMPILED.rows.line_rows(order)


@given(order_id=strategies.ids, change=strategies.changes, version=strategies.int4, wrapped=st.binary(max_size=80))
def test_history_and_key_rows_of_twins_are_equal(order_id: bytes, change: Change, version: int, wrapped: bytes) -> None:
    assert REFERENCE.rows.history_row(order_id, change) == COMPILED.rows.history_row(order_id, change)
    assert REFERENCE.rows.key_row(order_id, version, wrapped) == COMPILED.rows.key_row(order_id, version, wrapped)
