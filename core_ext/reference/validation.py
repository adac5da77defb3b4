"""The bounds of an order that need nothing but the order: counts, lengths, characters, ranges, and the scope for
prices.

`check_order` gives the number of the first fault, in the order of the fields; `core_ext.faults` names all of them.
What msgspec has decoded must never make it raise: integers may have 4,300 digits, times may lie outside of UTC's
years.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import chain

from core_ext.codes import FAULTS
from core_ext.limits import (
    ADDRESS_CHARS_MAX,
    ADJUSTMENTS_MAX,
    CHANNEL_CHARS_MAX,
    CURRENCY_CHARS,
    ITEMS_MAX,
    LABEL_CHARS_MAX,
    METADATA_KEY_CHARS_MAX,
    METADATA_PAIRS_MAX,
    METADATA_VALUE_CHARS_MAX,
    MONEY_MAX,
    NOTE_CHARS_MAX,
    QUANTITY_MAX,
    REFERENCE_CHARS_MAX,
    SKU_CHARS_MAX,
    TIME_MS_MAX,
    TIME_MS_MIN,
)
from core_ext.shapes import AdjustmentIn, ItemIn, OrderIn, PaidIn, ShipTo
from core_ext.times import ms_of

__all__ = ["check_order"]

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
CHANNEL = re.compile("[a-z0-9-]*")
CURRENCY = re.compile("[A-Z]*")


def check_order(order: OrderIn, may_price: bool) -> int:  # noqa: FBT001 - called once per order, by position
    """0, or the number (core_ext.codes.FAULTS) of the first fault. `may_price` says that the client has the scope for
    prices.
    """
    return next((FAULTS[name].number for name in _faults(order, may_price=may_price)), 0)


def _faults(order: OrderIn, *, may_price: bool) -> Iterator[str]:
    yield from chain(
        _text(order.channel, 1, CHANNEL_CHARS_MAX),
        _format(order.channel, CHANNEL),
        _text(order.currency, CURRENCY_CHARS, CURRENCY_CHARS),
        _format(order.currency, CURRENCY),
        _items(order.items, may_price=may_price),
        _reference(order.customer_id),
        _reference(order.sale_id),
        _reference(order.external_id),
        _optional(order.note, 1, NOTE_CHARS_MAX),
        _ship_to(order.ship_to),
        _metadata(order.metadata),
    )
    if not may_price and not (order.adjustments is None and order.placed_at is None and order.paid is None):
        yield "scope_required"
    yield from chain(
        _adjustments(order.adjustments, len(order.items)),
        _time(order.placed_at),
        _paid(order.paid),
    )


def _items(items: list[ItemIn], *, may_price: bool) -> Iterator[str]:
    if not 1 <= len(items) <= ITEMS_MAX:
        yield "bad_count"
    for item in items:
        yield from _text(item.sku, 1, SKU_CHARS_MAX)
        if not item.sku.isprintable():
            yield "bad_format"
        yield from _number(item.quantity, 1, QUANTITY_MAX)
        if item.unit_price is not None:
            if not may_price:
                yield "scope_required"
            yield from _number(item.unit_price, 0, MONEY_MAX)


def _ship_to(ship_to: ShipTo | None) -> Iterator[str]:
    if ship_to is not None:
        for field in ShipTo.__struct_fields__:
            yield from _optional(getattr(ship_to, field), 1, ADDRESS_CHARS_MAX)


def _metadata(metadata: dict[str, str] | None) -> Iterator[str]:
    if metadata is not None:
        if len(metadata) > METADATA_PAIRS_MAX:
            yield "bad_count"
        for key, value in metadata.items():
            yield from _text(key, 1, METADATA_KEY_CHARS_MAX)
            yield from _text(value, 0, METADATA_VALUE_CHARS_MAX)


def _adjustments(adjustments: list[AdjustmentIn] | None, lines: int) -> Iterator[str]:
    if adjustments is not None:
        if len(adjustments) > ADJUSTMENTS_MAX:
            yield "bad_count"
        for adjustment in adjustments:
            yield from _number(adjustment.amount, -MONEY_MAX, MONEY_MAX)
            yield from _text(adjustment.label, 1, LABEL_CHARS_MAX)
            if adjustment.line is not None and not 1 <= adjustment.line <= lines:
                yield "unknown_line"


def _paid(paid: PaidIn | None) -> Iterator[str]:
    if paid is not None:
        yield from _reference(paid.reference)
        yield from _time(paid.at)


def _reference(text: str | None) -> Iterator[str]:
    yield from _optional(text, 1, REFERENCE_CHARS_MAX)


def _optional(text: str | None, chars_min: int, chars_max: int) -> Iterator[str]:
    if text is not None:
        yield from _text(text, chars_min, chars_max)


def _text(text: str, chars_min: int, chars_max: int) -> Iterator[str]:
    if not chars_min <= len(text) <= chars_max:
        yield "bad_length"
    if CONTROL.search(text):
        yield "control_character"


def _format(text: str, pattern: re.Pattern[str]) -> Iterator[str]:
    if not pattern.fullmatch(text):
        yield "bad_format"


def _number(number: int, lowest: int, highest: int) -> Iterator[str]:
    if not lowest <= number <= highest:
        yield "out_of_range"


def _time(moment: datetime | None) -> Iterator[str]:
    if moment is not None and not TIME_MS_MIN <= ms_of(moment) <= TIME_MS_MAX:
        yield "out_of_range"
