"""The bounds of an order in its JSON schema. On the hot path the compiled validation checks them, so they stand in no
annotation; here they are said once more, from the same constants, for those who generate clients.
"""

from typing import Any

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
)
from core_ext.shapes import ShipTo

Schema = dict[str, Any]

PRICED = "Needs the scope orders:price"
REFERENCE: Schema = {"minLength": 1, "maxLength": REFERENCE_CHARS_MAX}
METADATA: Schema = {
    "maxProperties": METADATA_PAIRS_MAX,
    "propertyNames": {"type": "string", "minLength": 1, "maxLength": METADATA_KEY_CHARS_MAX},
    "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_CHARS_MAX},
}
BOUNDS: dict[str, dict[str, Schema]] = {
    "OrderIn": {
        "channel": {"pattern": f"^[a-z0-9-]{{1,{CHANNEL_CHARS_MAX}}}$"},
        "currency": {"pattern": f"^[A-Z]{{{CURRENCY_CHARS}}}$", "description": "ISO 4217"},
        "items": {"minItems": 1, "maxItems": ITEMS_MAX},
        "customer_id": REFERENCE,
        "sale_id": REFERENCE,
        "external_id": REFERENCE,
        "note": {"minLength": 1, "maxLength": NOTE_CHARS_MAX},
        "metadata": METADATA,
        "adjustments": {"maxItems": ADJUSTMENTS_MAX, "description": PRICED},
        "placed_at": {"description": f"When the channel took the order. {PRICED}"},
    },
    "ItemIn": {
        "sku": {"minLength": 1, "maxLength": SKU_CHARS_MAX, "description": "Printable characters, case-sensitive"},
        "quantity": {"minimum": 1, "maximum": QUANTITY_MAX},
        "unit_price": {"minimum": 0, "maximum": MONEY_MAX, "description": f"In minor units. {PRICED}"},
    },
    "AdjustmentIn": {
        "amount": {"minimum": -MONEY_MAX, "maximum": MONEY_MAX, "description": "Signed, in minor units"},
        "label": {"minLength": 1, "maxLength": LABEL_CHARS_MAX},
        "line": {"minimum": 1, "maximum": ITEMS_MAX, "description": "The line that it belongs to"},
    },
    "PaidIn": {"reference": REFERENCE},
    "ShipTo": {name: {"minLength": 1, "maxLength": ADDRESS_CHARS_MAX} for name in ShipTo.__struct_fields__},
}


def bound(components: dict[str, Schema]) -> dict[str, Schema]:
    """The components with the bounds of an order. A bound of a field that may be null goes to what it is when it is
    not.
    """
    for name, fields in BOUNDS.items():
        properties = components[name]["properties"]
        for field, bounds in fields.items():
            properties[field] = _with(properties[field], bounds)
    return components


def _with(schema: Schema, bounds: Schema) -> Schema:
    if "anyOf" not in schema:
        return schema | bounds
    return schema | {"anyOf": [part if part == {"type": "null"} else part | bounds for part in schema["anyOf"]]}
