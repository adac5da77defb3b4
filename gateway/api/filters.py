"""The filters of the list of orders: how each reads its text, and what it asks the ledger for. A text that no order
could have is refused, so nothing that PostgreSQL cannot take reaches it.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from core_ext import ids
from core_ext.limits import CHANNEL_CHARS_MAX, REFERENCE_CHARS_MAX, SKU_CHARS_MAX
from core_ext.reference.validation import CHANNEL
from core_ext.shapes import Time
from core_ext.times import ms_of
from gateway.api.operations import Parameter
from gateway.api.reading import LIMIT, LIMIT_DEFAULT, is_sku
from gateway.domain.access import Client
from gateway.domain.keys import KEY_CHARS_MAX, KEY_PATTERN, Hasher, parse_key
from gateway.domain.lifecycle import STATUSES, Status
from gateway.domain.outcomes import refuse

Channel = Annotated[str, Meta(pattern=f"^[a-z0-9-]{{1,{CHANNEL_CHARS_MAX}}}$")]
SALE = "[a-z0-9-]{1,64}"
Sale = Annotated[str, Meta(pattern=f"^{SALE}$")]
ID_MS_MAX = 2**48 - 1  # an id's time has 48 bits


class Filter(NamedTuple):
    """`read` gives the value of the ledger's condition, or None for a text that is not valid; `kind` and `hint` say
    what is.
    """

    condition: str
    read: Callable[[str], Any]
    kind: Any
    hint: str


def _reference(text: str) -> str | None:
    return text if 1 <= len(text) <= REFERENCE_CHARS_MAX else None


def _status(text: str) -> str | None:
    return text if text in STATUSES else None


def _channel(text: str) -> str | None:
    return text if 1 <= len(text) <= CHANNEL_CHARS_MAX and CHANNEL.fullmatch(text) else None


def _sale(text: str) -> str | None:
    return text if re.fullmatch(SALE, text) else None


def _floor(text: str) -> bytes | None:
    """The lowest id of an instant: a range of times is a range of ids."""
    try:
        ms = ms_of(msgspec.convert(text, Time))
    except msgspec.ValidationError:
        return None
    return ids.floor_of(min(max(ms, 0), ID_MS_MAX))


Reference = Annotated[str, Meta(min_length=1, max_length=REFERENCE_CHARS_MAX)]
TIME_HINT = "a time of RFC 3339 with an offset, such as 2026-11-11T00:00:00Z (a + in a query is written %2B)"
FILTERS = {
    "status": Filter("status", _status, Status, f"one of {', '.join(STATUSES)}"),
    "channel": Filter(
        "channel",
        _channel,
        Channel,
        "a-z, 0-9 and - only",
    ),
    "customer_id": Filter("customer_id", _reference, Reference, f"1 to {REFERENCE_CHARS_MAX} characters"),
    "external_id": Filter("external_id", _reference, Reference, f"1 to {REFERENCE_CHARS_MAX} characters"),
    "sale_id": Filter("sale_id", _sale, Sale, "a-z, 0-9 and - only; orders of this sale"),
    "sku": Filter(
        "sku",
        lambda text: text if is_sku(text) else None,
        Annotated[str, Meta(min_length=1, max_length=SKU_CHARS_MAX)],
        f"1 to {SKU_CHARS_MAX} printable characters; orders with a line of this SKU",
    ),
    "created_from": Filter("from_id", _floor, Time, TIME_HINT),
    "created_to": Filter("to_id", _floor, Time, f"{TIME_HINT}; orders before it"),
}
KEY_HINT = f"1 to {KEY_CHARS_MAX} visible ASCII characters, quoted or bare; the client's order under this key"
PARAMETERS = (
    *(Parameter(name, "query", known.kind, known.hint) for name, known in FILTERS.items()),
    Parameter("idempotency_key", "query", Annotated[str, Meta(pattern=KEY_PATTERN)], KEY_HINT),
    Parameter("limit", "query", LIMIT, f"Orders of a page; {LIMIT_DEFAULT} when left out"),
    Parameter("cursor", "query", str, "`next_cursor` of the page before, with the same filters"),
)


def filters_of(query: dict[str, str], hasher: Hasher, client: Client) -> dict[str, object]:
    """The conditions for the ledger (see persistence.postgres.orders.fetch_page). Raises ProblemError."""
    conditions: dict[str, object] = {} if client.may("orders:read:all") else {"client_id": client.client_id}
    for name, known in FILTERS.items():
        if name in query:
            value = known.read(query[name])
            if value is None:
                raise refuse("bad_parameter", f"{name}: {known.hint}")
            conditions[known.condition] = value
    if "idempotency_key" in query:
        key = parse_key(query["idempotency_key"].encode())
        if key is None:
            raise refuse("bad_parameter", f"idempotency_key: {KEY_HINT}")
        conditions["key_hash"] = hasher.key_hash(client.client_id, key)
    return conditions
