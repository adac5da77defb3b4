"""Orders as the ledger stores them, turned back into what answers and events are encoded from, so that both come out as
the same bytes as at first.
"""

import datetime as dt
from collections.abc import Sequence

import asyncpg
from msgspec.structs import replace

from core_ext import documents
from core_ext.shapes import Change, Line, Order, Sealed
from gateway.domain.access import Client
from gateway.domain.personal import Vault
from gateway.domain.recall import headers_of
from persistence.errors import LedgerUnavailableError
from persistence.nats.stream import Event
from persistence.postgres import journals, orders
from persistence.postgres.connect import UNREACHABLE
from persistence.postgres.orders import StoredKey, StoredOrder, to_ms
from persistence.postgres.session import Session

CREATED = "created"


def restore(stored: StoredOrder, vault: Vault | None) -> Order:
    """The order as it stands now. Personal data that has been erased is left out; without a vault, all of it."""
    row = stored.order
    order = Order(
        id=row["order_id"].bytes,
        client_id=row["client_id"],
        channel=row["channel"],
        currency=row["currency"],
        status=row["status"],
        version=row["version"],
        total=row["total"],
        lines=[_line(line) for line in stored.lines],
        created_at=to_ms(row["created_at"]) or 0,
        customer_id=row["customer_id"],
        external_id=row["external_id"],
        sale_id=row["sale_id"],
        metadata=_json(row["metadata"]),
        adjustments=_json(row["adjustments"]),
        placed_at=to_ms(row["placed_at"]),
        paid_reference=row["paid_reference"],
        paid_at=to_ms(row["paid_at"]),
        expires_at=to_ms(row["expires_at"]),
    )
    if vault is not None and row["personal"] is not None and stored.key is not None:
        personal = vault.open(order.id, Sealed(row["personal"], stored.key["master_version"], stored.key["wrapped"]))
        order.note, order.ship_to = personal.note, personal.ship_to
    return order


def restore_change(row: asyncpg.Record) -> Change:
    """A version of an order, from its row of history."""
    return Change(
        version=row["version"],
        at=to_ms(row["at"]) or 0,
        event=row["event"],
        status=row["status"],
        actor=row["actor"],
        previous_status=row["previous_status"],
        reason=row["reason"],
        changed=tuple(row["changed"]),
        traceparent=row["traceparent"],
    )


def event_of(order: Order, change: Change, source: str, key: tuple[bytes, bytes] | None = None) -> Event:
    """The event of one version of an order: whoever encodes it, from memory or from the tables, gets the same bytes.
    `key`: hash and fingerprint of the order's key, for whoever takes the order back into a restored ledger.
    """
    order = as_of(order, change.status)
    subject = documents.event_subject(order.id, change.event, order.channel)
    event_id, payload = documents.event_id(order.id, change.version), documents.event_json(order, change, source)
    headers = headers_of(order, key) if change.event == CREATED else {}
    return Event(subject, event_id, payload, headers)


def as_of(order: Order, status: str) -> Order:
    """The order as it was when it had this status: one that waits for its payment has none yet."""
    if status == "pending_payment" and order.paid_reference is not None:
        return replace(order, paid_reference=None, paid_at=None)
    return order


def body_of(order: Order, client: Client) -> bytes:
    """The order as this client may see it."""
    return documents.order_json(order, documents.PLAIN if client.may("pii:read") else documents.MASKED)


class OrderBook:
    """Reads orders for the worker. Every method raises LedgerUnavailableError when PostgreSQL does not answer."""

    def __init__(self, pool: asyncpg.Pool, session: Session, vault: Vault) -> None:
        """`session` is for `keys` alone, which a sale asks for without a pause: the pool would reset a connection after
        each use, which costs as much as the question.
        """
        self._pool = pool
        self._session = session
        self._vault = vault

    async def keys(self, key_hashes: Sequence[bytes]) -> dict[bytes, StoredKey]:
        """What the keys belong to, for those that are known."""
        return await self._session.run(lambda connection: orders.fetch_keys(connection, key_hashes))

    async def as_created(self, order_ids: Sequence[bytes]) -> dict[bytes, Order]:
        """The orders as their first answer showed them: version 1, whatever has happened since."""
        found = await self._fetch(order_ids, history=True)
        created = {}
        for order_id, stored in found.items():
            first = stored.history[0]
            assert first["version"] == 1, order_id
            order = as_of(restore(stored, self._vault), first["status"])
            order.version, order.status = 1, first["status"]
            created[order_id] = order
        return created

    async def now(self, order_id: bytes) -> Order | None:
        """The order as it stands, None when there is none."""
        stored = (await self.all_now([order_id])).get(order_id)
        return None if stored is None else self.restore(stored)

    async def all_now(self, order_ids: Sequence[bytes]) -> dict[bytes, StoredOrder]:
        """The orders among these ids that there are, as they stand, and as they are stored: one that cannot be opened
        keeps nobody from the others.
        """
        return await self._fetch(order_ids, history=False)

    def restore(self, stored: StoredOrder) -> Order:
        """The order. Raises VaultError."""
        return restore(stored, self._vault)

    async def at_version(self, order_id: bytes, version: int) -> tuple[Order, Change]:
        """The order as it stands, which has had this version, and the change that made the version."""
        stored = (await self._fetch([order_id], history=True))[order_id]
        change = next(row for row in stored.history if row["version"] == version)
        return restore(stored, self._vault), restore_change(change)

    async def page(self, filters: dict[str, object], limit: int) -> list[Order]:
        """Up to `limit` orders, newest first; see `persistence.postgres.orders.fetch_page` for the filters."""
        try:
            page = await orders.fetch_page(self._pool, filters, limit)
        except UNREACHABLE as error:
            raise LedgerUnavailableError(f"PostgreSQL did not answer: {error!r}") from error
        return [restore(stored, self._vault) for stored in page]

    async def may_be_journaled(self, but: str, seen_since_s: float) -> bool:
        """Whether an owner other than `but` may have orders that are not in the ledger, since it says so or has not
        been heard of since then, in seconds since 1970.
        """
        since = dt.datetime.fromtimestamp(seen_since_s, dt.UTC)
        try:
            return await journals.may_hold_orders(self._pool, but, since)
        except UNREACHABLE as error:
            raise LedgerUnavailableError(f"PostgreSQL did not answer: {error!r}") from error

    async def _fetch(self, order_ids: Sequence[bytes], *, history: bool) -> dict[bytes, StoredOrder]:
        try:
            async with self._pool.acquire() as connection:  # The pool resets it after each use.
                return await orders.fetch(connection, order_ids, history=history)
        except UNREACHABLE as error:
            raise LedgerUnavailableError(f"PostgreSQL did not answer: {error!r}") from error


def _line(row: asyncpg.Record) -> Line:
    return Line(
        row["line"],
        row["sku"],
        row["title"],
        row["quantity"],
        row["unit_price"],
        row["amount"],
        row["stocked"],
        row["limited"],
    )


def _json(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
