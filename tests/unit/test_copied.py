import struct

import msgspec
import pytest

from core_ext import rows
from core_ext.shapes import Change, Line, Order
from persistence.postgres import copied, orders

ID = bytes.fromhex("0199a7c25d807c3e9b1f4a6d2e8c0f51")
AT_MS = 1_790_000_000_000
ORDER = Order(
    ID,
    7,
    "app",
    "CNY",
    "pending_payment",
    1,
    255,
    [Line(1, "A", "TEA", 1, 255, 255, stocked=True)],
    AT_MS,
    customer_id="u-1",
    metadata=b'{"k":"v"}',
    expires_at=AT_MS + 1_800_000,
)
CREATED = Change(
    1, AT_MS, "created", "pending_payment", "client:shop", traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01"
)
CANCELLED = Change(
    2,
    AT_MS + 5000,
    "cancelled",
    "cancelled",
    "floodgate",
    "pending_payment",
    "units_lost",
    ("status",),
    CREATED.traceparent,
)


def test_row_taken_apart_and_put_together_is_the_same() -> None:
    row = rows.order_row(ORDER, b"sealed")
    columns = copied.split(row)
    assert len(columns) == 18
    assert columns[0] == ID
    assert None in columns
    assert copied.join(columns) == row


@pytest.mark.parametrize("cut", [0, 1, 3, 30, -1])
def test_row_that_is_none_is_refused(cut: int) -> None:
    row = rows.order_row(ORDER, b"sealed")
    with pytest.raises(ValueError, match="row"):
        copied.split(row[:cut])
    with pytest.raises(ValueError, match="row"):
        copied.split(row + b"\0")


def test_order_that_expires_later_has_as_long_to_be_paid_and_nothing_else_changes() -> None:
    later = msgspec.structs.replace(ORDER, expires_at=AT_MS + 1_800_000 + 7000)
    assert copied.expiring_later(rows.order_row(ORDER, b"sealed"), 7000) == rows.order_row(later, b"sealed")


@pytest.mark.parametrize("late_ms", [0, -5])
def test_order_that_is_not_late_stays_as_it_is(late_ms: int) -> None:
    row = rows.order_row(ORDER, b"sealed")
    assert copied.expiring_later(row, late_ms) == row


def test_order_that_does_not_expire_stays_as_it_is() -> None:
    row = rows.order_row(msgspec.structs.replace(ORDER, status="paid", expires_at=None), None)
    assert copied.expiring_later(row, 7000) == row


def test_cancelled_order_has_the_rows_that_a_cancellation_would_have_written() -> None:
    order_row, histories = copied.cancelled(
        rows.order_row(ORDER, b"sealed"), rows.history_row(ID, CREATED), 5000, "floodgate", "units_lost"
    )
    cancelled = msgspec.structs.replace(ORDER, status="cancelled", version=2)
    assert order_row == rows.order_row(cancelled, b"sealed")
    assert histories == [rows.history_row(ID, CREATED), rows.history_row(ID, CANCELLED)]


@pytest.mark.parametrize(
    "row", [rows.history_row(ID, CREATED), copied.join([*copied.split(rows.order_row(ORDER, None)), b""])]
)
def test_row_of_another_table_or_version_is_no_order(row: bytes) -> None:
    with pytest.raises(ValueError, match="columns"):
        copied.expiring_later(row, 7000)
    with pytest.raises(ValueError, match="columns"):
        copied.cancelled(row, rows.history_row(ID, CREATED), 5000, "floodgate", "units_lost")


@pytest.mark.parametrize("expires_at", [b"", b"1234567", struct.pack(">q", 2**63 - 1)])
def test_order_with_a_time_that_is_none_is_refused(expires_at: bytes) -> None:
    columns = copied.split(rows.order_row(ORDER, None))
    columns[orders.ORDER.split(", ").index("expires_at")] = expires_at
    with pytest.raises(ValueError, match="time"):
        copied.expiring_later(copied.join(columns), 7000)
