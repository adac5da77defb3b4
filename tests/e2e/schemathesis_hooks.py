"""What the OpenAPI document cannot say, told to Schemathesis: that a request which has the right form may still be
refused for what is there, or for how two of its parts fit together.

Nothing else is let through, and no check is switched off.
"""

import hashlib
import json
from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData

CLIENT = "buyers"  # whose token the requests carry
KEY = "Idempotency-Key"
NDJSON = "application/x-ndjson"
EXAMPLE_KEY = '"4f0a1c9e-2b7d-4a53-9a7e-0d2f6c8b1e35"'
# Problems that tell of what is there: the same request would have been taken at another time.
STATE = {
    "version_mismatch",
    "bad_cursor",
    "key_reused",
    "precondition_required",  # where one of two headers has to be there
}
# Entries of an `invalid` body that tell of what is there.
STATE_FAULTS = {
    "unknown_sku",
    "inactive_sku",
    "currency_mismatch",
    "unknown_sale",
    "not_in_sale",
    "not_stocked",
    "out_of_range #/items/units",  # of a sale: fewer than are held
    "out_of_range #/delta",  # of a stock: more than it can count
}
# Bounds between two parts of a body, or of one part, that no JSON schema can name.
FITTING_FAULTS = {
    "unknown_line",  # an adjustment names a line of its order
    "total_out_of_range",  # the sum of an order
    "out_of_range #/ends_at",  # a sale ends after it starts
    "bad_count #/items/sku",  # a sale has each SKU once
    "out_of_range #/expires_at",  # in the future
    "out_of_range #/limits/rate/burst",  # at once only beside a rate
    "out_of_range #/limits/rate/customer_burst",
    "out_of_range #/limits/rate/requests_per_s",  # a burst comes back within a day
    "out_of_range #/limits/rate/customer_requests_per_s",
    "out_of_range #/starts_at",  # years, which the format date-time does not bound
    "out_of_range #/placed_at",
    "out_of_range #/paid/at",
    "bad_format #/items/sku",  # printable: categories of Unicode, which a portable pattern cannot name
}
# The same of a SKU in a path or query.
SKU_DETAILS = ("no SKU, or no sale, can be called so", "1 to 64 printable characters")


@schemathesis.serializer(NDJSON)
def write_line(context: Any, value: Any) -> Any:
    """A body of one line."""
    return json.dumps(value).encode() + b"\n"


@schemathesis.deserializer(NDJSON)
def read_lines(context: Any, response: Any) -> Any:
    """The first line: its verdict, or the summary of none."""
    return json.loads(response.content.splitlines()[0])


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """JSON Schema takes 1.0 for an integer. Floodgate does not: no amount ever goes through a float."""
    return _whole(body)


@schemathesis.hook
def map_case(context: Any, case: Any) -> Any:
    """An ETag or a cursor that nobody has given is refused before anything else is looked at: those that links carry
    come later.
    """
    if case.meta.generation.mode.is_positive and "428" not in case.operation.responses.status_codes:
        required = {parameter.name for parameter in case.operation.iter_parameters() if parameter.is_required}
        for container, name in ((case.headers, "If-Match"), (case.headers, "If-None-Match"), (case.query, "cursor")):
            if container and name in container and name not in required:
                del container[name]
    return case


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Nobody saws at the branch: the client that asks keeps its token and its scopes. And the key of the example, which
    belongs to the first body that came with it, is another one for each body.
    """
    if (case.headers or {}).get(KEY) == EXAMPLE_KEY:
        case.headers[KEY] = hashlib.sha256(repr(case.body).encode("utf-8", "replace")).hexdigest()
    if (case.path_parameters or {}).get("name") == CLIENT and case.method in ("DELETE", "PATCH"):
        case.path_parameters["name"] = "app"


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Whether it is one. A line that is wrong is refused by its verdict; the request itself has done well."""
    if isinstance(failure, AcceptedNegativeData) and response.headers["content-type"][0] == NDJSON:
        return "order_id" in read_lines(context, response)
    if not isinstance(failure, RejectedPositiveData):
        return True
    problem = response.json()
    if problem["code"] in STATE or any(detail in problem.get("detail", "") for detail in SKU_DETAILS):
        return False
    faults = problem.get("errors") or [{"code": "", "pointer": ""}]
    return not all(_is_known(fault) for fault in faults)


def _is_known(fault: dict[str, str]) -> bool:
    place = "/".join(part for part in fault["pointer"].split("/") if not part.isdigit())
    return bool({fault["code"], f"{fault['code']} {place}"} & (STATE_FAULTS | FITTING_FAULTS))


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(part) for name, part in value.items()}
    return [_whole(part) for part in value] if isinstance(value, list) else value
