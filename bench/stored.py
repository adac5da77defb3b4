"""The canonical order as the stores take it: the ledger's rows in binary COPY form, and the stream's events. What the
ceilings of the stores send, made by the same encoders as a gateway's.

It promises that every order and every event has an id of its own, of the instant at which it is sent, as a gateway's
have: an index and a table of known ids cost what they cost there. All else is the same bytes again and again. It never
sends anything.
"""

import secrets
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit, urlunsplit

import msgspec

from bench import workload
from core_ext import ids, pricing, rows
from core_ext.shapes import Change, Order, OrderIn, Product
from gateway.domain.personal import Vault
from gateway.orders import CREATED, event_of
from persistence.nats.stream import Event
from persistence.postgres.ledger import COPY_BYTES_MAX

BATCH = 1000  # orders of a commit, and events of an atomic batch
STATUS = "pending_payment"
ACTOR = "client:local"
SOURCE = "/floodgate/local"
PAYMENT_TIMEOUT_MS = 365 * 86_400_000  # None of them expires while others are measured.
ID_AT = 6  # of a row: a count of fields (2 bytes), the length of the first field (4), then the order's id
TIME_BYTES = 6  # that an id begins with

_vault = Vault({1: secrets.token_bytes(32)})
_decode = msgspec.json.Decoder(OrderIn).decode


def order_at(ms: int) -> tuple[Order, Change]:
    """A canonical order of this instant, with the change that creates it."""
    order_in = _decode(workload.body())
    product = Product(workload.SKU, "Flash", workload.PRICE, workload.CURRENCY)
    priced = pricing.price_order(order_in, {workload.SKU: product}, may_price=False)
    assert not isinstance(priced, int), priced
    order = Order(
        id=ids.new_id(ms),
        client_id=1,
        channel=order_in.channel,
        currency=order_in.currency,
        status=STATUS,
        version=1,
        total=priced.total,
        lines=priced.lines,
        created_at=ms,
        customer_id=order_in.customer_id,
        expires_at=ms + PAYMENT_TIMEOUT_MS,
        note=order_in.note,
        ship_to=order_in.ship_to,
    )
    return order, Change(1, ms, CREATED, STATUS, ACTOR)


def rows_of(order: Order, change: Change) -> dict[str, bytes]:
    """Its rows by table."""
    sealed = _vault.seal(order.id, order.note, order.ship_to)
    assert sealed is not None
    return {
        "orders": rows.order_row(order, sealed.personal),
        "order_lines": rows.line_rows(order),
        "order_history": rows.history_row(order.id, change),
        "order_key": rows.key_row(order.id, sealed.master_version, sealed.wrapped),
    }


def at_database(url: str, name: str) -> str:
    """The address of another database on the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


class Batch:
    """The COPY streams of BATCH orders by table, each of at most COPY_BYTES_MAX. `renew` makes them other orders."""

    def __init__(self, ms: int) -> None:
        made = [rows_of(*order_at(ms)) for _ in range(BATCH)]
        self.streams = {table: list(_streams([order[table] for order in made])) for table in made[0]}

    def renew(self, ms: int) -> None:
        """Give every order an id of this instant, which has to be another one than all before."""
        time = ms.to_bytes(TIME_BYTES, "big")
        for streams in self.streams.values():
            for stream in streams:
                stream.put_time(time)


class CopyStream:
    """A COPY of rows that are all equally long; its `payload` is changed in place."""

    def __init__(self, made: Sequence[bytes]) -> None:
        self.count, self.stride = len(made), len(made[0])
        assert {len(row) for row in made} == {self.stride}
        self.payload = bytearray(b"".join((rows.HEADER, *made, rows.TRAILER)))

    def put_time(self, time: bytes) -> None:
        """Put the time of an id into the id of every row."""
        end = len(self.payload) - len(rows.TRAILER)
        for at, byte in enumerate(time, len(rows.HEADER) + ID_AT):
            self.payload[at : end : self.stride] = bytes((byte,)) * self.count


class Events:
    """Atomic batches of BATCH events for a stream whose subjects begin with `first` instead of `orders`."""

    def __init__(self, ms: int, first: str) -> None:
        made = [
            event_of(*order_at(ms), SOURCE, key=(secrets.token_bytes(16), secrets.token_bytes(16)))
            for _ in range(BATCH)
        ]
        self._events = [event._replace(subject=f"{first}.{event.subject.partition('.')[2]}") for event in made]

    def batch(self, ms: int) -> list[Event]:
        """Events with ids that no batch had before."""
        return [event._replace(id=f"{ids.format_id(ids.new_id(ms))}.1") for event in self._events]


def _streams(made: Sequence[bytes]) -> Iterator[CopyStream]:
    most = COPY_BYTES_MAX // len(made[0])
    yield from (CopyStream(made[start : start + most]) for start in range(0, len(made), most))
