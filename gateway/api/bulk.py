"""Orders in bulk: lines in, verdicts out, streamed both ways. The stream itself stands in the edge; here are its
description and its door.
"""

from typing import cast

from litestar import post
from litestar.types import ASGIApp

from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, request_id_of
from gateway.api.guard import client_of
from gateway.api.operations import OPERATION, Operation, Shown
from gateway.api.reading import services_of
from gateway.domain.outcomes import refuse
from gateway.edge.bulk import LINES_AHEAD_MAX, NDJSON, PATH, BulkStream, is_ndjson
from gateway.edge.bulk_lines import LINE_BYTES_MAX
from gateway.edge.requests import read_headers

BULK = Operation(
    name="placeOrdersInBulk",
    tag="Orders",
    summary="Place orders in bulk, a line each",
    description=(
        "NDJSON in, NDJSON out: a verdict for each line, in the order of the lines, and at last a `summary`. The order "
        "and the key of a line are those of `POST /v1/orders`: the same key there means the same order. Each line is "
        "placed by itself, and `problem` is what its order alone would have got; only a request that is refused whole "
        f"has a problem as its answer. A line has at most {LINE_BYTES_MAX} bytes; an empty one is counted and has no "
        "verdict; the last one needs no end. Lines wait for room instead of being told `overloaded`, and live orders "
        f"go first. Read the answer while you write: once {LINES_AHEAD_MAX} verdicts wait for a client that takes "
        "none, the next line gets `read_while_writing`. That code, `body_timeout` when nothing comes for too long, and "
        "`ledger_away` when the worker stops, end the stream, whose summary is then not `complete`: their line, and "
        "those behind it, were not read."
    ),
    scopes=("bulk",),
    body=shapes.BulkLine,
    body_type=NDJSON.decode(),
    body_example={"idempotency_key": "A-77", "order": examples.ORDER_IN},
    answers={
        200: Shown(
            "The verdicts, then the summary",
            shapes.BulkVerdict,
            media_type=NDJSON.decode(),
            example={"line": 1, "status": 201, "order_id": examples.ORDER_ID},
        )
    },
    problems=(
        "key_missing",
        "key_invalid",
        "channel_forbidden",
        "sold_out",
        "limit_reached",
        "sale_not_open",
        "sale_closed",
        "key_in_flight",
        "key_reused",
        "read_while_writing",
        "stock_returning",
        "overloaded",
        "ledger_away",
    ),
)


@post(PATH, opt={OPERATION: BULK}, status_code=200)
async def place_orders_in_bulk(request: AnyRequest) -> ASGIApp:
    services, client = services_of(request), client_of(request)
    headers = read_headers(request.scope["headers"])
    if not is_ndjson(headers.content_type):
        raise refuse("unsupported_media_type", f"the body has to be {NDJSON.decode()}")
    if services.bulk.streams >= services.bulk.streams_max:
        raise refuse("overloaded", f"the worker has {services.bulk.streams_max} requests in bulk already")
    stream = BulkStream(
        services.bulk, client, services.rates.of(client), request_id_of(request.scope), headers.traceparent
    )
    return cast("ASGIApp", stream)
