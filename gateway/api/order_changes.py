"""Changes of an order that a client asks for: it is paid, it is cancelled. Each names the version that it is meant for,
so one that is repeated changes nothing; what the order's state does not allow is 409, with what it is and what it
allows.
"""

from typing import NamedTuple

from litestar import Response, post
from litestar.params import FromPath

from core_ext import ids
from gateway.api import examples, shapes
from gateway.api.answers import AnyRequest, etag, json_answer
from gateway.api.guard import client_of
from gateway.api.operations import OPERATION, Etag, Operation, Parameter, Shown
from gateway.api.orders import ORDER_ID, PATH
from gateway.api.reading import read_json, read_required_match, services_of
from gateway.domain.access import Client
from gateway.domain.lifecycle import allowed
from gateway.domain.outcomes import ProblemError, refuse
from gateway.edge.requests import read_headers
from gateway.orders import body_of, event_of
from gateway.services import Services
from persistence.postgres import order_changes

ACTIONS = ("pay", "cancel")  # those of the table of an order's life that there is a route for
MATCH = Parameter("If-Match", "header", Etag, "The ETag of the order", required=True, example='"1"')
VERSION = {"ETag": "The version of the order"}

PAY = Operation(
    name="payOrder",
    tag="Orders",
    summary="Say that an order has been paid",
    description=(
        "For a channel that is paid itself. The order has to wait for its payment, and to have the version that "
        "`If-Match` names: a call that is repeated is 412. One that has expired or was cancelled cannot be paid any "
        "more: the money has to go back. A client may say so of its own orders, and with `orders:manage` and "
        "`orders:read:all` of all."
    ),
    scopes=("orders:price",),
    body=shapes.OrderPayIn,
    body_example={"reference": "wx-4200001", "at": "2026-11-11T00:05:00Z"},
    answers={
        200: Shown(
            "The order, paid",
            shapes.OrderOut,
            headers=VERSION,
            example=examples.ORDER
            | {"status": "paid", "version": 2, "paid": {"reference": "wx-4200001", "at": "2026-11-11T00:05:00.000Z"}},
        )
    },
    problems=("not_found", "precondition_required", "version_mismatch", "not_payable", "ledger_away"),
    parameters=(ORDER_ID, MATCH),
)
CANCEL = Operation(
    name="cancelOrder",
    tag="Orders",
    summary="Cancel an order that nobody prepares yet",
    description=(
        "Its units are for sale again, and its buyer may hold as many more of a SKU with a limit. It has to wait for "
        "its payment or be paid, and to have the version that `If-Match` names: a call that is repeated is 412. "
        "`orders:write` is enough for the client's own orders."
    ),
    scopes=("orders:manage", "orders:write"),
    body=shapes.OrderCancelIn,
    body_example={"reason": "ordered twice"},
    answers={
        200: Shown(
            "The order, cancelled",
            shapes.OrderOut,
            headers=VERSION,
            example=examples.ORDER | {"status": "cancelled", "version": 2},
        )
    },
    problems=("not_found", "precondition_required", "version_mismatch", "not_cancellable", "ledger_away"),
    parameters=(ORDER_ID, MATCH),
)


class Asked(NamedTuple):
    """Who wants version `version` of which order changed. `owner`: whose order it has to be, None for anybody's;
    `batch_id`: under which its event is going to wait.
    """

    services: Services
    client: Client
    order_id: bytes
    version: int
    owner: int | None
    traceparent: str | None
    batch_id: bytes


@post(PATH + "/{order_id:str}/pay", opt={OPERATION: PAY}, status_code=200)
async def pay_order(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    asked = _asked(request, order_id)
    payment = await read_json(request, shapes.OrderPayIn)
    done = await order_changes.pay(
        asked.services.pool,
        asked.order_id,
        asked.version,
        asked.owner,
        payment.reference,
        payment.at,
        asked.client.actor,
        asked.traceparent,
        asked.batch_id,
    )
    if done.outcome != "paid":
        raise await _unchanged(asked, done.outcome, done.status)
    return await _changed(asked)


@post(PATH + "/{order_id:str}/cancel", opt={OPERATION: CANCEL}, status_code=200)
async def cancel_order(request: AnyRequest, order_id: FromPath[str]) -> Response[bytes]:
    asked = _asked(request, order_id)
    reason = (await read_json(request, shapes.OrderCancelIn)).reason
    services = asked.services
    done = await order_changes.cancel(
        services.pool,
        asked.order_id,
        asked.version,
        asked.owner,
        services.leases.home,
        asked.client.actor,
        reason,
        asked.traceparent,
        asked.batch_id,
    )
    if done.outcome != "cancelled":
        raise await _unchanged(asked, done.outcome, done.status)
    for key in done.skus:
        services.leases.restocked(key)
    return await _changed(asked)


def _asked(request: AnyRequest, order_id: str) -> Asked:
    services, client = services_of(request), client_of(request)
    parsed = ids.parse_id(order_id)
    if parsed is None:
        raise refuse("not_found")
    everyone = client.may("orders:manage") and client.may("orders:read:all")
    return Asked(
        services,
        client,
        parsed,
        read_required_match(request),
        None if everyone else client.client_id,
        read_headers(request.scope["headers"]).traceparent,
        ids.new_id(services.clock.now_ms()),
    )


async def _unchanged(asked: Asked, outcome: str, status: str | None) -> ProblemError:
    """Why nothing has changed: `outcome` is the code, `status` that of the order if there is one."""
    if outcome == "version_mismatch":
        return refuse(outcome)
    if outcome != "not_found":
        assert status is not None
        return refuse(outcome, f"the order is {status}", order_status=status, allowed=allowed(status, ACTIONS))
    if asked.client.may("orders:read:all") and await asked.services.book.now(asked.order_id) is not None:
        return refuse("scope_missing", "to change an order of another client needs the scope orders:manage")
    return refuse(outcome)


async def _changed(asked: Asked) -> Response[bytes]:
    """Say so to the stream. Who cannot read the order now leaves its event to the relay."""
    services = asked.services
    order, change = await services.book.at_version(asked.order_id, asked.version + 1)
    event = event_of(order, change, f"/floodgate/{services.settings.installation.name}")
    services.publisher.put(asked.batch_id, [event])
    return json_answer(body_of(order, asked.client), headers={"etag": etag(order.version)})
