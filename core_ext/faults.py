"""Every fault of an order at once, for the answer to a refused one: what `problem+json` lists under `errors`.

Cold: it runs only after the fast checks have refused. It names codes and places and says what is allowed; it never
repeats a value, which may be personal. It looks at the places where an order has fields and never further down, so
nesting costs nothing.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple, get_args, get_type_hints
from urllib.parse import quote

import msgspec

from core_ext import limits
from core_ext.reference.validation import CHANNEL, CONTROL, CURRENCY
from core_ext.shapes import AdjustmentIn, OrderIn, Product, ShipTo, Time
from core_ext.times import ms_of

FAULTS_MAX = 100  # entries of one answer
TOKEN_CHARS_MAX = 128  # a field's name beyond this is not repeated: its object is named instead
FRAGMENT_SAFE = "!$&'()*+,;=:@-._~?"  # RFC 3986, section 3.5, without the slash, which separates

ADJUSTMENT_TYPES = get_args(get_type_hints(AdjustmentIn)["type"])
SCOPE_DETAIL = "needs the scope orders:price"


class FaultAt(NamedTuple):
    """`code` is one of core_ext.codes.FAULTS, `pointer` a JSON pointer (RFC 6901) as URI fragment: `#/items/3/sku`."""

    code: str
    pointer: str
    detail: str


class Scene(NamedTuple):
    """What the check of a field needs beside the field; `lines` is None when the order has no readable lines."""

    may_price: bool
    lines: int | None


Check = Callable[[str, Any, Scene], Iterator[FaultAt]]


class Field(NamedTuple):
    """How a field of an object is checked; `priced` says that it needs the scope for prices."""

    check: Check
    required: bool = False
    priced: bool = False


def find_faults(document: object, may_price: bool) -> list[FaultAt]:  # noqa: FBT001 - as check_order
    """The faults of an order as untyped JSON, at most 100 of them; entries beyond the greatest count of their list are
    not looked at.

    Empty exactly when the document is an OrderIn that `validation.check_order` passes. (A JSON text that names a
    field twice has only its last value here, while decoding into OrderIn looks at both.)
    """
    items = document.get("items") if isinstance(document, dict) else None
    scene = Scene(may_price, len(items) if isinstance(items, list) else None)
    return list(islice(_object(ORDER)("#", document, scene), FAULTS_MAX))


def pricing_faults(
    order: OrderIn,
    products: dict[str, Product],
    may_price: bool,  # noqa: FBT001 - as price_order
) -> list[FaultAt]:
    """The faults of an order that `validation.check_order` has passed against the catalogue, at most 100 of them.

    Empty exactly when `pricing.price_order` gives a priced order.
    """
    faults: list[FaultAt] = []
    total = sum(adjustment.amount for adjustment in order.adjustments or ()) if may_price else 0
    amount_max = 0
    for index, item in enumerate(order.items):
        product = products.get(item.sku)
        own_price = item.unit_price if may_price else None
        code, detail = _product_fault(product, order.currency, own_price)
        if product is None or code:
            faults.append(FaultAt(code, f"#/items/{index}/sku", detail))
        else:
            amount = item.quantity * (product.price if own_price is None else own_price)
            total, amount_max = total + amount, max(amount_max, amount)
    if amount_max > limits.MONEY_MAX or (not faults and not 0 <= total <= limits.MONEY_MAX):
        detail = f"each amount and the total must be 0 to {limits.MONEY_MAX}"
        faults.insert(0, FaultAt("total_out_of_range", "#", detail))
    return faults[:FAULTS_MAX]


def _product_fault(product: Product | None, currency: str, own_price: int | None) -> tuple[str, str]:
    if product is None:
        return "unknown_sku", "is not in the catalogue"
    if not product.active:
        return "inactive_sku", "is not for sale at present"
    if own_price is None and product.currency != currency:
        return "currency_mismatch", f"is sold in {product.currency}"
    return "", ""


def _child(pointer: str, token: str | int) -> str:
    text = str(token)
    if len(text) > TOKEN_CHARS_MAX:
        return pointer
    return f"{pointer}/{quote(text.replace('~', '~0').replace('/', '~1'), safe=FRAGMENT_SAFE, errors='replace')}"


def _object(fields: dict[str, Field]) -> Check:
    def check(pointer: str, value: Any, scene: Scene) -> Iterator[FaultAt]:
        if not isinstance(value, dict):
            yield FaultAt("wrong_type", pointer, "must be an object")
            return
        for name in value:
            if name not in fields:
                yield FaultAt("unknown_field", _child(pointer, name), "is not a field of this object")
        for name, field in fields.items():
            yield from _field(_child(pointer, name), field, value, name, scene)

    return check


def _field(pointer: str, field: Field, owner: dict[str, Any], name: str, scene: Scene) -> Iterator[FaultAt]:
    if field.required and name not in owner:
        yield FaultAt("required", pointer, "is required")
        return
    value = owner.get(name)
    if value is None and not field.required:
        return
    if field.priced and not scene.may_price:
        yield FaultAt("scope_required", pointer, SCOPE_DETAIL)
    yield from field.check(pointer, value, scene)


def _list(check_entry: Check, count_min: int, count_max: int) -> Check:
    def check(pointer: str, value: Any, scene: Scene) -> Iterator[FaultAt]:
        if not isinstance(value, list):
            yield FaultAt("wrong_type", pointer, "must be an array")
            return
        if not count_min <= len(value) <= count_max:
            yield FaultAt("bad_count", pointer, f"must have {count_min} to {count_max} entries")
        for index, entry in enumerate(islice(value, count_max)):
            yield from check_entry(_child(pointer, index), entry, scene)

    return check


def _text(
    chars_min: int, chars_max: int, is_format: Callable[[str], bool] | None = None, format_detail: str = ""
) -> Check:
    length_detail = (
        f"must have {chars_min} to {chars_max} characters"
        if chars_min < chars_max
        else f"must have {chars_min} characters"
    )

    def check(pointer: str, value: Any, _scene: Scene) -> Iterator[FaultAt]:
        if not isinstance(value, str):
            yield FaultAt("wrong_type", pointer, "must be a string")
            return
        if not chars_min <= len(value) <= chars_max:
            yield FaultAt("bad_length", pointer, length_detail)
        if CONTROL.search(value):
            yield FaultAt("control_character", pointer, "must not have NUL or control characters")
        elif is_format and not is_format(value):
            yield FaultAt("bad_format", pointer, format_detail)

    return check


def _number(lowest: int, highest: int) -> Check:
    def check(pointer: str, value: Any, _scene: Scene) -> Iterator[FaultAt]:
        if type(value) is not int:
            yield FaultAt("wrong_type", pointer, "must be an integer")
        elif not lowest <= value <= highest:
            yield FaultAt("out_of_range", pointer, f"must be {lowest} to {highest}")

    return check


def _line_number(pointer: str, value: Any, scene: Scene) -> Iterator[FaultAt]:
    if type(value) is not int:
        yield FaultAt("wrong_type", pointer, "must be an integer")
    elif scene.lines is not None and not 1 <= value <= scene.lines:
        yield FaultAt("unknown_line", pointer, f"must be 1 to {scene.lines}, the number of a line of this order")


def _adjustment_type(pointer: str, value: Any, _scene: Scene) -> Iterator[FaultAt]:
    if not isinstance(value, str):
        yield FaultAt("wrong_type", pointer, "must be a string")
    elif value not in ADJUSTMENT_TYPES:
        yield FaultAt("bad_format", pointer, f"must be one of {', '.join(ADJUSTMENT_TYPES)}")


def _time(pointer: str, value: Any, _scene: Scene) -> Iterator[FaultAt]:
    if not isinstance(value, str):
        yield FaultAt("wrong_type", pointer, "must be a string")
        return
    try:
        moment = msgspec.convert(value, Time)
    except msgspec.ValidationError:
        yield FaultAt("bad_format", pointer, "must be a time of RFC 3339 with an offset, such as 2026-11-11T00:00:00Z")
        return
    if not limits.TIME_MS_MIN <= ms_of(moment) <= limits.TIME_MS_MAX:
        yield FaultAt("out_of_range", pointer, "must be in the years 1 to 9999 of UTC")


def _metadata(pointer: str, value: Any, scene: Scene) -> Iterator[FaultAt]:
    if not isinstance(value, dict):
        yield FaultAt("wrong_type", pointer, "must be an object")
        return
    if len(value) > limits.METADATA_PAIRS_MAX:
        yield FaultAt("bad_count", pointer, f"must have at most {limits.METADATA_PAIRS_MAX} pairs")
    for key, entry in islice(value.items(), limits.METADATA_PAIRS_MAX):
        place = _child(pointer, key)
        yield from _metadata_key(place, key, scene)
        yield from _metadata_value(place, entry, scene)


_reference = _text(1, limits.REFERENCE_CHARS_MAX)
_metadata_key = _text(1, limits.METADATA_KEY_CHARS_MAX)
_metadata_value = _text(0, limits.METADATA_VALUE_CHARS_MAX)

ITEM = {
    "sku": Field(_text(1, limits.SKU_CHARS_MAX, str.isprintable, "must have printable characters only"), required=True),
    "quantity": Field(_number(1, limits.QUANTITY_MAX), required=True),
    "unit_price": Field(_number(0, limits.MONEY_MAX), priced=True),
}
ADJUSTMENT = {
    "type": Field(_adjustment_type, required=True),
    "amount": Field(_number(-limits.MONEY_MAX, limits.MONEY_MAX), required=True),
    "label": Field(_text(1, limits.LABEL_CHARS_MAX), required=True),
    "line": Field(_line_number),
}
PAID = {"reference": Field(_reference, required=True), "at": Field(_time)}
SHIP_TO = {name: Field(_text(1, limits.ADDRESS_CHARS_MAX)) for name in ShipTo.__struct_fields__}
ORDER = {
    "channel": Field(
        _text(
            1,
            limits.CHANNEL_CHARS_MAX,
            lambda text: CHANNEL.fullmatch(text) is not None,
            "must have a-z, 0-9 and - only",
        ),
        required=True,
    ),
    "currency": Field(
        _text(
            limits.CURRENCY_CHARS,
            limits.CURRENCY_CHARS,
            lambda text: CURRENCY.fullmatch(text) is not None,
            "must have A-Z only",
        ),
        required=True,
    ),
    "items": Field(_list(_object(ITEM), 1, limits.ITEMS_MAX), required=True),
    "customer_id": Field(_reference),
    "sale_id": Field(_reference),
    "external_id": Field(_reference),
    "note": Field(_text(1, limits.NOTE_CHARS_MAX)),
    "ship_to": Field(_object(SHIP_TO)),
    "metadata": Field(_metadata),
    "adjustments": Field(_list(_object(ADJUSTMENT), 0, limits.ADJUSTMENTS_MAX), priced=True),
    "placed_at": Field(_time, priced=True),
    "paid": Field(_object(PAID), priced=True),
}
