"""Changes of an order after it was placed. Each is one autocommit statement that asks for the version it is meant for,
so one that is repeated changes nothing; the change's event waits in the outbox under the caller's batch id.
"""

import datetime as dt
from typing import Literal, NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

_CANCEL = "select outcome, status, skus from order_cancel($1, $2, $3, $4, $5, $6, $7, $8)"

_PAY = "select outcome, status from order_pay($1, $2, $3, $4, $5, $6, $7, $8)"


class Cancelled(NamedTuple):
    """`status` is the order's, None when there is none; `skus` are the stock keys whose units are free again."""

    outcome: Literal["cancelled", "not_found", "version_mismatch", "not_cancellable"]
    status: str | None
    skus: list[str]


async def cancel(
    pool: asyncpg.Pool,
    order_id: bytes,
    version: int,
    client_id: int | None,
    home: int,
    actor: str,
    reason: str,
    traceparent: str | None,
    batch_id: bytes,
) -> Cancelled:
    """Cancel version `version` of an order, of this client if one is named. Its units go back to the home shards; only
    `cancelled` has changed anything.
    """
    row = await pool.fetchrow(
        _CANCEL, UUID(order_id), version, client_id, home, actor, reason, traceparent, UUID(batch_id)
    )
    return Cancelled(row["outcome"], row["status"], row["skus"] or [])


class Paid(NamedTuple):
    """`status` is the order's, None when there is none."""

    outcome: Literal["paid", "not_found", "version_mismatch", "not_payable"]
    status: str | None


async def pay(
    pool: asyncpg.Pool,
    order_id: bytes,
    version: int,
    client_id: int | None,
    reference: str,
    paid_at: dt.datetime | None,
    actor: str,
    traceparent: str | None,
    batch_id: bytes,
) -> Paid:
    """Version `version` of an order, of this client if one is named, was paid. Only `paid` has changed anything."""
    row = await pool.fetchrow(
        _PAY, UUID(order_id), version, client_id, reference, paid_at, actor, traceparent, UUID(batch_id)
    )
    return Paid(row["outcome"], row["status"])
