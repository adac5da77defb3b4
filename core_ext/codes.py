"""The registry of codes: every answer that is not a success has its code here and nowhere else.

OpenAPI, the table in the README and the constants of the compiled modules are made from it (setup.py writes
`compiled/codes.pxi`). A code is a contract: its name and status never change, its number is private to one build. A
*problem* is the code of a whole answer (RFC 9457); a *fault* is the code of one entry in the `errors` of an `invalid`
order or request.
"""

from typing import NamedTuple


class Problem(NamedTuple):
    """`status` is the HTTP status; `retryable` says that the same request may succeed later without a change."""

    name: str
    status: int
    title: str
    retryable: bool


class Fault(NamedTuple):
    """`number` is 1 to 99 and stands for the fault inside the compiled modules; 0 means no fault."""

    number: int
    name: str
    title: str


PROBLEMS = {
    problem.name: problem
    for problem in (
        Problem("malformed_json", 400, "The body is not readable as JSON", False),
        Problem("key_missing", 400, "The Idempotency-Key header is required", False),
        Problem("key_invalid", 400, "The Idempotency-Key header is not valid", False),
        Problem("bad_parameter", 400, "A parameter of the query is not valid", False),
        Problem("bad_cursor", 400, "The cursor does not belong to this list", False),
        Problem("bad_request", 400, "The request is not valid HTTP for this route", False),
        Problem("read_while_writing", 400, "The answer has to be read while the request is written", False),
        Problem("unauthenticated", 401, "A valid bearer token is required", False),
        Problem("scope_missing", 403, "The client lacks a scope", False),
        Problem("channel_forbidden", 403, "The client may not sell on this channel", False),
        Problem("not_found", 404, "There is nothing here", False),
        Problem("method_not_allowed", 405, "The route does not have this method", False),
        Problem("body_timeout", 408, "The body did not arrive in time", True),
        Problem("sold_out", 409, "The units asked for are sold", False),
        Problem("sale_not_open", 409, "The sale has not opened yet", True),
        Problem("sale_closed", 409, "The sale is over", False),
        Problem("limit_reached", 409, "The buyer may hold no more units of it", False),
        Problem("not_payable", 409, "The order does not wait for a payment", False),
        Problem("not_cancellable", 409, "The order can no longer be cancelled", False),
        Problem("key_in_flight", 409, "The first request with this key is still being answered", True),
        Problem("below_held", 409, "Fewer units than are held or promised", False),
        Problem("name_taken", 409, "There is one of this name already", False),
        Problem("tokens_full", 409, "The client has as many live tokens as it may have", False),
        Problem("version_mismatch", 412, "It has changed since it was read", False),
        Problem("body_too_large", 413, "The body is too large", False),
        Problem("unsupported_media_type", 415, "The body has to be application/json", False),
        Problem("invalid", 422, "The content is not valid", False),
        Problem("key_reused", 422, "The key belongs to a request with another body", False),
        Problem("precondition_required", 428, "The If-Match header is required", False),
        Problem("rate_limited", 429, "Too many requests at once", True),
        Problem("internal", 500, "An internal error", True),
        Problem("stock_returning", 503, "The units asked for may come back", True),
        Problem("overloaded", 503, "Too many orders are waiting", True),
        Problem("ledger_away", 503, "The ledger cannot be reached", True),
    )
}

FAULTS = {
    fault.name: fault
    for fault in (
        Fault(1, "unknown_field", "The field is not known"),
        Fault(2, "required", "The field is required"),
        Fault(3, "wrong_type", "The value has another type"),
        Fault(4, "control_character", "NUL and control characters are not allowed"),
        Fault(5, "bad_format", "The value does not have the format"),
        Fault(6, "bad_length", "The text is too short or too long"),
        Fault(7, "out_of_range", "The number is out of range"),
        Fault(8, "bad_count", "There are too few or too many entries"),
        Fault(9, "scope_required", "The field needs the scope orders:price"),
        Fault(10, "unknown_sku", "There is no such SKU"),
        Fault(11, "inactive_sku", "The SKU is not for sale"),
        Fault(12, "currency_mismatch", "The SKU is sold in another currency"),
        Fault(13, "unknown_line", "The adjustment names a line that the order does not have"),
        Fault(14, "total_out_of_range", "The total is out of range"),
        Fault(15, "unknown_sale", "There is no such sale"),
        Fault(16, "not_in_sale", "The sale does not have the SKU"),
        Fault(17, "not_stocked", "The SKU is sold without stock"),
    )
}

assert len({fault.number for fault in FAULTS.values()}) == len(FAULTS)
assert all(0 < fault.number < 100 for fault in FAULTS.values())
