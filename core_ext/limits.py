"""The bounds of an order: one named constant each, with its unit. Sources: the HTTP contract, section 1, and
PostgreSQL's column types.
"""

MONEY_MAX = 2**53 - 1  # minor units; the largest integer that every JSON reader keeps exactly
ITEMS_MAX = 1000  # lines of an order
QUANTITY_MAX = 1_000_000  # units of a line
SKU_CHARS_MAX = 64
CHANNEL_CHARS_MAX = 32
CURRENCY_CHARS = 3  # ISO 4217
REFERENCE_CHARS_MAX = 128  # customer_id, external_id, sale_id, paid.reference
NOTE_CHARS_MAX = 1000
ADDRESS_CHARS_MAX = 200  # each field of ship_to
METADATA_PAIRS_MAX = 20
METADATA_KEY_CHARS_MAX = 64
METADATA_VALUE_CHARS_MAX = 500
ADJUSTMENTS_MAX = 1000
LABEL_CHARS_MAX = 200  # the label of an adjustment
TITLE_CHARS_MAX = 200  # of a product
TIME_MS_MIN = -62_135_596_800_000  # 0001-01-01T00:00:00Z, in milliseconds since 1970
TIME_MS_MAX = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
